//! What a socket has carried: counted in the metrics at once, and for its log line.

use std::sync::Arc;

use wkproto::FrameKind;

use crate::telemetry::{Metrics, SocketDirection, SocketFrame};

/// Frames and bytes each way, as the client sees them.
pub(super) struct Traffic {
    metrics: Arc<Metrics>,
    pub(super) frames_in: u64,
    pub(super) frames_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Traffic {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            frames_in: 0,
            frames_out: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// A frame of the client, or its message in JSON; `None` for one that is none.
    pub(super) fn frame_in(&mut self, kind: Option<FrameKind>) {
        self.frames_in += 1;
        let frame = kind.map_or(SocketFrame::Other, label);
        self.metrics.sockets.frames[SocketDirection::In][frame].inc();
    }

    /// A frame to the client.
    pub(super) fn frame_out(&mut self, kind: FrameKind) {
        self.frames_out += 1;
        self.metrics.sockets.frames[SocketDirection::Out][label(kind)].inc();
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.bytes_in += bytes as u64;
        self.metrics.sockets.bytes[SocketDirection::In].inc_by(bytes as u64);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
        self.metrics.sockets.bytes[SocketDirection::Out].inc_by(bytes as u64);
    }
}

fn label(kind: FrameKind) -> SocketFrame {
    match kind {
        FrameKind::Connect => SocketFrame::Connect,
        FrameKind::Connack => SocketFrame::Connack,
        FrameKind::Send => SocketFrame::Send,
        FrameKind::Sendack => SocketFrame::Sendack,
        FrameKind::Recv => SocketFrame::Recv,
        FrameKind::Recvack => SocketFrame::Recvack,
        FrameKind::Ping => SocketFrame::Ping,
        FrameKind::Pong => SocketFrame::Pong,
        FrameKind::Disconnect => SocketFrame::Disconnect,
        FrameKind::Sub | FrameKind::Suback | FrameKind::Event => SocketFrame::Other,
    }
}
