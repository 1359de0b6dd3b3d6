//! The messages of one channel, as JSON made once when they are stored.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Messages kept of a channel: more than any look reaches back.
const KEPT: usize = 2000;

/// What a send says.
pub struct Message<'a> {
    pub from: &'a [u8],
    pub channel_id: &'a [u8],
    pub channel_type: u64,
    pub number: &'a [u8],
    pub payload: &'a [u8],
}

struct Stored {
    visible_at: Instant,
    json: Box<[u8]>,
}

/// Message ids as WuKongIM makes them: milliseconds since its epoch, then a counter.
pub struct Ids(u64);

impl Ids {
    pub fn new() -> Self {
        Self(0)
    }

    pub fn next(&mut self) -> u64 {
        self.0 += 1;
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_millis());
        let since = u64::try_from(now_ms)
            .unwrap_or(0)
            .saturating_sub(1_288_834_974_657);
        (since << 22) | (self.0 & 0x3f_ffff)
    }
}

/// One channel.
#[derive(Default)]
pub struct Log {
    messages: VecDeque<Stored>,
    /// The seq of the last message.
    last: u64,
}

impl Log {
    /// Stores a message, to be seen after `visible_after`; its seq.
    pub fn store(&mut self, id: u64, message: &Message<'_>, visible_after: Duration) -> u64 {
        self.last += 1;
        let mut json = Vec::with_capacity(400 + message.payload.len());
        let text = |bytes| String::from_utf8_lossy(bytes);
        // The fields and their order are those of a running server. Writing to memory cannot fail.
        let _ = write!(
            json,
            r#"{{"header":{{"no_persist":0,"red_dot":1,"sync_once":0}},"setting":0,"message_id":{id},"message_idstr":"{id}","client_msg_no":"{}","message_seq":{},"from_uid":"{}","channel_id":"{}","channel_type":{},"expire":0,"timestamp":{},"payload":"{}"}}"#,
            text(message.number),
            self.last,
            text(message.from),
            text(message.channel_id),
            message.channel_type,
            ((id >> 22) + 1_288_834_974_657) / 1000,
            text(message.payload),
        );
        self.messages.push_back(Stored {
            visible_at: Instant::now() + visible_after,
            json: json.into(),
        });
        if self.messages.len() > KEPT {
            self.messages.pop_front();
        }
        self.last
    }

    /// A page: the newest `limit`, or from `start` on upwards, up to `end` (excluded; 0 for open).
    pub fn page(&self, start: u64, end: u64, limit: usize, upwards: bool) -> Vec<u8> {
        let now = Instant::now();
        let first = self.last + 1 - self.messages.len() as u64;
        let late = self
            .messages
            .iter()
            .rev()
            .take_while(|stored| stored.visible_at > now);
        let beyond = self.last + 1 - late.count() as u64;
        let (from, until) = if upwards && start > 0 {
            let until = if end == 0 { beyond } else { end.min(beyond) };
            (start.max(first), until.min(start.max(first) + limit as u64))
        } else {
            (beyond.saturating_sub(limit as u64).max(first), beyond)
        };
        let count = usize::try_from(until.saturating_sub(from)).unwrap_or(0);
        let more = u8::from(count == limit);
        let mut page = Vec::with_capacity(96 + count * 400);
        let _ = write!(
            page,
            r#"{{"start_message_seq":{start},"end_message_seq":{end},"more":{more},"messages":["#
        );
        let skipped = usize::try_from(from - first).unwrap_or(0);
        for (index, stored) in self.messages.iter().skip(skipped).take(count).enumerate() {
            if index > 0 {
                page.push(b',');
            }
            page.extend_from_slice(&stored.json);
        }
        page.extend_from_slice(b"]}");
        page
    }
}
