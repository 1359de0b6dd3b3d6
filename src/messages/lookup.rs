//! Searches a channel's log for a message by its client_msg_no: one whose answer was lost, or (`duplicate_check = "upstream"`) one that
//! another replica or an earlier process sent.

use super::channel_waiters::MAX_CLOCK_SKEW_MS;
use super::idempotency::Attempt;
use super::log_pager::{self, LogPager};
use super::replicated::is_replicated;
use super::send::Messages;
use super::{SendTask, Stored};
use crate::domain::Message;
use crate::wukongim::{Error, Page, Window};

/// The newest messages of a channel that are searched for a duplicate.
const DUPLICATE_WINDOW: u64 = 1000;
/// Maximum pages read in one search for an attempt.
const MAX_PAGES: usize = 64;

/// The result of a search. Other senders' messages with the same client_msg_no never match.
pub(super) enum SearchResult {
    /// The same message.
    Same(Stored),
    /// The same sender used the client_msg_no for another payload.
    OtherPayload,
    /// It is not there.
    Absent,
    /// The search ended before the end of its range.
    Unfinished,
}

/// How far down a channel is searched.
#[derive(Clone, Copy)]
enum SearchRange {
    /// So many of its newest messages.
    Newest(u64),
    /// All messages whose id was generated at this time or later, in Unix milliseconds.
    Since(u64),
}

impl SendTask {
    /// This task's message on a page, among those that `is_in_range` accepts.
    fn found_in(
        &self,
        page: &Page,
        is_in_range: impl Fn(&Message) -> bool,
    ) -> Option<SearchResult> {
        let message = page.messages.iter().rev().find(|message| {
            message.from_uid() == self.sender.as_str().as_bytes()
                && message.client_msg_no() == self.client_msg_no.as_str().as_bytes()
                && is_in_range(message)
        })?;
        if message.payload() != self.payload.as_base64().as_bytes() {
            return Some(SearchResult::OtherPayload);
        }
        let (id, seq) = (message.id, message.seq);
        Some(SearchResult::Same(Stored { id, seq }))
    }
}

impl Messages {
    /// Searches for an earlier attempt, upwards from its floor; reports to `searched` the seq up to which it is absent for certain.
    pub(super) async fn find_attempt(
        &self,
        task: &SendTask,
        attempt: Attempt,
        searched: impl Fn(u64),
    ) -> Result<SearchResult, Error> {
        let (client, reader, channel) = (&*self.client, &task.sender, &task.channel);
        // Without a floor, the time of the send bounds the search.
        let since = SearchRange::Since(attempt.sent_ms.saturating_sub(MAX_CLOCK_SKEW_MS));
        let Some(floor) = attempt.floor else {
            return self.find_downwards(task, since).await;
        };
        let newest = log_pager::page(client, reader, channel, Window::Newest, 1).await?;
        if newest.seq_range.is_none_or(|(_, high)| high < floor) {
            // WuKongIM has lost the channel and counts from 1 again.
            return self.find_downwards(task, since).await;
        }
        let mut pager = LogPager::up(client, reader, channel, floor + 1);
        for _ in 0..MAX_PAGES {
            let Some(page) = pager.next().await? else {
                return Ok(SearchResult::Absent);
            };
            if let Some(found) = task.found_in(&page, |_| true) {
                return Ok(found);
            }
            // Later messages appear above a full page, unless its messages are not replicated and may be rewritten.
            if let (false, Some(last)) = (pager.is_exhausted(), page.messages.last()) {
                let (id, seq) = (last.id, last.seq);
                if is_replicated(client, Stored { id, seq }).await {
                    searched(seq);
                }
            }
        }
        Ok(search_result(&pager))
    }

    /// Searches the channel's newest 1,000 messages, newest first.
    pub(super) async fn find_newest(&self, task: &SendTask) -> Result<SearchResult, Error> {
        self.find_downwards(task, SearchRange::Newest(DUPLICATE_WINDOW))
            .await
    }

    async fn find_downwards(
        &self,
        task: &SendTask,
        range: SearchRange,
    ) -> Result<SearchResult, Error> {
        let mut pager = LogPager::down(&self.client, &task.sender, &task.channel, None);
        let (since, pages) = match range {
            SearchRange::Since(ms) => (ms, MAX_PAGES),
            SearchRange::Newest(_) => (0, usize::MAX),
        };
        let mut lowest_seq = None;
        for _ in 0..pages {
            let Some(page) = pager.next().await? else {
                return Ok(SearchResult::Absent);
            };
            let Some((low, high)) = page.seq_range else {
                return Ok(SearchResult::Absent);
            };
            let lowest_seq = *lowest_seq.get_or_insert(match range {
                SearchRange::Newest(count) => (high + 1).saturating_sub(count),
                SearchRange::Since(_) => 1,
            });
            let is_in_range =
                |message: &Message| message.seq >= lowest_seq && message.id.unix_ms() >= since;
            if let Some(found) = task.found_in(&page, is_in_range) {
                return Ok(found);
            }
            let passed = page
                .messages
                .first()
                .is_some_and(|oldest| !is_in_range(oldest));
            if low <= lowest_seq || passed {
                return Ok(SearchResult::Absent);
            }
        }
        Ok(search_result(&pager))
    }
}

fn search_result(pager: &LogPager<'_>) -> SearchResult {
    if pager.is_exhausted() {
        SearchResult::Absent
    } else {
        SearchResult::Unfinished
    }
}
