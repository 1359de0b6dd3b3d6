//! Standard error, where lines of answered requests are written a moment later by a thread of their own: a request does not wait for
//! the write, and many lines are written at once. Every other line is written at once, after those before it.

use std::io::{self, Write as _, stderr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where requests' lines come from.
const OF_REQUESTS: &str = "wukongim_gateway::app::frame";
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(10);
/// With so many bytes gathered, whoever brings more writes them: nothing is thrown away when standard error is slow.
const MOST: usize = 1024 * 1024;

#[derive(Default)]
struct Gathered {
    lines: Mutex<Vec<u8>>,
    some: Condvar,
}

impl Gathered {
    /// Writes what is gathered, and then `line`. Under the lock, so that lines stay in order.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.lock();
        lines.extend_from_slice(line);
        let result = stderr().write_all(&lines);
        lines.clear();
        result
    }

    fn gather(&self, line: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.lock();
        if lines.len() + line.len() > MOST {
            drop(lines);
            return self.write(line);
        }
        if lines.is_empty() {
            self.some.notify_one();
        }
        lines.extend_from_slice(line);
        Ok(())
    }

    fn keep_writing(&self) {
        loop {
            let mut lines = self.lines.lock();
            self.some.wait_while(&mut lines, |lines| lines.is_empty());
            drop(lines);
            thread::sleep(GATHER);
            // There is nowhere to say that standard error is gone.
            let _ = self.write(&[]);
        }
    }
}

/// Makes a writer for each line.
#[derive(Clone)]
pub(super) struct Later(Arc<Gathered>);

impl Later {
    /// Standard error, with a thread of its own.
    pub(super) fn stderr() -> Self {
        let gathered = Arc::<Gathered>::default();
        let writer = gathered.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        if thread.spawn(move || writer.keep_writing()).is_err() {
            eprintln!(
                "error: no thread for the log: lines of requests come with the next other line"
            );
        }
        Self(gathered)
    }
}

/// One line's way out.
pub(super) struct Line<'a> {
    gathered: &'a Gathered,
    can_wait: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.can_wait {
            self.gathered.gather(line)?;
        } else {
            self.gathered.write(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Later {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            gathered: &self.0,
            can_wait: false,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line<'a> {
        Line {
            gathered: &self.0,
            can_wait: *line.level() >= Level::INFO && line.target() == OF_REQUESTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_can_wait_are_gathered_and_others_take_them_along() {
        let gathered = Gathered::default();
        gathered.gather(b"\n").unwrap();
        gathered.gather(b"\n").unwrap();
        assert_eq!(*gathered.lines.lock(), b"\n\n");
        gathered.write(b"\n").unwrap();
        assert!(gathered.lines.lock().is_empty());
    }
}
