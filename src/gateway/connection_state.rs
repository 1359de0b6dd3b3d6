//! The phase of a connection, observed from outside hyper, and its timeout. hyper's own `header_read_timeout` also applies to idle
//! connections; here heads and idle time have separate timeouts.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::context::{Reservation, UnwrittenBytes};

/// How long a closing connection continues to read, so that unread data does not cause a reset that loses the last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The beginning of the HTTP/2 preface; no HTTP/1 method begins with it.
const HTTP2_PREFACE: &[u8] = b"PRI";

/// Timeouts of a connection's phases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a head, or the start of the connection, until the head is complete.
    pub(super) head: Duration,
    /// Between requests, and between two pieces of an answer that the client reads.
    pub(super) idle: Duration,
}

/// The phases, apart from that with running requests.
const FIRST_HEAD: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const CLOSING: u8 = 3;

/// The state shared by a connection's stream, its requests and its timer.
pub(super) struct ConnectionState {
    timeouts: Timeouts,
    began: Instant,
    phase: AtomicU8,
    /// When the phase began, in nanoseconds since the connection was accepted.
    since_ns: AtomicU64,
    running: AtomicUsize,
    is_http2: AtomicBool,
    /// Set if the connection closes after its answer while its client may still be sending.
    pub(super) has_unread_input: AtomicBool,
    /// Unwritten bytes of tracked answers.
    pub(super) unwritten: Arc<UnwrittenBytes>,
    /// The time of the last write of each tracked answer, in nanoseconds of the connection's life.
    tracked: Mutex<Vec<Arc<AtomicU64>>>,
    /// Whether many clients share the connection (a trusted proxy's): one that does not read must not close it for the others.
    is_shared: bool,
}

impl ConnectionState {
    /// A connection that was just accepted.
    pub(super) fn new(timeouts: Timeouts, is_shared: bool) -> Arc<Self> {
        Arc::new(Self {
            timeouts,
            began: Instant::now(),
            phase: AtomicU8::new(FIRST_HEAD),
            since_ns: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            is_http2: AtomicBool::new(false),
            has_unread_input: AtomicBool::new(false),
            unwritten: Arc::default(),
            tracked: Mutex::default(),
            is_shared,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn set_phase(&self, phase: u8) {
        self.since_ns.store(self.now_ns(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// The deadline of the phase; `None` while requests run, which have their own. While answers are unwritten, only reading each of them
    /// keeps the connection open, whatever else is requested on it.
    fn phase_deadline(&self) -> Option<Instant> {
        if self.unwritten.0.load(Ordering::Relaxed) > 0
            && let Some(written_ns) = self.last_written_ns()
        {
            return Some(self.began + Duration::from_nanos(written_ns) + self.timeouts.idle);
        }
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let timeout = match self.phase.load(Ordering::Relaxed) {
            IDLE => self.timeouts.idle,
            CLOSING => LINGER_TIMEOUT,
            _ => self.timeouts.head,
        };
        let since = Duration::from_nanos(self.since_ns.load(Ordering::Relaxed));
        Some(self.began + since + timeout)
    }

    /// The last write of the answer that has waited longest; on a shared connection, the last write of any answer.
    fn last_written_ns(&self) -> Option<u64> {
        let tracked = self.tracked.lock();
        let times = tracked.iter().map(|time| time.load(Ordering::Relaxed));
        if self.is_shared {
            times.max()
        } else {
            times.min()
        }
    }

    fn on_read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.running.load(Ordering::Relaxed) > 0 {
            return;
        }
        match self.phase.load(Ordering::Relaxed) {
            FIRST_HEAD if bytes.starts_with(HTTP2_PREFACE) => {
                self.is_http2.store(true, Ordering::Relaxed);
                self.set_phase(IDLE);
            }
            // HTTP/2 frames without a request (pings, window updates) do not extend the idle time.
            IDLE if !self.is_http2.load(Ordering::Relaxed) => self.set_phase(HEAD),
            _ => {}
        }
    }

    /// Starts tracking an answer of `bytes` bytes, and keeps what is reserved for it, until the returned value is dropped.
    pub(super) fn track(
        self: &Arc<Self>,
        bytes: usize,
        reservation: Option<Arc<Reservation>>,
    ) -> Arc<TrackedAnswer> {
        self.unwritten.0.fetch_add(bytes, Ordering::Relaxed);
        let written_ns = Arc::new(AtomicU64::new(self.now_ns()));
        self.tracked.lock().push(written_ns.clone());
        Arc::new(TrackedAnswer {
            state: self.clone(),
            written_ns,
            _reservation: reservation,
        })
    }

    /// Marks a request as running from its complete head until the returned guard is dropped, with or without an answer.
    pub(super) fn begin_request(self: &Arc<Self>) -> RunningRequest {
        self.running.fetch_add(1, Ordering::Relaxed);
        RunningRequest(self.clone())
    }

    /// Runs a connection; `None` when it timed out.
    pub(super) async fn run<C: Future>(&self, mut connection: Pin<Box<C>>) -> Option<C::Output> {
        let recheck = self.timeouts.head.min(self.timeouts.idle);
        let mut sleep = pin!(sleep_until(self.began + recheck));
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if let Some(deadline) = self.phase_deadline()
                && deadline < sleep.deadline()
            {
                sleep.as_mut().reset(deadline);
            }
            // The deadline is checked only when the timer fires, so a busy connection rarely resets it.
            while sleep.as_mut().poll(context).is_ready() {
                let now = Instant::now();
                let deadline = self.phase_deadline().unwrap_or(now + recheck);
                if deadline <= now {
                    return Poll::Ready(None);
                }
                sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// One running request of a connection.
pub(super) struct RunningRequest(Arc<ConnectionState>);

impl Drop for RunningRequest {
    fn drop(&mut self) {
        // Store `since` before the decrement, since readers check the counter first. From here on, the idle timeout covers sending the
        // answer.
        self.0.set_phase(IDLE);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is tracked until its last byte is written.
pub(super) struct TrackedAnswer {
    state: Arc<ConnectionState>,
    written_ns: Arc<AtomicU64>,
    _reservation: Option<Arc<Reservation>>,
}

impl TrackedAnswer {
    /// Records that `bytes` bytes were written.
    pub(super) fn on_written(&self, bytes: usize) {
        self.written_ns
            .store(self.state.now_ns(), Ordering::Relaxed);
        self.discard(bytes);
    }

    /// Records that `bytes` bytes will not be written because the request is gone.
    pub(super) fn discard(&self, bytes: usize) {
        let unwritten = &self.state.unwritten.0;
        unwritten.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for TrackedAnswer {
    fn drop(&mut self) {
        let mut tracked = self.state.tracked.lock();
        tracked.retain(|time| !Arc::ptr_eq(time, &self.written_ns));
        drop(tracked);
        // The idle time starts now, not at the end of the request.
        if self.state.phase.load(Ordering::Relaxed) == IDLE {
            self.state.set_phase(IDLE);
        }
    }
}

/// A stream that records its reads and writes in the connection's state, and lingers on close so that the peer can read the last answer.
pub(super) struct MonitoredStream<S> {
    stream: S,
    state: Arc<ConnectionState>,
    shut_down: bool,
    is_lingering: bool,
}

impl<S> MonitoredStream<S> {
    pub(super) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        Self {
            stream,
            state,
            shut_down: false,
            is_lingering: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.state.on_read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.shut_down = true;
            self.is_lingering = self.state.has_unread_input.load(Ordering::Relaxed);
            self.state.set_phase(CLOSING);
        }
        // Closing a socket with unread bytes resets the connection and loses the answer. So they are read and discarded.
        let mut discarded = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.is_lingering = true,
                Poll::Pending if self.is_lingering => return Poll::Pending,
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }
}
