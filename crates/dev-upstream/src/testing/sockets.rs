//! The controls of the sockets for clients: scripted CONNECTs, a server that stops reading, and the frames that came.

use parking_lot::Mutex;
use tokio::sync::watch;
use wkproto::{Frame, FrameKind};

use super::super::{
    server::Shared,
    sockets::{Connected, connect},
};

/// What becomes of a CONNECT instead of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketFault {
    /// It is never answered, as by a real v2 in 1 of 100; the connection is closed after `connect_idle`.
    Unanswered,
    /// The connection is closed at once.
    Closed,
}

/// A frame that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFrame {
    /// Whose connection it came on; empty for a CONNECT.
    pub uid: String,
    /// What it is.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: u8,
    /// Its body.
    pub body: Vec<u8>,
}

impl SocketFrame {
    /// The frame, for its views to be parsed from.
    pub fn frame(&self) -> Frame<'_> {
        Frame {
            kind: self.kind,
            flags: self.flags,
            body: &self.body,
        }
    }
}

/// The controls of one server's sockets.
#[derive(Debug)]
pub struct Sockets {
    records: bool,
    faults: Mutex<Vec<SocketFault>>,
    frames: Mutex<Vec<SocketFrame>>,
    reads: watch::Sender<bool>,
}

impl Sockets {
    pub(super) fn new(records: bool) -> Self {
        Self {
            records,
            faults: Mutex::default(),
            frames: Mutex::default(),
            reads: watch::Sender::new(true),
        }
    }

    /// Scripts the next `times` CONNECTs, after those that are scripted already.
    pub fn script(&self, fault: SocketFault, times: usize) {
        self.faults.lock().extend(std::iter::repeat_n(fault, times));
    }

    /// How many CONNECTs are still scripted.
    pub fn scripted(&self) -> usize {
        self.faults.lock().len()
    }

    /// Whether connected clients are read from; they are at the start.
    pub fn set_reading(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// Every frame that came since the start or [`clear`](Self::clear), in order, if calls are recorded.
    pub fn frames(&self) -> Vec<SocketFrame> {
        self.frames.lock().clone()
    }

    /// The frames of one kind.
    pub fn frames_of(&self, kind: FrameKind) -> Vec<SocketFrame> {
        let frames = self.frames.lock();
        let of_kind = frames.iter().filter(|frame| frame.kind == kind);
        of_kind.cloned().collect()
    }

    /// Clears the recorded frames.
    pub fn clear(&self) {
        self.frames.lock().clear();
    }

    pub(in super::super) fn record(&self, uid: &str, frame: Frame<'_>) {
        if self.records {
            self.frames.lock().push(SocketFrame {
                uid: uid.to_owned(),
                kind: frame.kind,
                flags: frame.flags,
                body: frame.body.to_vec(),
            });
        }
    }

    /// Answers a CONNECT, or does what is scripted for it.
    pub(in super::super) fn connect(&self, shared: &Shared, frame: Frame<'_>) -> Connected {
        self.record("", frame);
        let mut faults = self.faults.lock();
        let fault = (!faults.is_empty()).then(|| faults.remove(0));
        drop(faults);
        match fault {
            Some(SocketFault::Unanswered) => Connected::Silence,
            Some(SocketFault::Closed) => Connected::Closed,
            None => connect(shared, frame),
        }
    }

    /// Returns when clients are read from.
    pub(in super::super) async fn may_read(&self) {
        // The sender outlives every receiver.
        let _ = self.reads.subscribe().wait_for(|reads| *reads).await;
    }
}
