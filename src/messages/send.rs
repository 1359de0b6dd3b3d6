//! Sending one message, in two halves: handing it to WuKongIM, and seeing it stored. A batch does all first halves of a channel
//! before the second ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::confirm::{Confirmer, Pending, Sought};
use super::ledger::{Attempt, Begin, Busy, Ledger, Ticket};
use super::lookup::{Found, Wanted};
use super::{Cause, Draft, SendError, Sent, Stored, unix_ms};
use crate::authorization::callback::Action;
use crate::authorization::{Audit, Authorization, Denial};
use crate::config::{self, Confirm, DuplicateCheck};
use crate::domain::{Channel, ClientMsgNo, ConversationKey, Uid};
use crate::telemetry::Metrics;
use crate::wukongim::{Accepted, Client, Error, Generation, Outgoing, Rejection};

/// Pairs whose last acknowledged send on v3 is remembered.
const FRESH_PAIRS: usize = 10_000;

/// Sends messages. Shared by all requests.
pub struct Messages {
    pub(super) client: Arc<Client>,
    pub(super) authorization: Arc<Authorization>,
    confirmer: Arc<Confirmer>,
    ledger: Arc<Ledger>,
    confirm: Confirm,
    duplicate_check: DuplicateCheck,
    /// When a pair was last acknowledged a message by v3, whose sync does not know a new pair for up to 0.5 s.
    fresh_pairs: quick_cache::sync::Cache<ConversationKey, Instant>,
}

/// A message that was handed over, or whose fate is known already.
pub(super) enum Dispatched {
    /// Nothing is left to be done.
    Settled(Result<Sent, SendError>),
    /// Handed over; to be seen stored.
    Waiting(Box<Waiting>),
}

/// What is needed to see a message stored.
pub(super) struct Waiting {
    draft: Draft,
    number: ClientMsgNo,
    ticket: Ticket,
    pending: Pending,
    sought: Sought,
    cause: Cause,
    /// Whether the client brought the number, and may bring it again after a success.
    own_number: bool,
}

/// A number that somebody else is sending just now.
pub(super) enum Claimed {
    Ready(Dispatched),
    Busy(Busy),
}

impl Messages {
    /// A sender of messages with an empty memory.
    pub fn new(
        client: Arc<Client>,
        authorization: Arc<Authorization>,
        settings: &config::Wukongim,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let forgotten = metrics.idempotency_forgotten.clone();
        Self {
            confirmer: Confirmer::new(client.clone(), settings.confirm_timeout, metrics.clone()),
            ledger: Ledger::new(
                settings.idempotency_window,
                settings.idempotency_entries,
                forgotten,
            ),
            confirm: settings.confirm,
            duplicate_check: settings.duplicate_check,
            fresh_pairs: quick_cache::sync::Cache::new(FRESH_PAIRS),
            client,
            authorization,
        }
    }

    /// Sends one message for `sender` and answers when WuKongIM has stored it.
    pub async fn send(&self, sender: &Uid, draft: Draft) -> Result<Sent, SendError> {
        let mut audit = audit(sender, &draft);
        let result = async {
            let actor = draft.actor.as_ref();
            self.authorization
                .may_send(sender, actor, &draft.channel)
                .await?;
            let dispatched = self.dispatch(sender, draft).await;
            self.settle(sender, dispatched).await
        }
        .await;
        if let Some(audit) = &mut audit {
            audit.ended(&result);
        }
        result
    }

    /// How long ago v3 acknowledged a message of this conversation, if that was lately.
    pub fn acknowledged_ago(&self, conversation: &ConversationKey) -> Option<Duration> {
        self.fresh_pairs.get(conversation).map(|at| at.elapsed())
    }

    /// Hands one message over, waiting for whoever is sending the same number just now.
    pub(super) async fn dispatch(&self, sender: &Uid, draft: Draft) -> Dispatched {
        loop {
            match self.try_dispatch(sender, &draft).await {
                Claimed::Ready(dispatched) => return dispatched,
                Claimed::Busy(busy) => busy.wait().await,
            }
        }
    }

    /// Hands one message over unless somebody is sending the same number just now.
    pub(super) async fn try_dispatch(&self, sender: &Uid, draft: &Draft) -> Claimed {
        let generation = match self.client.generation().await {
            Ok(generation) => generation,
            Err(error) => return settled(Err(SendError::Upstream(error))),
        };
        let number = draft
            .client_msg_no
            .clone()
            .unwrap_or_else(ClientMsgNo::generate);
        match generation {
            Generation::V3 => settled(self.send_v3(sender, draft, number).await),
            Generation::V2 => self.send_v2(sender, draft, number).await,
        }
    }

    /// v3 checks, stores and de-duplicates by itself: (from_uid, channel, client_msg_no, payload), seen on a running server. So a
    /// lost answer is asked for once more.
    async fn send_v3(
        &self,
        sender: &Uid,
        draft: &Draft,
        number: ClientMsgNo,
    ) -> Result<Sent, SendError> {
        let message = Outgoing {
            from: sender,
            channel: &draft.channel,
            payload: &draft.payload,
            client_msg_no: &number,
        };
        let mut answer = self.client.send(&message).await;
        if matches!(
            answer,
            Err(Error::Lost | Error::Rejected(Rejection::RetryRequired))
        ) {
            answer = self.client.send(&message).await;
        }
        match answer {
            Ok(Accepted { id, seq: Some(seq) }) => {
                if let Channel::Person(_) = draft.channel {
                    self.fresh_pairs
                        .insert(ConversationKey::of(sender, &draft.channel), Instant::now());
                }
                Ok(Sent {
                    stored: Stored { id, seq },
                    client_msg_no: number,
                })
            }
            // Another generation answered: nothing is known of the message.
            Ok(Accepted { seq: None, .. }) => Err(SendError::Unconfirmed {
                client_msg_no: number,
                cause: Cause::NeverSeen,
            }),
            Err(Error::Rejected(Rejection::Conflict)) => Err(SendError::Conflict),
            Err(error) if error.may_have_arrived() => Err(SendError::Unconfirmed {
                client_msg_no: number,
                cause: Cause::NoAnswer(error),
            }),
            Err(error) => Err(refused(&draft.channel, &error)),
        }
    }

    async fn send_v2(&self, sender: &Uid, draft: &Draft, number: ClientMsgNo) -> Claimed {
        let conversation = ConversationKey::of(sender, &draft.channel);
        let own_number = draft.client_msg_no.is_some();
        let wanted = Wanted {
            sender,
            channel: &draft.channel,
            number: &number,
            payload: &draft.payload,
        };
        let (ticket, earlier) =
            match self
                .ledger
                .begin(sender, &conversation, &number, &draft.payload)
            {
                Begin::Busy(busy) => return Claimed::Busy(busy),
                Begin::Conflict => return settled(Err(SendError::Conflict)),
                Begin::Done(stored) => {
                    return settled(Ok(Sent {
                        stored,
                        client_msg_no: number,
                    }));
                }
                Begin::Unknown(ticket, attempt) => {
                    (ticket, self.find_earlier(wanted, Some(attempt)).await)
                }
                Begin::New(ticket)
                    if own_number && self.duplicate_check == DuplicateCheck::Upstream =>
                {
                    (ticket, self.find_earlier(wanted, None).await)
                }
                Begin::New(ticket) => (ticket, Ok(None)),
            };
        match earlier {
            Ok(None) => {}
            Ok(Some(Found::Same(stored))) => {
                ticket.stored(stored);
                return settled(Ok(Sent {
                    stored,
                    client_msg_no: number,
                }));
            }
            Ok(Some(Found::OtherPayload)) => {
                ticket.forget();
                return settled(Err(SendError::Conflict));
            }
            // Not known whether it is there: nothing is sent. The dropped ticket keeps what is known.
            Err(error) => return settled(Err(error)),
        }
        let pending = self.confirmer.expect(&conversation);
        let sent_ms = unix_ms();
        ticket.sending(Attempt {
            floor: pending.floor(),
            sent_ms,
        });
        let message = Outgoing {
            from: sender,
            channel: &draft.channel,
            payload: &draft.payload,
            client_msg_no: &number,
        };
        let (sought, cause) = match self.client.send(&message).await {
            Ok(Accepted { id, seq: Some(seq) }) => {
                let stored = Stored { id, seq };
                ticket.stored(stored);
                return settled(Ok(Sent {
                    stored,
                    client_msg_no: number,
                }));
            }
            Ok(Accepted { id, seq: None }) if self.confirm == Confirm::Accepted => {
                let stored = Stored { id, seq: 0 };
                ticket.stored(stored);
                return settled(Ok(Sent {
                    stored,
                    client_msg_no: number,
                }));
            }
            Ok(Accepted { id, seq: None }) => (Sought::Id(id), Cause::NeverSeen),
            Err(error) if error.may_have_arrived() => {
                (Sought::Number { sent_ms }, Cause::NoAnswer(error))
            }
            Err(error) => {
                ticket.forget();
                return settled(Err(refused(&draft.channel, &error)));
            }
        };
        let draft = draft.clone();
        let waiting = Waiting {
            draft,
            number,
            ticket,
            pending,
            sought,
            cause,
            own_number,
        };
        Claimed::Ready(Dispatched::Waiting(Box::new(waiting)))
    }

    /// Looks for this message: the attempt that is known of, or any that another process may have made.
    ///
    /// A v2 cluster that has just lost a node refuses some channels' reads with 400 for seconds (seen): no word on the message that was
    /// sent before.
    async fn find_earlier(
        &self,
        wanted: Wanted<'_>,
        attempt: Option<Attempt>,
    ) -> Result<Option<Found>, SendError> {
        let Some(attempt) = attempt else {
            let found = self.find_newest(wanted).await;
            return found.map_err(SendError::Upstream);
        };
        let found = self.find_attempt(wanted, attempt).await;
        found.map_err(|error| match error {
            Error::Rejected(_) | Error::Status(_) => SendError::Unconfirmed {
                client_msg_no: wanted.number.clone(),
                cause: Cause::NoAnswer(error),
            },
            error => SendError::Upstream(error),
        })
    }

    /// Sees a message stored that was handed over, or finds out why it was not.
    pub(super) async fn settle(
        &self,
        sender: &Uid,
        dispatched: Dispatched,
    ) -> Result<Sent, SendError> {
        let waiting = match dispatched {
            Dispatched::Settled(result) => return result,
            Dispatched::Waiting(waiting) => *waiting,
        };
        let Waiting {
            draft,
            number,
            ticket,
            pending,
            sought,
            cause,
            own_number,
        } = waiting;
        match pending
            .stored(sought, sender, &draft.channel, &number)
            .await
        {
            Some((id, seq)) => {
                let stored = Stored { id, seq };
                if own_number {
                    ticket.stored(stored);
                } else {
                    ticket.forget();
                }
                Ok(Sent {
                    stored,
                    client_msg_no: number,
                })
            }
            // The ticket is dropped: the next one with this number looks for the message before it sends.
            None => match self.explain_silence(&draft.channel).await {
                Some(denial) => Err(SendError::Denied(denial)),
                None => Err(SendError::Unconfirmed {
                    client_msg_no: number,
                    cause,
                }),
            },
        }
    }

    /// v2 drops what is sent to a banned or disbanded group after it answered 200 (seen on a running server).
    async fn explain_silence(&self, channel: &Channel) -> Option<Denial> {
        let Channel::Group(group) = channel else {
            return None;
        };
        let state = self.client.group_state(group).await.ok()?;
        let denial = match state {
            state if state.disbanded || !state.exists => Denial::ChannelNotFound,
            state if state.banned => Denial::ChannelBanned,
            _ => return None,
        };
        // What was believed of this group let the message through: believe it no longer.
        self.authorization.group_changed(group);
        Some(denial)
    }
}

/// The audit's line of what an admin sends as somebody else.
pub(super) fn audit(sender: &Uid, draft: &Draft) -> Option<Audit> {
    let due = Arc::new(true.into());
    let begin = |actor| {
        Audit::new(
            actor,
            Some(sender),
            Action::MessageSend,
            &draft.channel,
            due,
        )
    };
    draft.actor.as_ref().map(begin)
}

/// What WuKongIM's "no" means.
fn refused(channel: &Channel, error: &Error) -> SendError {
    match Denial::of_send_refusal(channel, error) {
        Denial::Upstream(error) => SendError::Upstream(error),
        denial => SendError::Denied(denial),
    }
}

fn settled(result: Result<Sent, SendError>) -> Claimed {
    Claimed::Ready(Dispatched::Settled(result))
}
