//! Looking for a message by its number: one whose answer was lost earlier, or (`duplicate_check = "upstream"`) one that another
//! replica or an earlier process sent.

use super::Stored;
use super::confirm::CLOCK_SKEW_MS;
use super::ledger::Attempt;
use super::send::Messages;
use crate::domain::{Channel, ClientMsgNo, Message, Payload, Uid};
use crate::wukongim::{Error, Window};

/// The newest messages of a channel among which a duplicate is looked for.
const NEWEST: u64 = 1000;
/// Messages read in one step.
const STEP: usize = 100;
/// The largest answer to one step.
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// The message that bears a number, and whether it is the same message.
pub(super) enum Found {
    /// The very message.
    Same(Stored),
    /// The same sender used the number for another payload.
    OtherPayload,
}

/// How far down a channel is looked through.
#[derive(Clone, Copy)]
enum Reach {
    /// This many of its newest messages.
    Newest(u64),
    /// Everything whose id was made at this time or later, in Unix milliseconds.
    Since(u64),
}

impl Reach {
    fn covers(self, message: &Message) -> bool {
        match self {
            Self::Newest(_) => true,
            Self::Since(ms) => message.id.unix_ms() >= ms,
        }
    }
}

/// What is looked for; somebody else's message with the same number is not seen at all.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) sender: &'a Uid,
    pub(super) channel: &'a Channel,
    pub(super) number: &'a ClientMsgNo,
    pub(super) payload: &'a Payload,
}

impl Wanted<'_> {
    fn is(&self, message: &Message) -> bool {
        *message.from_uid == *self.sender.as_str()
            && *message.client_msg_no == *self.number.as_str()
    }

    fn found(&self, message: &Message) -> Found {
        if *message.payload == *self.payload.as_base64().as_bytes() {
            Found::Same(Stored {
                id: message.id,
                seq: message.seq,
            })
        } else {
            Found::OtherPayload
        }
    }
}

impl Messages {
    /// Looks for an earlier attempt, upwards from what was known before it.
    pub(super) async fn find_attempt(
        &self,
        wanted: Wanted<'_>,
        attempt: Attempt,
    ) -> Result<Option<Found>, Error> {
        // Where no seq is the bound, its time is: a busy channel hides nothing.
        let since = Reach::Since(attempt.sent_ms.saturating_sub(CLOCK_SKEW_MS));
        let Some(floor) = attempt.floor else {
            return self.find_downwards(wanted, since).await;
        };
        let newest = self
            .client
            .page(wanted.sender, wanted.channel, Window::Newest, 1, STEP_BYTES)
            .await?;
        if newest.span.is_none_or(|(_, high)| high < floor) {
            // WuKongIM has lost the channel since, and counts from 1 again.
            return self.find_downwards(wanted, since).await;
        }
        let mut from = floor + 1;
        let mut step = STEP;
        loop {
            let window = Window::Up { from, until: None };
            let page = match self
                .client
                .page(wanted.sender, wanted.channel, window, step, STEP_BYTES)
                .await
            {
                Err(Error::TooLarge { .. }) if step > 1 => {
                    step = (step / 4).max(1);
                    continue;
                }
                page => page?,
            };
            if let Some(message) = page.messages.iter().find(|message| wanted.is(message)) {
                return Ok(Some(wanted.found(message)));
            }
            match page.span {
                Some((_, high)) if page.received >= step => from = high + 1,
                _ => return Ok(None),
            }
        }
    }

    /// Looks through the channel's newest 1,000 messages, newest first.
    pub(super) async fn find_newest(&self, wanted: Wanted<'_>) -> Result<Option<Found>, Error> {
        self.find_downwards(wanted, Reach::Newest(NEWEST)).await
    }

    async fn find_downwards(
        &self,
        wanted: Wanted<'_>,
        reach: Reach,
    ) -> Result<Option<Found>, Error> {
        let mut window = Window::Newest;
        let mut step = STEP;
        let mut lowest_wanted = None;
        loop {
            let page = match self
                .client
                .page(wanted.sender, wanted.channel, window, step, STEP_BYTES)
                .await
            {
                Err(Error::TooLarge { .. }) if step > 1 => {
                    step = (step / 4).max(1);
                    if let Window::Up {
                        until: Some(until), ..
                    } = window
                    {
                        window = Window::Up {
                            from: until.saturating_sub(step as u64).max(1),
                            until: Some(until),
                        };
                    }
                    continue;
                }
                page => page?,
            };
            if let Some(message) = page
                .messages
                .iter()
                .rev()
                .find(|message| wanted.is(message) && reach.covers(message))
            {
                return Ok(Some(wanted.found(message)));
            }
            let Some((low, high)) = page.span else {
                return Ok(None);
            };
            let stop = *lowest_wanted.get_or_insert(match reach {
                Reach::Newest(count) => high.saturating_sub(count) + 1,
                Reach::Since(_) => 1,
            });
            let passed = page
                .messages
                .first()
                .is_some_and(|oldest| !reach.covers(oldest));
            if low <= stop || passed {
                return Ok(None);
            }
            let from = low.saturating_sub(step as u64).max(stop);
            window = Window::Up {
                from,
                until: Some(low),
            };
        }
    }
}
