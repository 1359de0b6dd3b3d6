//! The messages of one channel: what is stored, what is on its way, and which seq each gets.
//!
//! v2 stores asynchronously, so a message waits in `pending` and gets its seq when it becomes visible.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

/// One stored message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Snowflake id.
    pub message_id: i64,
    /// Place in its channel, from 1 on.
    pub message_seq: u64,
    /// As the sender gave it; made up by v2, empty on v3, when he gave none.
    pub client_msg_no: Arc<str>,
    /// The sender.
    pub from_uid: Arc<str>,
    /// The stored channel id: `a@b` for persons.
    pub channel_id: Arc<str>,
    /// 1 person, 2 group.
    pub channel_type: u8,
    /// Whether the sender asked for a red dot.
    pub red_dot: bool,
    /// Whether the message is a command, shown once.
    pub sync_once: bool,
    /// Seconds after which clients drop it, 0 = never.
    pub expire: u32,
    /// Unix seconds; 0 on v3.
    pub timestamp: i32,
    /// The payload in base64, as it came.
    pub payload: Arc<str>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// `<id>-<type>` of the channel that touched it first. On v2 another channel with an equal hash reads this log, but what
    /// it writes does not appear.
    owner: Option<Box<str>>,
    messages: VecDeque<Arc<Message>>,
    last_seq: u64,
    pending: VecDeque<(Instant, Message)>,
    /// v3's idempotency: (from_uid, client_msg_no) → seq.
    by_number: HashMap<(Arc<str>, Arc<str>), u64>,
    /// When the first message was stored: v3 knows the members of a pair a moment after it.
    first_at: Option<Instant>,
}

impl Log {
    /// Whether the channel called `text` may write here; the first to ask owns the log.
    pub(super) fn admit(&mut self, text: &str) -> bool {
        let owner = self.owner.get_or_insert_with(|| Box::from(text));
        **owner == *text
    }

    /// `<id>-<type>` of the channel that owns it.
    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Queues a message that becomes visible at `visible_at`; equal times keep their order.
    pub(super) fn queue(&mut self, visible_at: Instant, message: Message) {
        let at = self
            .pending
            .partition_point(|(other, _)| *other <= visible_at);
        self.pending.insert(at, (visible_at, message));
    }

    /// Stores every queued message whose time has come.
    pub(super) fn settle(&mut self, now: Instant, keep: Option<usize>) {
        while self.pending.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((at, message)) = self.pending.pop_front() {
                self.store(at, message, keep);
            }
        }
    }

    /// Stores a message at once and gives its seq.
    pub(super) fn store(&mut self, now: Instant, mut message: Message, keep: Option<usize>) -> u64 {
        self.last_seq += 1;
        message.message_seq = self.last_seq;
        self.first_at.get_or_insert(now);
        self.messages.push_back(Arc::new(message));
        while keep.is_some_and(|keep| self.messages.len() > keep) {
            self.forget_oldest();
        }
        self.last_seq
    }

    /// Makes the newest message the answer to its number, unless an earlier one is: v3 only.
    pub(super) fn remember_number(&mut self) {
        if let Some(newest) = self.messages.back().filter(|m| !m.client_msg_no.is_empty()) {
            let number = (newest.from_uid.clone(), newest.client_msg_no.clone());
            self.by_number.entry(number).or_insert(newest.message_seq);
        }
    }

    /// Loses the messages with greater ids than this.
    pub(super) fn cut_above(&mut self, message_id: i64) {
        while self
            .messages
            .back()
            .is_some_and(|newest| newest.message_id > message_id)
        {
            self.messages.pop_back();
            self.last_seq -= 1;
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            let number = (oldest.from_uid.clone(), oldest.client_msg_no.clone());
            if self.by_number.get(&number) == Some(&oldest.message_seq) {
                self.by_number.remove(&number);
            }
        }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn first_at(&self) -> Option<Instant> {
        self.first_at
    }

    pub(super) fn numbered(&self, from_uid: &Arc<str>, number: &Arc<str>) -> Option<Arc<Message>> {
        let seq = self.by_number.get(&(from_uid.clone(), number.clone()))?;
        self.get(*seq)
    }

    pub(super) fn get(&self, seq: u64) -> Option<Arc<Message>> {
        let first = self.messages.front()?.message_seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.messages.get(at).cloned()
    }

    /// Messages with `min <= seq < max`, oldest first.
    pub(super) fn range(
        &self,
        min: u64,
        max: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let first = self.messages.front().map_or(1, |m| m.message_seq);
        let place = |seq: u64| {
            usize::try_from(seq.saturating_sub(first))
                .unwrap_or(usize::MAX)
                .min(self.messages.len())
        };
        let (from, to) = (place(min), place(max));
        self.messages.range(from.min(to)..to)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.iter()
    }
}
