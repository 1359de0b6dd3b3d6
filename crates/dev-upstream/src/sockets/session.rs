//! One client's session: CONNECT first, then its frames and what is delivered to it, until either side ends it.

use std::{pin::pin, time::Duration};

use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use wkproto::{Disconnect, Frame, FrameKind, PONG, Reason, Recv, Stream, next_frame, setting};

use super::{
    Server, Transport,
    connect::{Client, Connected},
    link::{Link, Read},
    send::{as_read_by, send},
};
use crate::{
    Dialect,
    live::{LiveMessage, Outgoing},
    server::{Shared, ended},
};

/// Both generations close a connected client that is silent for so long.
const IDLE: Duration = Duration::from_mins(3);
/// The longest body of a frame in both generations.
const MAX_BODY: usize = 1 << 20;

/// What follows a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Close,
    /// The process ends, as a real one was seen to do.
    Crash,
}

/// Accepts clients until the server stops or crashes; returns when all are gone.
pub(crate) async fn serve(listener: TcpListener, transport: Transport, shared: Server) {
    let mut sessions = JoinSet::new();
    let mut up = shared.up.subscribe();
    loop {
        let accepted = tokio::select! {
            () = ended(&mut up) => break,
            Some(_) = sessions.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors: wait for a connection to end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        sessions.spawn(async move {
            let mut up = shared.up.subscribe();
            let dialect = shared.state.dialect();
            let session = async {
                let link = Link::open(stream, transport, dialect).await?;
                run(&shared, dialect, link).await;
                Some(())
            };
            tokio::select! {
                () = ended(&mut up) => {}
                _ = session => {}
            }
        });
    }
    drop(listener);
    sessions.shutdown().await;
}

async fn run(shared: &Shared, dialect: Dialect, mut link: Link) {
    let waited = timeout(
        shared.connect_idle,
        wait_for_client(shared, dialect, &mut link),
    );
    let Ok(client) = waited.await else {
        return link.close().await;
    };
    let Some((mut client, buffer)) = client else {
        return link.close().await;
    };
    talk(shared, dialect, &mut link, &mut client, buffer).await;
    drop(client);
    link.close().await;
}

/// The client that a CONNECT lets in, `None` when the connection is to be closed.
async fn wait_for_client(
    shared: &Shared,
    dialect: Dialect,
    link: &mut Link,
) -> Option<(Box<Client>, Vec<u8>)> {
    let mut buffer = Vec::new();
    let mut reads = 0;
    loop {
        match link.read(&mut buffer).await {
            Read::Bytes => reads += 1,
            Read::TooLarge if dialect == Dialect::V2 && reads > 0 => {
                // Seen: v2's buffer of unread frames ends the process.
                shared.die();
                return None;
            }
            Read::TooLarge | Read::Closed => return None,
        }
        let Some((frame, length)) = next_frame(&buffer, MAX_BODY).ok()? else {
            continue;
        };
        // Whatever comes with a CONNECT ends the connection in both generations.
        if frame.kind != FrameKind::Connect || length != buffer.len() {
            return None;
        }
        #[cfg(feature = "testing")]
        let connected = shared.controls.sockets.connect(shared, frame);
        #[cfg(not(feature = "testing"))]
        let connected = super::connect::connect(shared, frame);
        return match connected {
            Connected::Welcome(connack, client) => {
                buffer.clear();
                let written = link.write(connack).await;
                written.ok().map(|()| (client, buffer))
            }
            Connected::Refused(connack) => {
                let _ = link.write(connack).await;
                None
            }
            Connected::Silence => {
                buffer.clear();
                // Closed by the caller when the time is over, or by the client.
                while link.read(&mut buffer).await == Read::Bytes {
                    buffer.clear();
                }
                None
            }
            Connected::Closed => None,
            Connected::Crash => {
                shared.die();
                None
            }
        };
    }
}

/// Serves a connected client.
async fn talk(
    shared: &Shared,
    dialect: Dialect,
    link: &mut Link,
    client: &mut Client,
    mut buffer: Vec<u8>,
) {
    loop {
        #[cfg(feature = "testing")]
        let may_read = shared.controls.sockets.may_read();
        #[cfg(not(feature = "testing"))]
        let may_read = std::future::ready(());
        let (outgoing, read) = {
            let mut incoming = pin!(async {
                may_read.await;
                timeout(IDLE, link.read(&mut buffer)).await
            });
            tokio::select! {
                outgoing = client.queue.recv() => (Some(outgoing), None),
                read = &mut incoming => (None, Some(read)),
            }
        };
        match outgoing {
            Some(Some(outgoing)) => match write_out(dialect, client, outgoing) {
                Some(frame) => {
                    if link.write(frame.bytes).await.is_err() || frame.is_last {
                        return;
                    }
                }
                None => return,
            },
            // Removed from the online table.
            Some(None) => return,
            None => {}
        }
        if read.is_some_and(|read| read != Ok(Read::Bytes)) {
            return;
        }
        let mut out = Vec::new();
        let after = take_frames(shared, dialect, client, &mut buffer, &mut out);
        for frame in out {
            if link.write(frame).await.is_err() {
                return;
            }
        }
        match after {
            After::GoOn => {}
            After::Close => return,
            After::Crash => return shared.die(),
        }
    }
}

/// Takes all whole frames from the buffer.
fn take_frames(
    shared: &Shared,
    dialect: Dialect,
    client: &Client,
    buffer: &mut Vec<u8>,
    out: &mut Vec<Vec<u8>>,
) -> After {
    let mut taken = 0;
    let after = loop {
        match next_frame(&buffer[taken..], MAX_BODY) {
            Ok(Some((frame, length))) => {
                #[cfg(feature = "testing")]
                shared.controls.sockets.record(&client.uid, frame);
                match take(shared, dialect, client, frame, out) {
                    After::GoOn => taken += length,
                    after => break after,
                }
            }
            Ok(None) => break After::GoOn,
            Err(_) => break After::Close,
        }
    };
    buffer.drain(..taken);
    after
}

fn take(
    shared: &Shared,
    dialect: Dialect,
    client: &Client,
    frame: Frame<'_>,
    out: &mut Vec<Vec<u8>>,
) -> After {
    match frame.kind {
        FrameKind::Send => send(shared, client, frame, out),
        FrameKind::Ping => {
            out.push(PONG.to_vec());
            After::GoOn
        }
        FrameKind::Recvack => match wkproto::Recvack::parse(frame, client.version) {
            Ok(_) => After::GoOn,
            Err(_) => After::Close,
        },
        // Seen: v2 ignores a second CONNECT, SUB, EVENT, DISCONNECT and what only servers send; v3 closes.
        _ if dialect == Dialect::V2 => After::GoOn,
        _ => After::Close,
    }
}

/// A frame for the client.
struct Written {
    bytes: Vec<u8>,
    is_last: bool,
}

/// `None` where nothing is to be said before the end.
fn write_out(dialect: Dialect, client: &Client, outgoing: Outgoing) -> Option<Written> {
    let mut bytes = Vec::new();
    match outgoing {
        Outgoing::Message(live) => {
            write_recv(dialect, client, &live, &mut bytes)?;
            Some(Written {
                bytes,
                is_last: false,
            })
        }
        Outgoing::Kicked(text) if dialect == Dialect::V2 => {
            let reason = Reason::CONNECT_KICK;
            Disconnect { reason, text }.write(&mut bytes).ok()?;
            Some(Written {
                bytes,
                is_last: true,
            })
        }
        Outgoing::Kicked(_) => None,
        #[cfg(feature = "testing")]
        Outgoing::Raw(raw) => Some(Written {
            bytes: raw.to_vec(),
            is_last: false,
        }),
    }
}

fn write_recv(
    dialect: Dialect,
    client: &Client,
    live: &LiveMessage,
    out: &mut Vec<u8>,
) -> Option<()> {
    let message = &live.message;
    let (from, channel) = as_read_by(message, dialect, &client.uid);
    let is_plain = live.setting & setting::NO_ENCRYPT != 0;
    let sealed = if is_plain {
        live.payload.clone()
    } else {
        client.cipher.seal(&live.payload)
    };
    let mut recv = Recv {
        setting: live.setting,
        msg_key: "",
        from_uid: from.as_bytes(),
        channel_id: channel.as_bytes(),
        channel_type: message.channel_type,
        expire: if client.version >= 3 {
            message.expire
        } else {
            0
        },
        client_msg_no: &message.client_msg_no,
        stream: Stream::default(),
        message_id: message.message_id,
        message_seq: message.message_seq,
        timestamp: live.seconds,
        topic: &live.topic,
        payload: &sealed,
    };
    let msg_key = client.cipher.recv_msg_key(&recv);
    recv.msg_key = &msg_key;
    recv.write(client.version, live.flags, out).ok()
}
