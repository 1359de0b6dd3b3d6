//! The state of one channel while sends to it are in progress (v2): the highest seq seen, the waiters, and the messages that polls have
//! seen and that match no waiter. Makes no calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::domain::MessageId;
use crate::messages::{SendTask, Stored, unix_ms};
use crate::wukongim::Page;

/// How far the clocks of two nodes may differ when a message's age is derived from its id.
pub(in crate::messages) const MAX_CLOCK_SKEW_MS: u64 = 2000;
/// Maximum messages kept per channel for sends that are not waiting yet; about 200 bytes each, and rarely more than a few.
const MAX_UNMATCHED: usize = 256;

/// How a waiter recognises its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::messages) enum MessageMatch {
    /// By the id from WuKongIM's answer.
    Id(MessageId),
    /// The answer was lost: by sender and client_msg_no.
    ClientMsgNo {
        /// When it was sent, in Unix milliseconds.
        sent_ms: u64,
    },
}

/// The waiters of one channel.
#[derive(Default)]
pub(super) struct ChannelWaiters(Mutex<State>);

#[derive(Default)]
struct State {
    /// The highest seq seen in the channel.
    highest_seq: Option<u64>,
    /// The number of sends in progress. While there are any, messages that match no waiter are kept in `unmatched`, oldest first.
    pending: usize,
    unmatched: VecDeque<UnmatchedMessage>,
    /// The highest seq that was dropped from the full `unmatched`; a send with a lower baseline polls again for its message.
    dropped_seq: u64,
    /// The next poll starts with the newest page.
    restart_from_newest: bool,
    waiters: Vec<Waiter>,
    is_polling: bool,
}

struct UnmatchedMessage {
    stored: Stored,
    from: Box<[u8]>,
    client_msg_no: Box<[u8]>,
}

/// A send that waits for its message.
pub(super) struct Waiter {
    target: MessageMatch,
    task: Arc<SendTask>,
    since: Instant,
    found: oneshot::Sender<Stored>,
}

impl Waiter {
    /// A waiter from now on, and the receiver of its result.
    pub(super) fn new(
        target: MessageMatch,
        task: Arc<SendTask>,
    ) -> (Self, oneshot::Receiver<Stored>) {
        let (found, receiver) = oneshot::channel();
        let since = Instant::now();
        let waiter = Self {
            target,
            task,
            since,
            found,
        };
        (waiter, receiver)
    }

    /// A page has only this channel's messages. By id the client_msg_no is ignored, since v2 replaces a blank one by its own (source). By
    /// client_msg_no it must match byte for byte, and the message must be as new as the send, since a client_msg_no may be reused after its
    /// window.
    fn matches(&self, id: MessageId, from: &[u8], client_msg_no: &[u8]) -> bool {
        let is_same = match self.target {
            MessageMatch::Id(target) => id == target,
            MessageMatch::ClientMsgNo { .. } => {
                client_msg_no == self.task.client_msg_no.as_str().as_bytes()
                    && id.unix_ms() >= self.earliest_id_ms()
            }
        };
        is_same && from == self.task.sender.as_str().as_bytes()
    }

    /// The earliest possible time of the message's id, in Unix milliseconds.
    fn earliest_id_ms(&self) -> u64 {
        let ms = match self.target {
            MessageMatch::Id(id) => id.unix_ms(),
            MessageMatch::ClientMsgNo { sent_ms } => sent_ms,
        };
        ms.saturating_sub(MAX_CLOCK_SKEW_MS)
    }
}

/// The result of subscribing.
pub(super) enum Subscription {
    /// A poll has seen the message already.
    Found(Stored),
    /// A running polling loop will serve the waiter.
    Joined,
    /// The first waiter: the caller must start polling.
    StartPolling,
}

impl ChannelWaiters {
    /// Registers a send that is about to start; returns the highest seq seen, its baseline.
    pub(super) fn register(&self) -> Option<u64> {
        let mut state = self.0.lock();
        state.pending += 1;
        state.highest_seq
    }

    /// Ends a registered send.
    pub(super) fn unregister(&self) {
        let mut state = self.0.lock();
        state.pending -= 1;
        if state.pending == 0 {
            state.unmatched = VecDeque::new();
            state.dropped_seq = 0;
        }
    }

    /// Adds a waiter whose send was registered with this baseline.
    pub(super) fn subscribe(&self, waiter: Waiter, baseline: Option<u64>) -> Subscription {
        let mut state = self.0.lock();
        let mut newest_first = state.unmatched.iter().rev();
        if let Some(message) = newest_first.find(|message| {
            waiter.matches(message.stored.id, &message.from, &message.client_msg_no)
        }) {
            return Subscription::Found(message.stored);
        }
        state.restart_from_newest |= state.dropped_seq > baseline.unwrap_or(0);
        state.waiters.push(waiter);
        if std::mem::replace(&mut state.is_polling, true) {
            Subscription::Joined
        } else {
            Subscription::StartPolling
        }
    }

    /// The next poll starts with the newest page.
    pub(super) fn restart_from_newest(&self) {
        self.0.lock().restart_from_newest = true;
    }

    /// WuKongIM has lost the channel and counts from 1 again.
    pub(super) fn reset(&self) {
        let mut state = self.0.lock();
        state.highest_seq = None;
        state.dropped_seq = 0;
    }

    /// Notifies the waiters whose messages are on the page, and returns since when each has waited. Keeps messages that may belong to sends
    /// which do not wait yet.
    pub(super) fn observe_page(&self, page: &Page) -> Vec<Instant> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let mut waiting_since = Vec::new();
        'messages: for message in &page.messages {
            let (id, seq) = (message.id, message.seq);
            let (from, client_msg_no) = (message.from_uid(), message.client_msg_no());
            let stored = Stored { id, seq };
            // An abandoned waiter may precede the one of a retry with the same client_msg_no.
            let matches = |waiter: &Waiter| waiter.matches(id, from, client_msg_no);
            while let Some(index) = state.waiters.iter().position(matches) {
                let waiter = state.waiters.swap_remove(index);
                if waiter.found.send(stored).is_ok() {
                    waiting_since.push(waiter.since);
                    continue 'messages;
                }
            }
            if state.pending == 0 {
                continue;
            }
            if state.unmatched.len() >= MAX_UNMATCHED
                && let Some(oldest) = state.unmatched.pop_front()
            {
                state.dropped_seq = state.dropped_seq.max(oldest.stored.seq);
            }
            state.unmatched.push_back(UnmatchedMessage {
                stored,
                from: from.into(),
                client_msg_no: client_msg_no.into(),
            });
        }
        // `None` is less than any seq.
        state.highest_seq = state.highest_seq.max(page.seq_range.map(|(_, high)| high));
        waiting_since
    }

    /// The next poll; `None` without waiters: polling ends, and the next waiter starts it again.
    pub(super) fn next_poll(&self) -> Option<PollRequest> {
        let mut state = self.0.lock();
        state.waiters.retain(|waiter| !waiter.found.is_closed());
        let Some(first) = state.waiters.first() else {
            state.is_polling = false;
            return None;
        };
        let mut next = PollRequest {
            task: first.task.clone(),
            highest_seq: state.highest_seq.filter(|_| !state.restart_from_newest),
            newest_since: first.since,
            oldest_since: first.since,
            earliest_ms: unix_ms(),
        };
        state.restart_from_newest = false;
        for waiter in &state.waiters {
            next.newest_since = next.newest_since.max(waiter.since);
            next.oldest_since = next.oldest_since.min(waiter.since);
            next.earliest_ms = next.earliest_ms.min(waiter.earliest_id_ms());
        }
        Some(next)
    }

    /// Polling was aborted: its waiters get no result, and the next waiter starts it again.
    pub(super) fn abort(&self) {
        let mut state = self.0.lock();
        state.is_polling = false;
        state.waiters.clear();
    }
}

/// The parameters of the next poll.
pub(super) struct PollRequest {
    /// One of the waiting sends, whose sender reads.
    pub(super) task: Arc<SendTask>,
    pub(super) highest_seq: Option<u64>,
    /// When the newest waiter began to wait.
    pub(super) newest_since: Instant,
    /// When the oldest one did.
    pub(super) oldest_since: Instant,
    /// The earliest possible time of any awaited message's id.
    pub(super) earliest_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ChannelId, ClientMsgNo, Message, MessageText, Payload, Uid};
    use crate::messages::Draft;

    fn task(client_msg_no: &str) -> Arc<SendTask> {
        let draft = Draft {
            actor: None,
            channel: Channel::Group(ChannelId::parse("g", 9).unwrap()),
            payload: Payload::parse("YQ==", 9).unwrap(),
            client_msg_no: Some(ClientMsgNo::parse(client_msg_no, 9).unwrap()),
        };
        SendTask::new(Uid::parse("a", 9).unwrap(), draft, Arc::default())
    }

    fn page(seq: u64, client_msg_no: &str) -> Page {
        let texts = MessageText {
            from_uid: &b"a"[..],
            client_msg_no: client_msg_no.as_bytes(),
            payload: b"",
        };
        Page {
            messages: vec![Message::new(MessageId(seq), seq, 0, texts)],
            received: 1,
            seq_range: Some((seq, seq)),
        }
    }

    #[test]
    fn a_message_seen_after_a_reset_survives_the_end_of_another_send() {
        let waiters = ChannelWaiters::default();
        waiters.observe_page(&page(100, "before"));
        let (_, other) = (waiters.register(), waiters.register());
        waiters.reset();
        waiters.observe_page(&page(5, "n"));
        waiters.unregister();
        let (waiter, _receiver) = Waiter::new(MessageMatch::Id(MessageId(5)), task("n"));
        let found = waiters.subscribe(waiter, other);
        assert!(matches!(found, Subscription::Found(stored) if stored.seq == 5));
        waiters.unregister();
        assert!(waiters.0.lock().unmatched.is_empty());
        assert_eq!(waiters.0.lock().pending, 0);
    }

    #[test]
    fn messages_kept_for_a_late_waiter_are_bounded_and_found_by_polling_again() {
        let waiters = ChannelWaiters::default();
        waiters.observe_page(&page(1, "before"));
        let baseline = waiters.register();
        let last = 1 + 3 * MAX_UNMATCHED as u64;
        for seq in 2..=last {
            waiters.observe_page(&page(seq, &seq.to_string()));
        }
        assert_eq!(waiters.0.lock().unmatched.len(), MAX_UNMATCHED);
        let (late, _receiver) = Waiter::new(MessageMatch::Id(MessageId(last)), task("n"));
        let found = waiters.subscribe(late, baseline);
        assert!(matches!(found, Subscription::Found(stored) if stored.seq == last));
        // This one was dropped: the poll starts with the newest page and continues back to it.
        let (waiter, _receiver) = Waiter::new(MessageMatch::Id(MessageId(2)), task("n"));
        assert!(matches!(
            waiters.subscribe(waiter, baseline),
            Subscription::StartPolling
        ));
        assert_eq!(waiters.next_poll().unwrap().highest_seq, None);
        waiters.unregister();
        assert!(waiters.0.lock().unmatched.is_empty());
        assert_eq!(waiters.0.lock().dropped_seq, 0);
    }

    #[test]
    fn a_message_is_matched_by_id_or_by_sender_and_exact_client_msg_no() {
        let (by_id, _receiver) = Waiter::new(MessageMatch::Id(MessageId(5)), task(" "));
        assert!(by_id.matches(MessageId(5), b"a", b"made by v2"));
        assert!(!by_id.matches(MessageId(5), b"b", b" "), "another sender's");
        let target = MessageMatch::ClientMsgNo { sent_ms: 0 };
        let (by_client_msg_no, _receiver) = Waiter::new(target, task(" n"));
        assert!(by_client_msg_no.matches(MessageId(5), b"a", b" n"));
        assert!(!by_client_msg_no.matches(MessageId(5), b"a", b"n"));
    }

    #[test]
    fn an_aborted_poll_leaves_no_waiter() {
        let waiters = ChannelWaiters::default();
        let target = MessageMatch::Id(MessageId(5));
        let (waiter, mut receiver) = Waiter::new(target, task("n"));
        assert!(matches!(
            waiters.subscribe(waiter, waiters.register()),
            Subscription::StartPolling
        ));
        waiters.abort();
        assert_eq!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        let (waiter, _receiver) = Waiter::new(target, task("n"));
        assert!(matches!(
            waiters.subscribe(waiter, waiters.register()),
            Subscription::StartPolling
        ));
    }
}
