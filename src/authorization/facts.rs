//! What WuKongIM knows that decides a question, how it is asked for, and what follows from it. Only v2 is asked for lists:
//! v3 decides itself.

use std::sync::Arc;

use super::denial::Denial;
use super::fingerprints::{Fingerprints, UidSet};
use super::lookups::{Fact, Subject};
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::wukongim::{ChannelState, Client, Error, MemberList};

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Send,
    Read,
}

/// One question to WuKongIM, answered as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// A group's state and its three lists.
    Members(ChannelId),
    /// A group's state and the lists that silence.
    Silenced(ChannelId),
    /// A group's state alone.
    State(ChannelId),
    /// Whom this user blocks.
    BlockedBy(Uid),
}

impl Subject for Question {
    fn changes_with(&self) -> &str {
        match self {
            Self::Members(group) | Self::Silenced(group) | Self::State(group) => group.as_str(),
            Self::BlockedBy(peer) => peer.as_str(),
        }
    }
}

/// The answer to a [`Question`]; what was not asked for is empty.
#[derive(Debug, Default)]
pub(super) struct Facts {
    state: ChannelState,
    subscribers: UidSet,
    denylist: UidSet,
    allowlist: UidSet,
}

impl Fact for Arc<Facts> {
    fn memberships(&self) -> usize {
        self.subscribers.len() + self.denylist.len() + self.allowlist.len()
    }
}

impl Facts {
    /// Asks WuKongIM, everything side by side.
    pub(super) async fn ask(
        client: &Client,
        fingerprints: &Fingerprints,
        question: &Question,
    ) -> Result<Self, Error> {
        match question {
            Question::Members(group) | Question::Silenced(group) => {
                let list = |list| async move {
                    let uids = client.list(list, ChannelType::Group, group.as_str());
                    told(uids.await?)
                };
                let subscribers = async {
                    match question {
                        Question::Members(_) => list(MemberList::Subscribers).await,
                        _ => Ok(Vec::new()),
                    }
                };
                let (state, subscribers, denylist, allowlist) = tokio::try_join!(
                    client.group_state(group),
                    subscribers,
                    list(MemberList::Denylist),
                    list(MemberList::Allowlist),
                )?;
                Ok(Self {
                    state,
                    subscribers: fingerprints.set(&subscribers),
                    denylist: fingerprints.set(&denylist),
                    allowlist: fingerprints.set(&allowlist),
                })
            }
            Question::State(group) => Ok(Self {
                state: client.group_state(group).await?,
                ..Self::default()
            }),
            Question::BlockedBy(peer) => {
                let denylist = client
                    .list(MemberList::Denylist, ChannelType::Person, peer.as_str())
                    .await?;
                Ok(Self {
                    denylist: fingerprints.set(&told(denylist)?),
                    ..Self::default()
                })
            }
        }
    }

    /// Whether there is such a group.
    ///
    /// Its record decides, not its lists: on v2 every call that makes a subscriber also makes the record (seen: `POST /channel`
    /// and `/channel/subscriber_add`), a denylist or a message alone makes none, and an id that merely has the hash of another
    /// group shows that group's members, whom nobody made members of this one.
    pub(super) fn group_exists(&self) -> Result<(), Denial> {
        if self.state.exists && !self.state.disbanded {
            Ok(())
        } else {
            Err(Denial::ChannelNotFound)
        }
    }

    /// Whether nothing stands against `action` in the group's state: v2 silently drops what is sent to a banned one.
    pub(super) fn group_is_open(&self, action: Action) -> Result<(), Denial> {
        match action {
            Action::Send if self.state.banned => Err(Denial::ChannelBanned),
            Action::Send | Action::Read => Ok(()),
        }
    }

    /// Whether `user` is a subscriber.
    pub(super) fn is_subscriber(
        &self,
        fingerprints: &Fingerprints,
        user: &Uid,
    ) -> Result<(), Denial> {
        if fingerprints.contains(&self.subscribers, user.as_str()) {
            Ok(())
        } else {
            Err(Denial::NotAMember)
        }
    }

    /// Whether the lists let `user` do `action`: they silence, they hide nothing.
    pub(super) fn is_let_through(
        &self,
        fingerprints: &Fingerprints,
        user: &Uid,
        action: Action,
    ) -> Result<(), Denial> {
        if action == Action::Read {
            return Ok(());
        }
        if fingerprints.contains(&self.denylist, user.as_str()) {
            return Err(Denial::Blocked);
        }
        if self.allowlist.is_empty() || fingerprints.contains(&self.allowlist, user.as_str()) {
            Ok(())
        } else {
            Err(Denial::Forbidden)
        }
    }
}

/// A list that this WuKongIM does not tell is one of a v3, which has taken v2's place since it was asked who it is.
fn told(list: Option<Vec<String>>) -> Result<Vec<String>, Error> {
    list.ok_or(Error::Decode("list"))
}

/// A user whose ban is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Caller(pub(super) Uid);

impl Subject for Caller {
    fn changes_with(&self) -> &str {
        self.0.as_str()
    }
}

/// Whether a user is banned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Banned(pub(super) bool);

impl Fact for Banned {
    fn memberships(&self) -> usize {
        0
    }
}
