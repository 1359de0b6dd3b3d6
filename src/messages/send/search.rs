//! Searches a channel's log for a message by its client_msg_no: one whose answer was lost, or (`duplicate_check = "upstream"`) one that
//! another replica or an earlier process sent.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;

use super::Messages;
use crate::domain::Message;
use crate::messages::confirm::{LogPager, MAX_CLOCK_SKEW_MS, MessageMatch, Pending, is_replicated};
use crate::messages::idempotency::{Attempt, Claim};
use crate::messages::{Cause, SendError, SendTask, Stored};
use crate::wukongim::{Error, Page};

/// The newest messages of a channel that are searched for a duplicate.
const DUPLICATE_WINDOW: u64 = 1000;
/// When a sent message is overdue, in confirmation timeouts: 5 s by default. After a node of a v2 cluster was killed, messages appeared
/// 4–5 s late (seen).
const OVERDUE_TIMEOUTS: f64 = 2.5;
/// Maximum pages read in one search for an attempt.
const MAX_PAGES: usize = 64;

/// The result of a search. Other senders' messages with the same client_msg_no never match.
enum SearchResult {
    /// The same message.
    Same(Stored),
    /// The same sender used the client_msg_no for another payload.
    OtherPayload,
    /// It is not there.
    Absent,
    /// The search ended before the end of its range.
    Unfinished,
}

impl Messages {
    /// Searches for a message that another process may have sent.
    pub(super) async fn find_duplicate(
        &self,
        task: &SendTask,
        answer_by: Instant,
    ) -> Result<Option<Stored>, SendError> {
        let search = self.search_down(task, 0, DUPLICATE_WINDOW, usize::MAX);
        match timeout_at(answer_by.into(), search).await {
            Ok(Ok(SearchResult::Same(stored))) if is_replicated(&self.client, stored).await => {
                Ok(Some(stored))
            }
            Ok(Ok(SearchResult::Same(_))) => Err(task.unconfirmed(Cause::NeverSeen)),
            Ok(Ok(SearchResult::OtherPayload)) => Err(SendError::Conflict),
            Ok(Ok(SearchResult::Absent | SearchResult::Unfinished)) => Ok(None),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }

    /// Searches for an earlier attempt with an unknown outcome. If it is absent but may still appear, it is awaited like a new message. It
    /// is sent again only after it is overdue.
    pub(super) async fn find_prior_send(
        &self,
        task: &Arc<SendTask>,
        claim: &mut Claim,
        pending: &Pending,
        answer_by: Instant,
    ) -> Result<Option<Stored>, SendError> {
        while let Some(attempt) = claim.attempt {
            let overdue_at = attempt.last_sent + self.confirm_timeout.mul_f64(OVERDUE_TIMEOUTS);
            // Read before the search: the attempt must have been overdue during the whole search.
            let overdue = Instant::now() >= overdue_at;
            let search = self.find_attempt(task, attempt, claim);
            let until = match timeout_at(answer_by.into(), search).await {
                Ok(Ok(SearchResult::Same(stored))) => {
                    if is_replicated(&self.client, stored).await {
                        return Ok(Some(stored));
                    }
                    // It is visible: it is not sent again while it is there.
                    answer_by
                }
                Ok(Ok(SearchResult::OtherPayload)) => return Err(SendError::Conflict),
                Ok(Ok(SearchResult::Absent)) if overdue => break,
                Ok(Ok(SearchResult::Absent)) => overdue_at.min(answer_by),
                Ok(Ok(SearchResult::Unfinished)) | Err(_) => {
                    return Err(task.unconfirmed(Cause::OutOfTime));
                }
                // A v2 cluster that has just lost a node refuses reads of some channels with 400 for seconds (seen). As an upstream error
                // that would be a 502, which reads as WuKongIM's answer to the message. The other errors are 503 or 504: retry.
                Ok(Err(error @ (Error::Rejected(_) | Error::Status(_)))) => {
                    return Err(task.unconfirmed(Cause::NoAnswer(error)));
                }
                Ok(Err(error)) => return Err(SendError::Upstream(error)),
            };
            let sent_ms = attempt.sent_ms;
            let target = MessageMatch::ClientMsgNo { sent_ms };
            if let Some(stored) = pending.stored_by(until, target, task).await {
                return Ok(Some(stored));
            }
            if Instant::now() >= answer_by {
                return Err(task.unconfirmed(Cause::NeverSeen));
            }
        }
        Ok(None)
    }

    /// Searches for an earlier attempt, upwards from its floor, which rises to where it is absent for certain.
    async fn find_attempt(
        &self,
        task: &SendTask,
        attempt: Attempt,
        claim: &mut Claim,
    ) -> Result<SearchResult, Error> {
        let pager = LogPager::newest(&self.client, &task.sender, &task.draft.channel);
        let newest = match attempt.floor {
            Some(_) => pager.newest_seq().await?,
            None => None,
        };
        let Some(floor) = attempt.floor.filter(|floor| newest >= Some(*floor)) else {
            // Without a floor, or where WuKongIM has lost the channel and counts from 1 again, the time of the send bounds the search.
            let since_ms = attempt.sent_ms.saturating_sub(MAX_CLOCK_SKEW_MS);
            return self.search_down(task, since_ms, u64::MAX, MAX_PAGES).await;
        };
        let mut pager = pager.up_from(floor + 1);
        for _ in 0..MAX_PAGES {
            let Some(page) = pager.next().await? else {
                return Ok(SearchResult::Absent);
            };
            if let Some(found) = task.find_in(&page, |_| true) {
                return Ok(found);
            }
            // Later messages appear above a full page, unless its messages are not replicated and may be rewritten.
            if let (false, Some(last)) = (pager.is_exhausted(), page.messages.last()) {
                let (id, seq) = (last.id, last.seq);
                if is_replicated(&self.client, Stored { id, seq }).await {
                    claim.advance_floor(seq);
                }
            }
        }
        Ok(pager.end_of_search())
    }

    /// Searches the channel's newest messages, newest first: as many as `max_messages`, and as new as `since_ms`.
    async fn search_down(
        &self,
        task: &SendTask,
        since_ms: u64,
        max_messages: u64,
        max_pages: usize,
    ) -> Result<SearchResult, Error> {
        let mut pager = LogPager::newest(&self.client, &task.sender, &task.draft.channel);
        let mut newest_seq = None;
        for _ in 0..max_pages {
            let Some(page) = pager.next().await? else {
                return Ok(SearchResult::Absent);
            };
            let Some((low, high)) = page.seq_range else {
                return Ok(SearchResult::Absent);
            };
            let newest_seq = *newest_seq.get_or_insert(high);
            let is_in_range = |message: &Message| {
                newest_seq.saturating_sub(message.seq) < max_messages
                    && message.id.unix_ms() >= since_ms
            };
            if let Some(found) = task.find_in(&page, is_in_range) {
                return Ok(found);
            }
            let oldest = page.messages.first();
            if newest_seq - low + 1 >= max_messages
                || oldest.is_some_and(|oldest| !is_in_range(oldest))
            {
                return Ok(SearchResult::Absent);
            }
        }
        Ok(pager.end_of_search())
    }
}

impl LogPager<'_> {
    fn end_of_search(&self) -> SearchResult {
        if self.is_exhausted() {
            SearchResult::Absent
        } else {
            SearchResult::Unfinished
        }
    }
}

impl SendTask {
    /// This task's message on a page, among those that `is_in_range` accepts.
    fn find_in(&self, page: &Page, is_in_range: impl Fn(&Message) -> bool) -> Option<SearchResult> {
        let message = page.messages.iter().rev().find(|message| {
            message.from_uid() == self.sender.as_str().as_bytes()
                && message.client_msg_no() == self.client_msg_no.as_str().as_bytes()
                && is_in_range(message)
        })?;
        if message.payload() != self.draft.payload.as_base64().as_bytes() {
            return Some(SearchResult::OtherPayload);
        }
        let (id, seq) = (message.id, message.seq);
        Some(SearchResult::Same(Stored { id, seq }))
    }
}
