//! Looking for a message by its number: one whose answer was lost earlier, or (`duplicate_check = "upstream"`) one that another
//! replica or an earlier process sent.

use super::ledger::Attempt;
use super::safe::is_safe;
use super::send::Messages;
use super::walk::{self, Walk};
use super::watch::CLOCK_SKEW_MS;
use super::{Job, Stored};
use crate::domain::Message;
use crate::wukongim::{Error, Page, Window};

/// The newest messages of a channel among which a duplicate is looked for.
const NEWEST: u64 = 1000;
/// Pages read at the most in one look for an attempt.
const PAGES: usize = 64;

/// What a look for a number found. Somebody else's message with the same number is not seen at all.
pub(super) enum Search {
    /// The very message.
    Same(Stored),
    /// The same sender used the number for another payload.
    OtherPayload,
    /// It is not there.
    Absent,
    /// More was written than one look reads.
    Unfinished,
}

/// How far down a channel is looked through.
#[derive(Clone, Copy)]
enum Reach {
    /// This many of its newest messages.
    Newest(u64),
    /// Everything whose id was made at this time or later, in Unix milliseconds.
    Since(u64),
}

impl Job {
    /// The message of this job among those of a page which count.
    fn found_in(&self, page: &Page, counts: impl Fn(&Message) -> bool) -> Option<Search> {
        let message = page.messages.iter().rev().find(|message| {
            message.from_uid() == self.sender.as_str().as_bytes()
                && message.client_msg_no() == self.number.as_str().as_bytes()
                && counts(message)
        })?;
        if message.payload() != self.payload.as_base64().as_bytes() {
            return Some(Search::OtherPayload);
        }
        let (id, seq) = (message.id, message.seq);
        Some(Search::Same(Stored { id, seq }))
    }
}

impl Messages {
    /// Looks for an earlier attempt, upwards from what was known before it; `searched` is told how far it came, where that was not
    /// the end.
    pub(super) async fn find_attempt(
        &self,
        job: &Job,
        attempt: Attempt,
        searched: impl Fn(u64),
    ) -> Result<Search, Error> {
        let (client, reader, channel) = (&*self.client, &job.sender, &job.channel);
        // Where no seq is the bound, its time is: a busy channel hides nothing.
        let since = Reach::Since(attempt.sent_ms.saturating_sub(CLOCK_SKEW_MS));
        let Some(floor) = attempt.floor else {
            return self.find_downwards(job, since).await;
        };
        let newest = walk::page(client, reader, channel, Window::Newest, 1).await?;
        if newest.span.is_none_or(|(_, high)| high < floor) {
            // WuKongIM has lost the channel since, and counts from 1 again.
            return self.find_downwards(job, since).await;
        }
        let mut walk = Walk::up(client, reader, channel, floor + 1);
        for _ in 0..PAGES {
            let Some(page) = walk.next().await? else {
                return Ok(Search::Absent);
            };
            if let Some(found) = job.found_in(&page, |_| true) {
                return Ok(found);
            }
            // What turns up later stands above a page that is full, but where that may yet be written anew, when a cluster loses a node.
            if let (false, Some(last)) = (walk.is_over(), page.messages.last()) {
                let (id, seq) = (last.id, last.seq);
                if is_safe(client, Stored { id, seq }).await {
                    searched(seq);
                }
            }
        }
        Ok(finished(&walk))
    }

    /// Looks through the channel's newest 1,000 messages, newest first.
    pub(super) async fn find_newest(&self, job: &Job) -> Result<Search, Error> {
        self.find_downwards(job, Reach::Newest(NEWEST)).await
    }

    async fn find_downwards(&self, job: &Job, reach: Reach) -> Result<Search, Error> {
        let mut walk = Walk::down(&self.client, &job.sender, &job.channel, None);
        let (since, pages) = match reach {
            Reach::Since(ms) => (ms, PAGES),
            Reach::Newest(_) => (0, usize::MAX),
        };
        let mut stop = None;
        for _ in 0..pages {
            let Some(page) = walk.next().await? else {
                return Ok(Search::Absent);
            };
            let Some((low, high)) = page.span else {
                return Ok(Search::Absent);
            };
            let stop = *stop.get_or_insert(match reach {
                Reach::Newest(count) => (high + 1).saturating_sub(count),
                Reach::Since(_) => 1,
            });
            let counts = |message: &Message| message.seq >= stop && message.id.unix_ms() >= since;
            if let Some(found) = job.found_in(&page, counts) {
                return Ok(found);
            }
            let passed = page.messages.first().is_some_and(|oldest| !counts(oldest));
            if low <= stop || passed {
                return Ok(Search::Absent);
            }
        }
        Ok(finished(&walk))
    }
}

fn finished(walk: &Walk<'_>) -> Search {
    if walk.is_over() {
        Search::Absent
    } else {
        Search::Unfinished
    }
}
