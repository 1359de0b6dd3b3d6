//! A fake WuKongIM, as cheap as can be: one thread, answers made by hand, nothing checked. It answers what the benchmark's
//! scenarios make the gateway ask, and ends up wrong loudly (404, a closed connection) where asked for anything else.
//!
//! Below `/api/v1/im` it answers what nginx passes on in the gateway's place: the answers WuKongIM would give, ready made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{self, Request, answer, number_after, text_after};
use crate::log::{Ids, Log, Message};

/// Users that are members of every group: `u000`, `u001`, …
const USERS: usize = 64;
/// Messages that are in each history from the beginning.
const HISTORY: usize = 200;
/// The page and the batch that nginx passes on.
const CANNED: usize = 50;
/// `{"type":1,"content":"a message of the benchmark, as long as people write them"}`
const PAYLOAD: &[u8] = b"eyJ0eXBlIjoxLCJjb250ZW50IjoiYSBtZXNzYWdlIG9mIHRoZSBiZW5jaG1hcmssIGFzIGxvbmcgYXMgcGVvcGxlIHdyaXRlIHRoZW0ifQ==";

struct Server {
    v3: bool,
    visible_after: Duration,
    ids: Ids,
    channels: HashMap<Vec<u8>, Log>,
    /// Sends answered, for `bench/run` to compare with what it counted itself.
    sends: u64,
    subscribers: Vec<u8>,
    page: Vec<u8>,
    batch: Vec<u8>,
}

/// Serves until killed.
pub fn run(v3: bool, address: &str, visible_after: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let uids: Vec<String> = (0..USERS).map(|n| format!(r#""u{n:03}""#)).collect();
    let mut server = Server {
        v3,
        visible_after,
        ids: Ids::new(),
        channels: HashMap::new(),
        sends: 0,
        subscribers: format!("[{}]", uids.join(",")).into_bytes(),
        page: Vec::new(),
        batch: Vec::new(),
    };
    server.page = server.history(b"history", 2).page(0, 0, CANNED, false);
    let sent: Vec<String> = (0..CANNED).map(|_| server.sent(b"", 1)).collect();
    server.batch = format!("[{}]", sent.join(",")).into_bytes();
    let server = Rc::new(RefCell::new(server));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let server = server.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = serve(&server, stream).await {
                    eprintln!("fake upstream: {error}");
                }
            });
        }
    })
}

async fn serve(server: &RefCell<Server>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::with_capacity(16 * 1024), Vec::with_capacity(16 * 1024));
    loop {
        match stream.read_buf(&mut input).await {
            Ok(0) => return Ok(()),
            // Whoever is told to end drops its connections.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut done = 0;
        while let Some(request) = http::parse(&input[done..])? {
            server
                .borrow_mut()
                .answer(&input[done..], &request, &mut output);
            done += request.body.end;
        }
        input.drain(..done);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
}

impl Server {
    fn answer(&mut self, bytes: &[u8], request: &Request, out: &mut Vec<u8>) {
        let target = &bytes[request.target.clone()];
        let body = &bytes[request.body.clone()];
        let path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
        let post = &bytes[request.method.clone()] == b"POST";
        let made = match (post, path) {
            (true, b"/message/send") => self.send(body),
            (true, b"/channel/messagesync") => self.sync(body),
            (false, b"/health") if !self.v3 => Some(br#"{"status":"ok"}"#.to_vec()),
            (false, b"/healthz") if self.v3 => Some(br#"{"status":"ok"}"#.to_vec()),
            (false, b"/readyz") if self.v3 => Some(br#"{"ready":true}"#.to_vec()),
            (false, b"/bench/sends") => Some(self.sends.to_string().into_bytes()),
            (true, b"/api/v1/im/message/send") => {
                Some(self.sent(b"an-answer-in-the-place", 1).into())
            }
            (true, b"/api/v1/im/message/sendbatch") => Some(self.batch.clone()),
            (false, b"/api/v1/im/message/sync") => Some(self.page.clone()),
            (false, b"/api/v1/im/health") => Some(br#"{"status":"ok"}"#.to_vec()),
            (false, b"/api/v1/im/config") => Some(
                br#"{"tcp_addr":"127.0.0.1:5100","ws_addr":"ws://127.0.0.1:5200","wss_addr":""}"#
                    .to_vec(),
            ),
            (false, path) if !self.v3 => self.lists(target, path),
            _ => None,
        };
        match made {
            Some(made) => answer(out, "200 OK", &made),
            None => answer(out, "404 Not Found", b"{}"),
        }
    }

    /// v2's answer has no seq, v3's no number.
    fn sent(&mut self, number: &[u8], seq: u64) -> String {
        let id = self.ids.next();
        if self.v3 {
            return format!(r#"{{"message_id":{id},"message_seq":{seq},"reason":1}}"#);
        }
        let number = String::from_utf8_lossy(number);
        format!(r#"{{"data":{{"client_msg_no":"{number}","message_id":{id}}},"status":200}}"#)
    }

    fn send(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let message = Message {
            from: text_after(body, br#""from_uid":""#)?,
            channel_id: text_after(body, br#""channel_id":""#)?,
            channel_type: number_after(body, br#""channel_type":"#)?,
            number: text_after(body, br#""client_msg_no":""#)?,
            payload: text_after(body, br#""payload":""#)?,
        };
        self.sends += 1;
        if self.v3 {
            // Nothing asks v3 for a message afterwards.
            return Some(self.sent(message.number, self.sends).into());
        }
        let answer = self.sent(message.number, 0);
        let id = number_after(answer.as_bytes(), br#""message_id":"#)?;
        let key = key(message.from, message.channel_id, message.channel_type);
        let visible_after = self.visible_after;
        self.channels
            .entry(key)
            .or_default()
            .store(id, &message, visible_after);
        Some(answer.into())
    }

    fn sync(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let reader = text_after(body, br#""login_uid":""#)?;
        let channel_id = text_after(body, br#""channel_id":""#)?;
        let channel_type = number_after(body, br#""channel_type":"#)?;
        let start = number_after(body, br#""start_message_seq":"#)?;
        let end = number_after(body, br#""end_message_seq":"#)?;
        let limit = usize::try_from(number_after(body, br#""limit":"#)?).ok()?;
        let upwards = number_after(body, br#""pull_mode":"#)? == 1;
        let log = if channel_id.starts_with(b"history") {
            self.history(channel_id, channel_type)
        } else {
            self.channels
                .entry(key(reader, channel_id, channel_type))
                .or_default()
        };
        Some(log.page(start, end, limit, upwards))
    }

    /// A channel with messages in it, made when first asked for.
    fn history(&mut self, channel_id: &[u8], channel_type: u64) -> &Log {
        let ids = &mut self.ids;
        let log = self.channels.entry(channel_id.to_vec()).or_default();
        if log.page(0, 0, 1, false).ends_with(b"[]}") {
            for n in 0..HISTORY {
                let (from, number) = (format!("u{:03}", n % USERS), format!("history-{n:06}"));
                let message = Message {
                    from: from.as_bytes(),
                    channel_id,
                    channel_type,
                    number: number.as_bytes(),
                    payload: PAYLOAD,
                };
                log.store(ids.next(), &message, Duration::ZERO);
            }
        }
        log
    }

    /// Who is in a group, and whether it or a user is banned. Groups have all users; nobody is banned or blocked.
    fn lists(&self, target: &[u8], path: &[u8]) -> Option<Vec<u8>> {
        let rest = path.strip_prefix(b"/cluster/channels")?;
        if rest.is_empty() {
            let id = target.split(|byte| *byte == b'=').nth(1)?;
            let id = id.split(|byte| *byte == b'&').next()?;
            let mut row = Vec::new();
            let _ = write!(
                row,
                r#"{{"total":1,"data":[{{"channel_id":"{}","ban":0,"disband":0}}]}}"#,
                String::from_utf8_lossy(id)
            );
            return Some(row);
        }
        if rest.ends_with(b"/subscribers") {
            return Some(self.subscribers.clone());
        }
        (rest.ends_with(b"/denylist") || rest.ends_with(b"/allowlist")).then(|| b"[]".to_vec())
    }
}

/// The key of a channel: a group's id, or a pair in a fixed order.
fn key(one: &[u8], channel_id: &[u8], channel_type: u64) -> Vec<u8> {
    if channel_type != 1 {
        return channel_id.to_vec();
    }
    let (low, high) = if one < channel_id {
        (one, channel_id)
    } else {
        (channel_id, one)
    };
    [low, b"@", high].concat()
}
