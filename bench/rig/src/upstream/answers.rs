//! What the fake WuKongIM answers to what the benchmarks' scenarios make the gateway ask; it ends up wrong loudly (404, a closed
//! connection) where asked for anything else. Nothing is checked, and the number of messages held is bounded.
//!
//! Below `/api/v1/im` it answers what nginx passes on in the gateway's place: the answers WuKongIM would give, ready made.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use crate::http::{Request, answer, number_after, text_after};
use crate::log::{Ids, Log, Message};

/// Users that are members of every group: `u000`, `u001`, …
const USERS: usize = 64;
/// Channels at the most, each with as many messages as its log keeps.
const CHANNELS: usize = 500;
/// Messages that are in each history from the beginning.
const HISTORY: usize = 200;
/// The page and the batch that nginx passes on.
const CANNED: usize = 50;
/// `{"type":1,"content":"a message of the benchmark, as long as people write them"}`
const PAYLOAD: &[u8] = b"eyJ0eXBlIjoxLCJjb250ZW50IjoiYSBtZXNzYWdlIG9mIHRoZSBiZW5jaG1hcmssIGFzIGxvbmcgYXMgcGVvcGxlIHdyaXRlIHRoZW0ifQ==";

/// Where clients connect.
const ROUTE: &[u8] =
    br#"{"tcp_addr":"127.0.0.1:5100","ws_addr":"ws://127.0.0.1:5200","wss_addr":""}"#;

/// It is a cluster of one: nothing is to be copied anywhere before it counts.
const ALONE: &[u8] = br#"{"channelReplicaCount":1,"nodes":[{"id":1,"allowVote":true}]}"#;

pub struct Server {
    v3: bool,
    visible_after: Duration,
    /// By how much messages take longer to appear at present.
    pub slower: u32,
    ids: Ids,
    channels: HashMap<Vec<u8>, Log>,
    /// Sends answered, for `bench/run` to compare with what it counted itself.
    pub sends: u64,
    subscribers: Vec<u8>,
    page: Vec<u8>,
    batch: Vec<u8>,
}

impl Server {
    pub fn new(v3: bool, visible_after: Duration) -> Self {
        let uids: Vec<String> = (0..USERS).map(|n| format!(r#""u{n:03}""#)).collect();
        let mut server = Self {
            v3,
            visible_after,
            slower: 1,
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
        server
    }

    pub fn answer(&mut self, bytes: &[u8], request: &Request, out: &mut Vec<u8>) {
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
            (false, b"/route" | b"/api/v1/im/config") => Some(ROUTE.to_vec()),
            // Every channel has its own log, and something in it.
            (false, b"/channel/max_message_seq") if !self.v3 => {
                Some(br#"{"message_seq":1}"#.to_vec())
            }
            (false, path) if !self.v3 && path.ends_with(b"/config") => own_log(path),
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
        let visible_after = self.visible_after * self.slower;
        if self.channels.len() >= CHANNELS && !self.channels.contains_key(&key) {
            return None;
        }
        let log = self.channels.entry(key).or_default();
        log.store(id, &message, visible_after);
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
        if channel_id.starts_with(b"history") {
            let log = self.history(channel_id, channel_type);
            return Some(log.page(start, end, limit, upwards));
        }
        let log = self.channels.get(&key(reader, channel_id, channel_type));
        Some(log.map_or_else(
            || Log::default().page(start, end, limit, upwards),
            |log| log.page(start, end, limit, upwards),
        ))
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
        if path == b"/cluster/info" {
            return Some(ALONE.to_vec());
        }
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

/// Whose log a channel has: its own, whose id stands in the path before its type.
fn own_log(path: &[u8]) -> Option<Vec<u8>> {
    let path = std::str::from_utf8(path).ok()?;
    let id = path.strip_prefix("/cluster/channels/")?.split('/').next()?;
    let id = id.replace("%40", "@");
    Some(format!(r#"{{"channel_id":"{id}","channel_type":1}}"#).into_bytes())
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
