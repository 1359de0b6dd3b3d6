//! Writes the log to standard error by threads of its own: whatever reads it, and however slowly, no request waits for it. Lines that cannot
//! be queued are dropped and counted, those of requests long before all others.

use std::io::{self, Write, stderr};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// The `target` of access-log lines.
pub const ACCESS_LOG: &str = "wukongim_gateway::access";

/// Queued lines of requests, about 3 MB; further ones are dropped.
const MAX_REQUEST_LINES: usize = 8 * 1024;
/// Queued lines of all other kinds. Few are written for each request, so this queue is full long after that of the requests.
const MAX_OTHER_LINES: usize = 32 * 1024;
/// How long a thread that wrote everything collects lines before it writes again, so that not each request wakes it.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);
/// From this size on, collected lines are written before all that are queued have been collected.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// The counters of the running log's queues; the log belongs to the process.
static DROPPED: OnceLock<[ErrorCounter; 2]> = OnceLock::new();

/// Lines that were dropped since the start of the process, by kind.
pub(super) fn dropped_lines() -> [(&'static str, usize); 2] {
    let dropped = DROPPED.get();
    let count = |queue: usize| dropped.map_or(0, |queues| queues[queue].dropped_lines());
    [("request", count(0)), ("other", count(1))]
}

/// Writes what is queued when it is dropped, for at most about two seconds.
pub struct LogGuard(#[expect(dead_code, reason = "held for its drop")] [WorkerGuard; 2]);

/// Queues each line. Access-log lines of every level have one queue, and stay in order; so do all other lines, such as errors and the
/// audit log.
pub(super) struct LogWriter {
    requests: NonBlocking,
    others: NonBlocking,
}

impl LogWriter {
    /// Writes to standard error until the guard is dropped.
    pub(super) fn stderr() -> (Self, LogGuard) {
        let queue = |name, lines| {
            NonBlockingBuilder::default()
                .thread_name(name)
                .buffered_lines_limit(lines)
                .finish(Lines::default())
        };
        let (requests, requests_guard) = queue("log-requests", MAX_REQUEST_LINES);
        let (others, others_guard) = queue("log", MAX_OTHER_LINES);
        // The first log of the process stays.
        let _ = DROPPED.set([requests.error_counter(), others.error_counter()]);
        let writer = Self { requests, others };
        // Requests' lines are flushed first: without a backlog the last line is of the gateway's end.
        (writer, LogGuard([requests_guard, others_guard]))
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        self.others.clone()
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> NonBlocking {
        // Debug lines may be as many as those of requests.
        if line.target() == ACCESS_LOG || *line.level() > Level::INFO {
            self.requests.clone()
        } else {
            self.others.clone()
        }
    }
}

/// Whole lines on their way to standard error, written together.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// One call under the lock of standard error, so that the lines of both threads are never mixed.
    fn write_out(&mut self) -> io::Result<()> {
        let result = stderr().write_all(&self.0);
        self.0.clear();
        result
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(line);
        if self.0.len() >= MAX_WRITE_BYTES {
            self.write_out()?;
        }
        Ok(line.len())
    }

    /// Called when no line is queued.
    fn flush(&mut self) -> io::Result<()> {
        let result = self.write_out();
        thread::sleep(WRITE_INTERVAL);
        result
    }
}
