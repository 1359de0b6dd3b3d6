//! What is known of one channel while somebody waits for a message in it (v2): its highest seq, who waits for what, and what looks
//! have passed by. Calls nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Job, Stored, unix_ms};
use crate::domain::{Channel, ClientMsgNo, MessageId, Uid};
use crate::wukongim::Page;

/// How far two nodes' clocks may differ when a message's age is judged by its id.
pub(super) const CLOCK_SKEW_MS: u64 = 2000;
/// Messages kept of one channel for sends that do not wait for theirs yet; some 200 bytes each, and rarely more than a few.
const SEEN_MAX: usize = 1024;

/// What a waiter knows of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    /// WuKongIM's answer came: its id.
    Id(MessageId),
    /// The answer was lost: by sender and number, sent at this time (Unix milliseconds).
    Number {
        /// When it was sent.
        sent_ms: u64,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Watch(Mutex<State>);

#[derive(Default)]
struct State {
    /// The highest seq seen, whatever it was.
    top: Option<u64>,
    /// How often WuKongIM was found to have lost the channel: what was known of its seqs before means nothing.
    epoch: u64,
    /// How many sends are under way by their floor (0 for none): what looks pass over above the lowest is kept in `seen`.
    pending: BTreeMap<u64, usize>,
    seen: VecDeque<Seen>,
    /// The highest seq that was dropped from `seen` for want of room: who sent from below it looks for his message anew.
    dropped: u64,
    /// The next look begins with the newest page.
    looks_back: bool,
    waiters: Vec<Waiter>,
    looking: bool,
}

struct Seen {
    stored: Stored,
    from: Box<[u8]>,
    number: Box<[u8]>,
}

/// Somebody who waits for a message.
pub(super) struct Waiter {
    sought: Sought,
    sender: Uid,
    number: ClientMsgNo,
    channel: Channel,
    since: Instant,
    found: oneshot::Sender<Stored>,
}

impl Waiter {
    /// A waiter since now, and where it is told.
    pub(super) fn new(sought: Sought, job: &Job) -> (Self, oneshot::Receiver<Stored>) {
        let (found, receiver) = oneshot::channel();
        let waiter = Self {
            sought,
            sender: job.sender.clone(),
            number: job.number.clone(),
            channel: job.channel.clone(),
            since: Instant::now(),
            found,
        };
        (waiter, receiver)
    }

    /// The page has checked the channel. By id the number does not matter: v2 puts one of its own in the place of a blank one (read in
    /// its source). By number it must be the very one, byte for byte, and only what is as new as the send counts: a number may come
    /// back when its window has passed.
    fn is(&self, id: MessageId, from: &[u8], number: &[u8]) -> bool {
        from == self.sender.as_str().as_bytes()
            && match self.sought {
                Sought::Id(sought) => id == sought,
                Sought::Number { .. } => {
                    number == self.number.as_str().as_bytes() && id.unix_ms() >= self.sent_ms()
                }
            }
    }

    /// The earliest time the message's id can have, in Unix milliseconds.
    fn sent_ms(&self) -> u64 {
        let ms = match self.sought {
            Sought::Id(id) => id.unix_ms(),
            Sought::Number { sent_ms } => sent_ms,
        };
        ms.saturating_sub(CLOCK_SKEW_MS)
    }
}

/// What was known when a send was registered.
#[derive(Clone, Copy)]
pub(super) struct Floor {
    /// The highest seq known.
    pub(super) seq: Option<u64>,
    epoch: u64,
}

/// What became of a waiter.
pub(super) enum Enlisted {
    /// Somebody else's look came by already.
    Found(Stored),
    /// A look is under way that will serve it.
    Served,
    /// It is the first one: a look must be started.
    First,
}

impl Watch {
    /// Registers a send that is about to leave.
    pub(super) fn expect(&self) -> Floor {
        let mut state = self.0.lock();
        let (seq, epoch) = (state.top, state.epoch);
        *state.pending.entry(seq.unwrap_or(0)).or_default() += 1;
        Floor { seq, epoch }
    }

    /// A registered send is over.
    pub(super) fn release(&self, floor: Floor) {
        let mut state = self.0.lock();
        let seq = match floor.seq {
            Some(seq) if floor.epoch == state.epoch => seq,
            _ => 0,
        };
        if let Some(count) = state.pending.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                state.pending.remove(&seq);
            }
        }
        match state.pending.first_key_value().map(|(lowest, _)| *lowest) {
            None => {
                state.seen = VecDeque::new();
                state.dropped = 0;
            }
            Some(lowest) => {
                while state
                    .seen
                    .front()
                    .is_some_and(|seen| seen.stored.seq <= lowest)
                {
                    state.seen.pop_front();
                }
            }
        }
    }

    /// Takes a waiter in, whose send was registered with this floor.
    pub(super) fn enlist(&self, waiter: Waiter, floor: Floor) -> Enlisted {
        let mut state = self.0.lock();
        let mut seen = state.seen.iter();
        if let Some(seen) = seen.find(|seen| waiter.is(seen.stored.id, &seen.from, &seen.number)) {
            return Enlisted::Found(seen.stored);
        }
        state.looks_back |= state.dropped > floor.seq.unwrap_or(0);
        state.waiters.push(waiter);
        if std::mem::replace(&mut state.looking, true) {
            Enlisted::Served
        } else {
            Enlisted::First
        }
    }

    /// The next look must begin with the newest page.
    pub(super) fn begin_anew(&self) {
        self.0.lock().top = None;
    }

    /// WuKongIM has lost the channel and counts from 1 again.
    pub(super) fn begin_from_nothing(&self) {
        let mut state = self.0.lock();
        state.top = None;
        state.dropped = 0;
        state.epoch += 1;
        let all = state.pending.values().sum();
        state.pending.clear();
        if all > 0 {
            state.pending.insert(0, all);
        }
    }

    /// Tells the waiters whose messages are in the page, since when each of them has waited, and remembers what may be somebody's who
    /// does not wait yet.
    pub(super) fn note(&self, page: &Page) -> Vec<Instant> {
        let mut state = self.0.lock();
        let mut told = Vec::new();
        for message in &page.messages {
            let (id, seq) = (message.id, message.seq);
            let (from, number) = (message.from_uid(), message.client_msg_no());
            let stored = Stored { id, seq };
            let mut taken = false;
            // A waiter who has given up may stand before the one who sent the same number again.
            while !taken
                && let Some(place) = state
                    .waiters
                    .iter()
                    .position(|waiter| waiter.is(id, from, number))
            {
                let waiter = state.waiters.swap_remove(place);
                taken = waiter.found.send(stored).is_ok();
                if taken {
                    told.push(waiter.since);
                }
            }
            if !taken && !state.pending.is_empty() {
                if state.seen.len() >= SEEN_MAX {
                    let oldest = state.seen.pop_front();
                    let seq = oldest.map_or(0, |seen| seen.stored.seq);
                    state.dropped = state.dropped.max(seq);
                }
                state.seen.push_back(Seen {
                    stored,
                    from: from.into(),
                    number: number.into(),
                });
            }
        }
        if let Some((_, high)) = page.span {
            state.top = Some(state.top.map_or(high, |top| top.max(high)));
        }
        told
    }

    /// What the next look is for; `None` where nobody waits: the look ends, and the next waiter starts another.
    pub(super) fn next(&self) -> Option<Next> {
        let mut state = self.0.lock();
        state.waiters.retain(|waiter| !waiter.found.is_closed());
        let Some(first) = state.waiters.first() else {
            state.looking = false;
            return None;
        };
        let mut next = Next {
            reader: first.sender.clone(),
            channel: first.channel.clone(),
            top: state.top.filter(|_| !state.looks_back),
            newest: first.since,
            oldest: first.since,
            earliest_ms: unix_ms(),
        };
        state.looks_back = false;
        for waiter in &state.waiters {
            next.newest = next.newest.max(waiter.since);
            next.oldest = next.oldest.min(waiter.since);
            next.earliest_ms = next.earliest_ms.min(waiter.sent_ms());
        }
        Some(next)
    }

    /// The look broke off: whoever waited is told nothing more, and the next waiter starts another.
    pub(super) fn break_off(&self) {
        let mut state = self.0.lock();
        state.looking = false;
        state.waiters.clear();
    }
}

/// What the next look is for.
pub(super) struct Next {
    pub(super) reader: Uid,
    pub(super) channel: Channel,
    pub(super) top: Option<u64>,
    /// Since when the newest waiter has waited.
    pub(super) newest: Instant,
    /// Since when the oldest one has.
    pub(super) oldest: Instant,
    /// The earliest time any sought message can have been given its id.
    pub(super) earliest_ms: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{ChannelId, Message, Payload, Texts};
    use crate::messages::Draft;

    fn job(number: &str) -> Job {
        let draft = Draft {
            actor: None,
            channel: Channel::Group(ChannelId::parse("g", 9).unwrap()),
            payload: Payload::parse("YQ==", 9).unwrap(),
            client_msg_no: Some(ClientMsgNo::parse(number, 9).unwrap()),
        };
        Job::new(Uid::parse("a", 9).unwrap(), draft, Arc::default())
    }

    fn page(seq: u64, number: &str) -> Page {
        let texts = Texts {
            from_uid: "a",
            client_msg_no: number,
            payload: "",
        };
        Page {
            messages: vec![Message::new(MessageId(seq), seq, 0, texts)],
            received: 1,
            span: Some((seq, seq)),
        }
    }

    #[test]
    fn what_a_look_passed_by_after_a_loss_is_not_dropped_with_another_send() {
        let watch = Watch::default();
        watch.note(&page(100, "before"));
        let (one, other) = (watch.expect(), watch.expect());
        watch.begin_from_nothing();
        watch.note(&page(5, "n"));
        watch.release(one);
        let (waiter, _receiver) = Waiter::new(Sought::Id(MessageId(5)), &job("n"));
        let found = watch.enlist(waiter, other);
        assert!(matches!(found, Enlisted::Found(stored) if stored.seq == 5));
        watch.release(other);
        assert!(watch.0.lock().seen.is_empty());
        assert!(watch.0.lock().pending.is_empty());
    }

    #[test]
    fn what_is_kept_for_a_send_that_waits_in_a_busy_channel_is_bounded_and_found_by_looking_again()
    {
        let watch = Watch::default();
        watch.note(&page(1, "before"));
        let floor = watch.expect();
        let last = 1 + 3 * SEEN_MAX as u64;
        for seq in 2..=last {
            watch.note(&page(seq, &seq.to_string()));
        }
        assert_eq!(watch.0.lock().seen.len(), SEEN_MAX);
        let (late, _receiver) = Waiter::new(Sought::Id(MessageId(last)), &job("n"));
        let found = watch.enlist(late, floor);
        assert!(matches!(found, Enlisted::Found(stored) if stored.seq == last));
        // This one was dropped: the look begins with the newest page and works back to it.
        let (waiter, _receiver) = Waiter::new(Sought::Id(MessageId(2)), &job("n"));
        assert!(matches!(watch.enlist(waiter, floor), Enlisted::First));
        assert_eq!(watch.next().unwrap().top, None);
        watch.release(floor);
        assert!(watch.0.lock().seen.is_empty());
        assert_eq!(watch.0.lock().dropped, 0);
    }

    #[test]
    fn an_id_is_enough_where_the_number_was_replaced_and_a_number_is_not() {
        let (by_id, _receiver) = Waiter::new(Sought::Id(MessageId(5)), &job(" "));
        assert!(by_id.is(MessageId(5), b"a", b"made by v2"));
        assert!(!by_id.is(MessageId(5), b"b", b" "), "somebody else's");
        let sought = Sought::Number { sent_ms: 0 };
        let (by_number, _receiver) = Waiter::new(sought, &job(" n"));
        assert!(by_number.is(MessageId(5), b"a", b" n"));
        assert!(!by_number.is(MessageId(5), b"a", b"n"));
    }

    #[test]
    fn a_look_that_broke_off_leaves_nobody_waiting() {
        let watch = Watch::default();
        let sought = Sought::Id(MessageId(5));
        let (waiter, mut receiver) = Waiter::new(sought, &job("n"));
        assert!(matches!(
            watch.enlist(waiter, watch.expect()),
            Enlisted::First
        ));
        watch.break_off();
        assert_eq!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        let (waiter, _receiver) = Waiter::new(sought, &job("n"));
        assert!(matches!(
            watch.enlist(waiter, watch.expect()),
            Enlisted::First
        ));
    }
}
