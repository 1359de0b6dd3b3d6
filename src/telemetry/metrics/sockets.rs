//! Metrics of clients' sockets. Every series exists from the start, and is indexed by its label, so that a frame costs no lookup.

use std::marker::PhantomData;
use std::ops::Index;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::families::{Label, Seconds, SmallFamily, register};

/// The reasons with which the gateway itself refuses a SEND.
const REASONS: [u8; 7] = [9, 11, 16, 19, 22, 23, 24];

/// The values of one label.
pub trait LabelValue: Copy + 'static {
    /// All of them, in the order of their numbers.
    const NAMES: &'static [&'static str];

    /// Its place in `NAMES`.
    fn index(self) -> usize;

    /// Its text in metrics and logs.
    fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// Defines the values of a label with their text.
macro_rules! label_values {
    ($(
        $(#[$doc:meta])*
        $Label:ident { $( $(#[$value_doc:meta])* $Value:ident = $name:literal; )* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Label {
            $( $(#[$value_doc])* $Value, )*
        }

        impl LabelValue for $Label {
            const NAMES: &'static [&'static str] = &[$( $name, )*];

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

label_values! {
    /// What a socket speaks, and over what.
    SocketProtocol {
        /// Binary frames over WebSocket.
        WkprotoWs = "wkproto_ws";
        /// JSON-RPC over WebSocket.
        JsonrpcWs = "jsonrpc_ws";
        /// Binary frames over plain TCP.
        WkprotoTcp = "wkproto_tcp";
    }

    /// What became of a connection up to its CONNACK.
    SocketConnect {
        /// Connected.
        Ok = "ok";
        /// Its uid, token or key was refused.
        BadToken = "bad_token";
        /// Its user is banned.
        Banned = "banned";
        /// WuKongIM or the store could not be reached, or WuKongIM refused it.
        Upstream = "upstream";
        /// The client sent no CONNECT in time.
        Timeout = "timeout";
        /// No place was left.
        Full = "full";
        /// Its first frame was malformed or no CONNECT.
        Protocol = "protocol";
    }

    /// The direction of frames and bytes, as seen from the gateway.
    SocketDirection {
        /// From clients.
        In = "in";
        /// To clients.
        Out = "out";
    }

    /// The type of a frame; JSON-RPC's messages count as the frames they stand for.
    SocketFrame {
        /// CONNECT.
        Connect = "connect";
        /// CONNACK.
        Connack = "connack";
        /// SEND.
        Send = "send";
        /// SENDACK.
        Sendack = "sendack";
        /// RECV.
        Recv = "recv";
        /// RECVACK.
        Recvack = "recvack";
        /// PING.
        Ping = "ping";
        /// PONG.
        Pong = "pong";
        /// DISCONNECT.
        Disconnect = "disconnect";
        /// Any other, and what is none.
        Other = "other";
    }

    /// Why a connected socket ended.
    SocketEnd {
        /// The client closed it.
        Client = "client";
        /// WuKongIM closed it, or WuKongIM, the store or the backend was lost.
        Upstream = "upstream";
        /// Its token was revoked.
        Revoked = "revoked";
        /// Its user was banned.
        Banned = "banned";
        /// No frame arrived for `socket.idle_timeout`.
        Idle = "idle";
        /// The client did not read for `socket.write_timeout`.
        Slow = "slow";
        /// A frame was malformed or not allowed.
        Protocol = "protocol";
        /// A newer socket of the user took its place.
        Replaced = "replaced";
        /// Another time-out.
        Timeout = "timeout";
        /// The gateway was shut down.
        Drain = "drain";
    }
}

/// One metric for each value of a label: `meters.ends[SocketEnd::Idle].inc()`.
pub struct ByLabel<L, M> {
    metrics: Vec<M>,
    label: PhantomData<L>,
}

impl<L: LabelValue, M> ByLabel<L, M> {
    fn new(metric: impl FnMut(&'static str) -> M) -> Self {
        Self {
            metrics: L::NAMES.iter().copied().map(metric).collect(),
            label: PhantomData,
        }
    }
}

impl<L: LabelValue, M> Index<L> for ByLabel<L, M> {
    type Output = M;

    fn index(&self, label: L) -> &M {
        &self.metrics[label.index()]
    }
}

/// The metrics of clients' sockets.
pub struct SocketMeters {
    /// `gateway_sockets`: connected ones, that is after CONNACK.
    pub open: ByLabel<SocketProtocol, Gauge>,
    /// `gateway_socket_connects_total`.
    pub connects: ByLabel<SocketConnect, Counter>,
    /// `gateway_socket_connack_seconds`: from a client's CONNECT to its CONNACK.
    pub connack_seconds: Seconds,
    /// `gateway_socket_frames_total`.
    pub frames: ByLabel<SocketDirection, ByLabel<SocketFrame, Counter>>,
    /// `gateway_socket_bytes_total`.
    pub bytes: ByLabel<SocketDirection, Counter>,
    refused: SmallFamily<[(&'static str, u8); 1], Counter>,
    /// `gateway_socket_ends_total`.
    pub ends: ByLabel<SocketEnd, Counter>,
}

impl SocketMeters {
    pub(super) fn registered(all: &mut Registry) -> Self {
        let open: Family<[Label; 1], Gauge> = register(all, "sockets", "connected sockets");
        let help = "connections by what became of them";
        let connects = counters(all, "socket_connects", "outcome", help);
        let connack_seconds = register(all, "socket_connack_seconds", "from CONNECT to CONNACK");
        let frames: Family<[Label; 2], Counter> =
            register(all, "socket_frames", "frames, also as JSON-RPC");
        let bytes = counters(all, "socket_bytes", "direction", "bytes of these frames");
        let refused: SmallFamily<_, Counter> =
            register(all, "socket_refused", "SENDs refused by the gateway");
        for reason in REASONS {
            refused.with(&[("reason", reason)], |_| ());
        }
        Self {
            open: ByLabel::new(|name| open.get_or_create(&[("protocol", name)]).clone()),
            connects,
            connack_seconds,
            frames: ByLabel::new(|way| {
                ByLabel::new(|name| {
                    let labels = [("direction", way), ("type", name)];
                    frames.get_or_create(&labels).clone()
                })
            }),
            bytes,
            refused,
            ends: counters(all, "socket_ends", "cause", "ends of connected sockets"),
        }
    }

    /// Counts one SEND that the gateway refused with this reason of SENDACK (`gateway_socket_refused_total`).
    pub fn refused(&self, reason: u8) {
        self.refused
            .with(&[("reason", reason)], |count| _ = count.inc());
    }
}

/// Registers a counter with one label.
fn counters<L: LabelValue>(
    all: &mut Registry,
    name: &str,
    label: &'static str,
    help: &str,
) -> ByLabel<L, Counter> {
    let family: Family<[Label; 1], Counter> = register(all, name, help);
    ByLabel::new(|value| family.get_or_create(&[(label, value)]).clone())
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn every_series_starts_at_zero_and_is_found_by_its_label() {
        let metrics = Metrics::default();
        let sockets = &metrics.sockets;
        let text = metrics.render();
        let zeros = |name: &str| {
            let start = format!("{name}{{");
            let series = text.lines().filter(|line| line.starts_with(&start));
            series.filter(|line| line.ends_with(" 0")).count()
        };
        assert_eq!(zeros("gateway_sockets"), 3);
        assert_eq!(zeros("gateway_socket_connects_total"), 7);
        assert_eq!(zeros("gateway_socket_frames_total"), 20);
        assert_eq!(zeros("gateway_socket_bytes_total"), 2);
        assert_eq!(zeros("gateway_socket_refused_total"), 7);
        assert_eq!(zeros("gateway_socket_ends_total"), 10);

        sockets.open[SocketProtocol::JsonrpcWs].inc();
        sockets.connects[SocketConnect::BadToken].inc();
        sockets.connack_seconds.observe(0.001);
        sockets.frames[SocketDirection::Out][SocketFrame::Recv].inc();
        sockets.bytes[SocketDirection::In].inc_by(1234);
        sockets.refused(22);
        sockets.ends[SocketEnd::Drain].inc();
        let text = metrics.render_prometheus();
        for line in [
            r#"gateway_sockets{protocol="jsonrpc_ws"} 1"#,
            r#"gateway_socket_connects_total{outcome="bad_token"} 1"#,
            "gateway_socket_connack_seconds_count 1",
            r#"gateway_socket_frames_total{direction="out",type="recv"} 1"#,
            r#"gateway_socket_bytes_total{direction="in"} 1234"#,
            r#"gateway_socket_refused_total{reason="22"} 1"#,
            r#"gateway_socket_ends_total{cause="drain"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(SocketEnd::Replaced.name(), "replaced");
    }
}
