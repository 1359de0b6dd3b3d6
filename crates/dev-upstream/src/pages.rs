//! Which messages `/channel/messagesync` gives: the pull modes of the two generations, which differ in many corners.

use std::sync::Arc;

use super::log::{Log, Message};

/// Both generations answer at most this many.
const MAX_LIMIT: i64 = 10_000;
/// What v3 takes a limit of 0 for.
const V3_DEFAULT_LIMIT: i64 = 100;

/// The bounds a reader asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) limit: i64,
    /// `pull_mode` 1.
    pub(super) up: bool,
}

/// A page, oldest first, and whether it claims that there is more.
pub(super) struct Page {
    pub(super) messages: Vec<Arc<Message>>,
    pub(super) more: bool,
}

/// v2: both seqs 0 is the newest page in either mode; a start past the end downwards finds nothing, because the lower
/// bound is counted from the start and not from the last seq; limit 0 gives nothing downwards and claims more.
pub(super) fn v2(log: &Log, bounds: Bounds) -> Page {
    let limit = bounds.limit.min(MAX_LIMIT);
    let width = u64::try_from(limit).unwrap_or(u64::MAX);
    let newest = bounds.start == 0 && bounds.end == 0;
    let down = |start: u64, end: u64| {
        let lowest = end.saturating_add(1);
        let min = start.saturating_add(1).saturating_sub(width).max(lowest);
        (min, start.saturating_add(1))
    };
    let (min, max) = if newest {
        down(log.last_seq(), 0)
    } else if bounds.up {
        (
            bounds.start,
            if bounds.end == 0 {
                u64::MAX
            } else {
                bounds.end
            },
        )
    } else if bounds.end <= bounds.start {
        down(bounds.start, bounds.end)
    } else {
        (0, 0)
    };
    // The iterator stops after `limit` messages, but takes 0 for "no limit" and a negative one for 1.
    let most = match limit {
        0 => usize::MAX,
        1.. => usize::try_from(limit).unwrap_or(usize::MAX),
        _ => 1,
    };
    let messages: Vec<_> = log.range(min, max).take(most).cloned().collect();
    let more = i64::try_from(messages.len()).unwrap_or(i64::MAX) >= limit;
    Page { messages, more }
}

/// v3: both seqs 0 is the newest page downwards and the oldest page upwards; limit 0 is 100; nothing below
/// `min_visible`, the first seq after the reader joined.
pub(super) fn v3(log: &Log, bounds: Bounds, min_visible: u64) -> Page {
    let limit = if bounds.limit <= 0 {
        V3_DEFAULT_LIMIT
    } else {
        bounds.limit.min(MAX_LIMIT)
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut messages: Vec<_> = if bounds.up {
        let max = if bounds.end == 0 {
            u64::MAX
        } else {
            bounds.end
        };
        log.range(bounds.start.max(min_visible), max)
            .take(limit + 1)
            .cloned()
            .collect()
    } else {
        let max = if bounds.start == 0 {
            u64::MAX
        } else {
            bounds.start.saturating_add(1)
        };
        log.range(min_visible.max(bounds.end.saturating_add(1)), max)
            .rev()
            .take(limit + 1)
            .cloned()
            .collect()
    };
    let more = messages.len() > limit;
    messages.truncate(limit);
    if !bounds.up {
        messages.reverse();
    }
    Page { messages, more }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ten_messages() -> Log {
        let mut log = Log::default();
        for id in 1..=10 {
            let message = Message {
                message_id: id,
                message_seq: 0,
                client_msg_no: "".into(),
                from_uid: "a".into(),
                channel_id: "g".into(),
                channel_type: 2,
                red_dot: false,
                sync_once: false,
                expire: 0,
                timestamp: 0,
                payload: "".into(),
                json: std::sync::OnceLock::new(),
            };
            log.store(Instant::now(), message, None);
        }
        log
    }

    fn seqs(page: &Page) -> (Vec<u64>, bool) {
        (
            page.messages.iter().map(|m| m.message_seq).collect(),
            page.more,
        )
    }

    fn bounds(start: u64, end: u64, limit: i64, pull_mode: u8) -> Bounds {
        Bounds {
            start,
            end,
            limit,
            up: pull_mode == 1,
        }
    }

    type Row = ((u64, u64, i64, u8), (&'static [u64], bool));

    #[test]
    fn v2_pages_are_those_of_the_table() {
        let log = ten_messages();
        let table: &[Row] = &[
            ((0, 0, 3, 1), (&[8, 9, 10], true)),
            ((0, 0, 3, 0), (&[8, 9, 10], true)),
            ((5, 0, 3, 1), (&[5, 6, 7], true)),
            ((100, 0, 3, 0), (&[], false)),
            ((0, 0, 0, 1), (&[], true)),
            ((4, 0, 2, 0), (&[3, 4], true)),
            ((4, 2, 9, 0), (&[3, 4], false)),
            ((9, 2, 3, 0), (&[7, 8, 9], true)),
            ((3, 6, 9, 1), (&[3, 4, 5], false)),
            ((0, 4, 9, 1), (&[1, 2, 3], false)),
            ((2, 9, 9, 0), (&[], false)),
            ((8, 0, 9, 1), (&[8, 9, 10], false)),
        ];
        for ((start, end, limit, mode), (expected, more)) in table {
            let page = v2(&log, bounds(*start, *end, *limit, *mode));
            assert_eq!(
                seqs(&page),
                (expected.to_vec(), *more),
                "{start} {end} {limit} {mode}"
            );
        }
    }

    #[test]
    fn v3_pages_are_those_of_the_table() {
        let log = ten_messages();
        let table: &[Row] = &[
            ((0, 0, 3, 1), (&[1, 2, 3], true)),
            ((0, 0, 3, 0), (&[8, 9, 10], true)),
            ((5, 0, 3, 1), (&[5, 6, 7], true)),
            ((100, 0, 3, 0), (&[8, 9, 10], true)),
            ((0, 0, 0, 1), (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], false)),
            ((4, 0, 2, 0), (&[3, 4], true)),
            ((3, 6, 9, 1), (&[3, 4, 5], false)),
            ((8, 5, 9, 0), (&[6, 7, 8], false)),
            ((2, 9, 9, 0), (&[], false)),
        ];
        for ((start, end, limit, mode), (expected, more)) in table {
            let page = v3(&log, bounds(*start, *end, *limit, *mode), 1);
            assert_eq!(
                seqs(&page),
                (expected.to_vec(), *more),
                "{start} {end} {limit} {mode}"
            );
        }
        assert_eq!(
            seqs(&v3(&log, bounds(0, 0, 5, 0), 8)),
            (vec![8, 9, 10], false),
            "nothing older than the reader's joining"
        );
        assert_eq!(seqs(&v3(&log, bounds(2, 0, 2, 1), 8)), (vec![8, 9], true));
    }

    #[test]
    fn a_bounded_log_forgets_the_oldest_and_keeps_the_seqs() {
        let mut log = ten_messages();
        log.store(
            Instant::now(),
            Message::clone(&log.get(1).expect("seq 1")),
            Some(3),
        );
        assert_eq!(
            seqs(&v2(&log, bounds(1, 0, 100, 1))).0,
            vec![9, 10, 11],
            "three are kept"
        );
        assert!(log.get(8).is_none());
        assert_eq!(log.get(11).map(|m| m.message_seq), Some(11));
    }
}
