//! The facts of WuKongIM that the policy uses, how they are fetched, and what follows from them. Lists are fetched only from v2, since v3
//! decides itself.

use std::sync::Arc;

use super::denial::Denial;
use super::fact_cache::{CacheKey, Fact};
use super::fingerprints::{Fingerprints, UidSet};
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::wukongim::{ChannelState, Client, Error, MemberList};

/// What a user wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Send,
    Read,
}

/// A set of facts that is fetched and cached together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum FactQuery {
    /// A group's state and its three lists.
    Members(ChannelId),
    /// A group's state, its denylist and its allowlist.
    SendRestrictions(ChannelId),
    /// A group's state alone.
    State(ChannelId),
    /// The users that this user blocks.
    BlockedBy(Uid),
}

impl CacheKey for FactQuery {
    fn invalidation_id(&self) -> &str {
        match self {
            Self::Members(group) | Self::SendRestrictions(group) | Self::State(group) => {
                group.as_str()
            }
            Self::BlockedBy(peer) => peer.as_str(),
        }
    }
}

/// The facts of a [`FactQuery`]; those not fetched are empty.
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
    /// Fetches the facts from WuKongIM, in parallel.
    pub(super) async fn fetch(
        client: &Client,
        fingerprints: &Fingerprints,
        query: &FactQuery,
    ) -> Result<Self, Error> {
        match query {
            FactQuery::Members(group) | FactQuery::SendRestrictions(group) => {
                let list = |list| async move {
                    let uids = client.list(list, ChannelType::Group, group.as_str());
                    require_list(uids.await?)
                };
                let subscribers = async {
                    match query {
                        FactQuery::Members(_) => list(MemberList::Subscribers).await,
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
            FactQuery::State(group) => Ok(Self {
                state: client.group_state(group).await?,
                ..Self::default()
            }),
            FactQuery::BlockedBy(peer) => {
                let denylist = client
                    .list(MemberList::Denylist, ChannelType::Person, peer.as_str())
                    .await?;
                Ok(Self {
                    denylist: fingerprints.set(&require_list(denylist)?),
                    ..Self::default()
                })
            }
        }
    }

    /// Whether there is such a group.
    ///
    /// Its record decides, not its lists: on v2 every call that adds a subscriber also creates the record (seen: `POST /channel` and
    /// `/channel/subscriber_add`), a denylist or a message alone does not, and an id with the same hash as another group shows that group's
    /// members.
    pub(super) fn group_exists(&self) -> Result<(), Denial> {
        let exists = self.state.exists && !self.state.disbanded;
        exists.then_some(()).ok_or(Denial::ChannelNotFound)
    }

    /// Whether the group's state permits `action`: v2 silently drops messages to a banned group.
    pub(super) fn accepts(&self, action: Action) -> Result<(), Denial> {
        let accepts = action == Action::Read || !self.state.banned;
        accepts.then_some(()).ok_or(Denial::ChannelBanned)
    }

    /// Whether `user` is a subscriber.
    pub(super) fn is_subscriber(
        &self,
        fingerprints: &Fingerprints,
        user: &Uid,
    ) -> Result<(), Denial> {
        let is_subscriber = fingerprints.contains(&self.subscribers, user.as_str());
        is_subscriber.then_some(()).ok_or(Denial::NotAMember)
    }

    /// Whether the lists permit `action` to `user`; they restrict only sending.
    pub(super) fn lists_permit(
        &self,
        fingerprints: &Fingerprints,
        user: &Uid,
        action: Action,
    ) -> Result<(), Denial> {
        let is_on = |list| fingerprints.contains(list, user.as_str());
        match action {
            Action::Read => Ok(()),
            Action::Send if is_on(&self.denylist) => Err(Denial::Blocked),
            Action::Send if self.allowlist.is_empty() || is_on(&self.allowlist) => Ok(()),
            Action::Send => Err(Denial::Forbidden),
        }
    }
}

/// A list that is not available is one of a v3, which has replaced the v2 that was detected before.
fn require_list(list: Option<Vec<String>>) -> Result<Vec<String>, Error> {
    list.ok_or(Error::Decode("list"))
}

/// The key of a user's ban.
impl CacheKey for Uid {
    fn invalidation_id(&self) -> &str {
        self.as_str()
    }
}

/// Whether a user is banned.
impl Fact for bool {}
