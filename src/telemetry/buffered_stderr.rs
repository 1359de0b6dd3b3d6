//! Buffered standard error: access-log lines are written shortly after by a separate thread, so that requests do not wait for the write and
//! many lines share one. All other lines are written at once, after the buffered ones.

use std::io::{self, Write as _, stderr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The `target` of access-log lines.
const ACCESS_LOG_TARGET: &str = "wukongim_gateway::state::frame";
/// How long lines are buffered.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);
/// Above this size the next writer writes the buffer itself, so that no line is lost when standard error is slow.
const MAX_BUFFERED_BYTES: usize = 1024 * 1024;

#[derive(Default)]
struct LineBuffer {
    lines: Mutex<Vec<u8>>,
    has_lines: Condvar,
}

impl LineBuffer {
    /// Writes the buffer and then `line`. Holds the lock meanwhile, to keep the order of lines.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.lock();
        lines.extend_from_slice(line);
        let result = stderr().write_all(&lines);
        lines.clear();
        result
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.lock();
        if lines.len() + line.len() > MAX_BUFFERED_BYTES {
            drop(lines);
            return self.write(line);
        }
        if lines.is_empty() {
            self.has_lines.notify_one();
        }
        lines.extend_from_slice(line);
        Ok(())
    }

    fn flush_loop(&self) {
        loop {
            let mut lines = self.lines.lock();
            self.has_lines
                .wait_while(&mut lines, |lines| lines.is_empty());
            drop(lines);
            thread::sleep(FLUSH_INTERVAL);
            // A failure of standard error cannot be reported anywhere.
            let _ = self.write(&[]);
        }
    }
}

/// Creates a writer for each line.
#[derive(Clone)]
pub(super) struct BufferedStderr(Arc<LineBuffer>);

impl BufferedStderr {
    /// Standard error, with its writer thread.
    pub(super) fn stderr() -> Self {
        let buffer = Arc::<LineBuffer>::default();
        let writer = buffer.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        if thread.spawn(move || writer.flush_loop()).is_err() {
            eprintln!(
                "error: no thread for the log: access-log lines are written with the next other line"
            );
        }
        Self(buffer)
    }
}

/// The writer of one line.
pub(super) struct LineWriter<'a> {
    buffer: &'a LineBuffer,
    is_buffered: bool,
}

impl io::Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_buffered {
            self.buffer.append(line)?;
        } else {
            self.buffer.write(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BufferedStderr {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter {
            buffer: &self.0,
            is_buffered: false,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter {
            buffer: &self.0,
            is_buffered: *line.level() >= Level::INFO && line.target() == ACCESS_LOG_TARGET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffered_lines_are_written_with_the_next_other_line() {
        let buffer = LineBuffer::default();
        buffer.append(b"\n").unwrap();
        buffer.append(b"\n").unwrap();
        assert_eq!(*buffer.lines.lock(), b"\n\n");
        buffer.write(b"\n").unwrap();
        assert!(buffer.lines.lock().is_empty());
    }
}
