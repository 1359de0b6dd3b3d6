//! What a connection is doing, seen from outside hyper, and when it has done it for too long. hyper's own `header_read_timeout` also
//! runs on idle connections; here heads and idleness are timed apart.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::memory::Unwritten;

/// How long a connection that is closed goes on reading what was on its way, so that its last answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// How every connection of HTTP/2 begins; no method of HTTP/1 does.
const HTTP2: &[u8] = b"PRI";

/// How long a connection may be in each phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until a head is whole, from its first byte or from the connection's beginning.
    pub(super) head: Duration,
    /// Between requests, and between two pieces of an answer that are fetched.
    pub(super) idle: Duration,
}

/// The phases besides that of running requests.
const FIRST_HEAD: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const CLOSING: u8 = 3;

/// Shared by a connection's stream, its requests, and what watches over it.
pub(super) struct Activity {
    patience: Patience,
    began: Instant,
    phase: AtomicU8,
    /// When the phase began, in nanoseconds of the connection's life.
    since_ns: AtomicU64,
    running: AtomicUsize,
    is_http2: AtomicBool,
    /// Whether the connection ends before all that its client sends was read.
    leaves_unread: AtomicBool,
    /// Of answers that are followed to their last byte.
    unwritten: Arc<Unwritten>,
    /// When something of each of them was last written, in nanoseconds of the connection's life.
    followed: Mutex<Vec<Arc<AtomicU64>>>,
    /// Whether it is many clients' (a trusted proxy's): then one who does not read must not end it for the others.
    is_shared: bool,
}

impl Activity {
    /// A connection that was just accepted.
    pub(super) fn new(patience: Patience, is_shared: bool) -> Arc<Self> {
        Arc::new(Self {
            patience,
            began: Instant::now(),
            phase: AtomicU8::new(FIRST_HEAD),
            since_ns: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            is_http2: AtomicBool::new(false),
            leaves_unread: AtomicBool::new(false),
            unwritten: Arc::default(),
            followed: Mutex::default(),
            is_shared,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u8) {
        self.since_ns.store(self.now_ns(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// When the phase must be over; `None` while requests run, which have times of their own. While answers are there to be fetched,
    /// nothing but fetching each of them keeps the connection open, whatever else is asked on it.
    fn due(&self) -> Option<Instant> {
        if self.unwritten.bytes() > 0
            && let Some(written_ns) = self.last_written_ns()
        {
            return Some(self.began + Duration::from_nanos(written_ns) + self.patience.idle);
        }
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let patience = match self.phase.load(Ordering::Relaxed) {
            IDLE => self.patience.idle,
            CLOSING => LINGER,
            _ => self.patience.head,
        };
        let since = Duration::from_nanos(self.since_ns.load(Ordering::Relaxed));
        Some(self.began + since + patience)
    }

    /// When something was last written of the answer of which that is longest ago; of a shared connection, of any.
    fn last_written_ns(&self) -> Option<u64> {
        let followed = self.followed.lock();
        let times = followed.iter().map(|time| time.load(Ordering::Relaxed));
        if self.is_shared {
            times.max()
        } else {
            times.min()
        }
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.running.load(Ordering::Relaxed) > 0 {
            return;
        }
        match self.phase.load(Ordering::Relaxed) {
            FIRST_HEAD if bytes.starts_with(HTTP2) => {
                self.is_http2.store(true, Ordering::Relaxed);
                self.enter(IDLE);
            }
            // Frames that make no request (pings, windows) keep no connection of HTTP/2 open.
            IDLE if !self.is_http2.load(Ordering::Relaxed) => self.enter(HEAD),
            _ => {}
        }
    }

    /// The connection ends after this answer, and its client may still be sending.
    pub(super) fn leave_unread(&self) {
        self.leaves_unread.store(true, Ordering::Relaxed);
    }

    /// Bytes of answers that its client has not fetched, and that are followed.
    pub(super) fn unwritten(&self) -> Arc<Unwritten> {
        self.unwritten.clone()
    }

    /// An answer of so many bytes begins that is followed until what it gives is dropped.
    pub(super) fn follow(self: &Arc<Self>, bytes: usize) -> Followed {
        self.unwritten.add(bytes);
        let written_ns = Arc::new(AtomicU64::new(self.now_ns()));
        self.followed.lock().push(written_ns.clone());
        Followed {
            activity: self.clone(),
            written_ns,
        }
    }

    /// A request whose head is whole, until what it gives is dropped: when there is an answer, or will never be one.
    pub(super) fn request(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Runs a connection; `None` when it was given up since nothing came of it for too long.
    pub(super) async fn guard<C: Future>(&self, mut connection: Pin<Box<C>>) -> Option<C::Output> {
        let recheck = self.patience.head.min(self.patience.idle);
        let mut sleep = pin!(sleep_until(self.began + recheck));
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if let Some(due) = self.due()
                && due < sleep.deadline()
            {
                sleep.as_mut().reset(due);
            }
            // Set no earlier than needed, and looked at only when it fires: a busy connection never touches its timer.
            while sleep.as_mut().poll(context).is_ready() {
                let now = Instant::now();
                let due = self.due().unwrap_or(now + recheck);
                if due <= now {
                    return Poll::Ready(None);
                }
                sleep.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await
    }
}

/// One running request of a connection.
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        // Before the count: whoever sees no request running must see since when. From here on the answer is the client's to fetch.
        self.0.enter(IDLE);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One answer that is followed to its last byte.
pub(super) struct Followed {
    activity: Arc<Activity>,
    written_ns: Arc<AtomicU64>,
}

impl Followed {
    /// So many bytes of it are written.
    pub(super) fn written(&self, bytes: usize) {
        self.written_ns
            .store(self.activity.now_ns(), Ordering::Relaxed);
        self.never_written(bytes);
    }

    /// So many bytes of it will not be written: its request is gone.
    pub(super) fn never_written(&self, bytes: usize) {
        self.activity.unwritten.remove(bytes);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut followed = self.activity.followed.lock();
        followed.retain(|time| !Arc::ptr_eq(time, &self.written_ns));
        drop(followed);
        // From here on it is idle, not from its request's end.
        if self.activity.phase.load(Ordering::Relaxed) == IDLE {
            self.activity.enter(IDLE);
        }
    }
}

/// A stream that tells the connection's activity what goes over it, and that is closed only when the other end has had the chance to
/// read the last answer.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    shut_down: bool,
    lingers: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            shut_down: false,
            lingers: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.activity.read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
            self.lingers = self.activity.leaves_unread.load(Ordering::Relaxed);
            self.activity.enter(CLOSING);
        }
        // Closing a socket with bytes unread resets it, and the answer with it. So what is on its way is read, and thrown away.
        let mut thrown_away = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.lingers = true,
                Poll::Pending if self.lingers => return Poll::Pending,
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }
}
