//! Who may read and send: the policy and the cache of the facts it uses. Does not know HTTP and changes nothing.
//!
//! WuKongIM v2 checks no permissions of HTTP calls, so the gateway does. v3 checks them itself, so the gateway only blocks deleted ids and
//! maps v3's refusals. Ownership of groups and permission to change them are not decided here.
//!
//! | checked in this order | `members`, v2 | `callback`, v2 | `open`, v2 | v3, all modes |
//! |---|---|---|---|---|
//! | 1 the id was deleted (store) | `ChannelNotFound` | the same | the same | the same |
//! | 2 no such group, or disbanded | `ChannelNotFound` | the same | the same | v3 decides |
//! | 3 the user is banned | `Forbidden` | the same | – | – (v3 has no such ban) |
//! | 4 not a subscriber | `NotAMember` | – | – | v3 decides |
//! | 5 the group is banned, sending | `ChannelBanned` | the same | the same | v3 decides |
//! | 6 on the group's or peer's denylist, sending | `Blocked` | the same | – | v3 decides |
//! | 7 not on an existing allowlist, sending | `Forbidden` | the same | – | v3 decides |
//! | 8 the application's backend refuses | – | `Refused` | – | `Refused` in `callback` |
//!
//! In `open` any valid token may do anything, as in the reference's literal reading, so lists and user bans are not fetched. The remaining
//! checks are not about permission: v2 would silently drop messages to a banned or disbanded group, and would store messages to a group
//! that does not exist.
//!
//! On a socket WuKongIM checks 2 and 4 to 7 itself on both generations, so only 1, 8 and, in all modes, 3 are checked here.
//!
//! `callback` leaves membership to the application's backend, which is called last, so that requests refused anyway do not reach it. v3
//! still refuses users that are not subscribers.

mod audit;
pub mod callback;
mod denial;
pub(crate) mod fact_cache;
mod facts;
mod fingerprints;
mod records;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use audit::Audit;
pub use denial::Denial;
pub use records::GroupRecord;

use crate::domain::{Channel, ChannelId, Uid};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Error, Generation, Rejection};
use callback::Callback;
use fact_cache::FactCache;
use facts::{Action, FactQuery, Facts};
use fingerprints::Fingerprints;
use records::Records;

/// How long a permit is valid without a second check, as long as the gateway has changed nothing: longer than a send takes.
const PERMIT_TTL: Duration = Duration::from_secs(1);

/// What decides about membership.
#[derive(Debug, Clone)]
pub enum Mode {
    /// WuKongIM's lists: subscribers may read and send; denylists and allowlists apply.
    Members,
    /// Any valid token may do anything in a group that exists.
    Open,
    /// The application's backend, in addition to WuKongIM's denylists, allowlists and bans.
    Callback(Arc<Callback>),
}

/// The policy's settings.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What decides about membership.
    pub mode: Mode,
    /// How long a fact is cached, counted from the start of its lookup.
    pub cache_ttl: Duration,
    /// How many memberships are cached (8 bytes each; a channel itself counts as sixteen). Banned users and deleted ids have caches of
    /// their own, each with the same bound. A group larger than a quarter of it is not cached but looked up for each request, once for all
    /// concurrent ones.
    pub cache_members: usize,
}

/// The permission to send to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The channel's version at the check.
    version: u64,
    answers: Instant,
}

/// The policy and its caches, shared by all requests.
pub struct Authorization {
    client: Arc<Client>,
    mode: Mode,
    fingerprints: Fingerprints,
    facts: Arc<FactCache<FactQuery, Arc<Facts>, Error>>,
    bans: Arc<FactCache<Uid, bool, Error>>,
    records: Records,
    store: Arc<Store>,
}

impl Authorization {
    /// The policy over this WuKongIM and this store. Makes no call.
    pub fn new(
        client: Arc<Client>,
        store: Arc<Store>,
        rules: Rules,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (ttl, size) = (rules.cache_ttl, rules.cache_members);
        Self {
            client,
            mode: rules.mode,
            fingerprints: Fingerprints::default(),
            facts: FactCache::new("members", ttl, size, Error::Lost, Arc::clone(&metrics)),
            bans: FactCache::new("bans", ttl, size, Error::Lost, Arc::clone(&metrics)),
            records: Records::new(Arc::clone(&store), ttl, size, metrics),
            store,
        }
    }

    /// The number of cached facts, by cache.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![self.facts.size(), self.bans.size(), self.records.size()];
        if let Mode::Callback(callback) = &self.mode {
            sizes.push(callback.size());
        }
        sizes
    }

    /// Checks whether `sender` may send to `channel`, as far as that is possible before the send: v3 decides the rest in its answer, see
    /// [`Denial::of_send_refusal`]. `actor` is the admin that sends on the sender's behalf.
    pub async fn may_send(
        &self,
        sender: &Uid,
        actor: Option<&Uid>,
        channel: &Channel,
    ) -> Result<Permit, Denial> {
        // Taken before the check, so that a change during it invalidates the permit.
        let (version, answers) = (self.facts.version_of(channel.id()), Instant::now());
        self.authorize(Action::Send, sender, channel).await?;
        let action = callback::Action::MessageSend;
        self.ask_callback(action, sender, actor, channel).await?;
        Ok(Permit { version, answers })
    }

    /// Checks what WuKongIM does not check of a message that `sender` sends to `channel` on a socket, in this order: the group was deleted
    /// ([`Denial::ChannelNotFound`]), the application's backend refuses ([`Denial::Refused`]) or does not answer
    /// ([`Denial::CallbackFailed`]), the sender is banned (v2, [`Denial::Forbidden`]), a message to oneself (v3, [`Denial::ToOneself`]).
    /// [`Denial::Unavailable`] where WuKongIM cannot be asked about the ban.
    ///
    /// WuKongIM checks membership, lists and the group's ban on its own sockets.
    pub async fn may_send_on_socket(&self, sender: &Uid, channel: &Channel) -> Result<(), Denial> {
        if let Channel::Group(group) = channel
            && self.records.is_deleted(group).await
        {
            return Err(Denial::ChannelNotFound);
        }
        let action = callback::Action::MessageSend;
        self.ask_callback(action, sender, None, channel).await?;
        let is_banned = self.is_user_banned(sender).await;
        if is_banned.map_err(Denial::Unavailable)? {
            return Err(Denial::Forbidden);
        }
        match channel {
            Channel::Person(peer) if sender == peer => match self.generation().await? {
                Generation::V2 => Ok(()),
                Generation::V3 => Err(Denial::ToOneself),
            },
            Channel::Person(_) | Channel::Group(_) => Ok(()),
        }
    }

    /// Whether the permit is still valid without a new check: it is recent, and the gateway has not changed the channel since.
    pub fn is_still_valid(&self, permit: Permit, channel: &Channel) -> bool {
        permit.answers.elapsed() < PERMIT_TTL
            && permit.version == self.facts.version_of(channel.id())
    }

    /// Checks whether `reader` may read `channel`, as far as [`Self::may_send`] does. [`Self::explain_read_refusal`] maps v3's refusals of
    /// the read itself.
    pub async fn may_read(&self, reader: &Uid, channel: &Channel) -> Result<(), Denial> {
        self.authorize(Action::Read, reader, channel).await?;
        let action = callback::Action::MessageSync;
        self.ask_callback(action, reader, None, channel).await
    }

    /// The same for a group, by facts and answers that are looked up anew.
    pub async fn may_read_now(&self, reader: &Uid, group: &ChannelId) -> Result<(), Denial> {
        self.group_changed(group);
        let channel = Channel::Group(group.clone());
        self.may_read(reader, &channel).await
    }

    /// Asks the application's backend in mode `callback`.
    async fn ask_callback(
        &self,
        action: callback::Action,
        user: &Uid,
        actor: Option<&Uid>,
        channel: &Channel,
    ) -> Result<(), Denial> {
        match &self.mode {
            Mode::Callback(callback) => callback.ask(action, user, actor, channel, &[]).await,
            Mode::Members | Mode::Open => Ok(()),
        }
    }

    /// Checks whether `user` may see the gateway's own record of the group: subscribers may, or users that the callback permits.
    pub async fn may_see(&self, user: &Uid, group: &ChannelId) -> Result<(), Denial> {
        let action = callback::Action::ChannelInfo;
        self.authorize_member(user, group, action).await
    }

    /// The same for the list of its subscribers.
    pub async fn may_list_members(&self, user: &Uid, group: &ChannelId) -> Result<(), Denial> {
        let action = callback::Action::ChannelSubscribers;
        self.authorize_member(user, group, action).await
    }

    async fn authorize_member(
        &self,
        user: &Uid,
        group: &ChannelId,
        action: callback::Action,
    ) -> Result<(), Denial> {
        let channel = Channel::Group(group.clone());
        self.authorize(Action::Read, user, &channel).await?;
        match (&self.mode, self.generation().await?) {
            (Mode::Callback(_), _) => {
                return self.ask_callback(action, user, None, &channel).await;
            }
            (Mode::Open, _) | (Mode::Members, Generation::V2) => return Ok(()),
            (Mode::Members, Generation::V3) => {}
        }
        // No call to v3 follows here that v3 could refuse itself.
        match self.client.is_subscriber(user, group).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::NotAMember),
            Err(error) => Err(Denial::Unavailable(error)),
        }
    }

    /// Whether `user` is known not to be a subscriber of an existing group, by cached or shared facts or by a query for this user. `false`
    /// where that is unknown (v3 without its manager port, or no answer).
    pub async fn is_known_non_member(&self, user: &Uid, group: &ChannelId) -> bool {
        match self.generation().await {
            Ok(Generation::V2) => {
                let facts = self.facts(FactQuery::Members(group.clone())).await;
                facts.is_ok_and(|facts| {
                    facts.group_exists().is_ok()
                        && facts.is_subscriber(&self.fingerprints, user).is_err()
                })
            }
            Ok(Generation::V3) => {
                let listed = self.client.is_listed(user, group).await;
                matches!(listed, Ok(Some(false)))
            }
            Err(_) => false,
        }
    }

    /// What the store has of these groups, in the same order; at most as old as the cached facts.
    ///
    /// # Errors
    /// Where the store fails and not all are cached.
    pub async fn group_records(&self, groups: &[&str]) -> Result<Vec<GroupRecord>, StoreError> {
        self.records.of_all(&self.store, groups).await
    }

    /// The gateway is about to change the group or its members, or has changed them: lookups that finished or began before this call are
    /// not used for later requests. Call it before and after each upstream change, including a create, and where the store may have marked
    /// the group as deleted without an answer.
    pub fn group_changed(&self, group: &ChannelId) {
        self.records.invalidate(group);
        self.facts.invalidate(group.as_str());
        if let Mode::Callback(callback) = &self.mode {
            callback.group_changed(group);
        }
    }

    /// The gateway has marked the group as deleted in the store: this replica treats it as deleted from now on.
    pub fn group_deleted(&self, group: &ChannelId) {
        self.records.add(group);
        self.group_changed(group);
    }

    /// Maps WuKongIM's `error` to a user's read of `channel`; `None` means an empty page. [`Denial::Upstream`] with the error itself where
    /// it is not a refusal.
    ///
    /// v3 answers the same for a group without this reader and for a missing group, so its state is looked up.
    pub async fn explain_read_refusal(&self, channel: &Channel, error: &Error) -> Option<Denial> {
        let group = match (error, channel) {
            // A group without messages, which v3 reports only to members, or a pair without messages.
            (Error::Rejected(Rejection::ChannelNotFound), _)
            | (Error::Rejected(Rejection::MembershipRequired), Channel::Person(_)) => return None,
            (Error::Rejected(Rejection::Disbanded), _) => return Some(Denial::ChannelNotFound),
            (Error::Rejected(Rejection::MembershipRequired), Channel::Group(group)) => group,
            _ => return Some(Denial::Upstream(error.clone())),
        };
        Some(match self.facts(FactQuery::State(group.clone())).await {
            Ok(facts) => facts.group_exists().err().unwrap_or(Denial::NotAMember),
            Err(error) => Denial::Unavailable(error),
        })
    }

    async fn authorize(&self, action: Action, user: &Uid, channel: &Channel) -> Result<(), Denial> {
        let group = match channel {
            Channel::Person(peer) => {
                let generation = self.generation().await?;
                if generation == Generation::V3 && action == Action::Send && user == peer {
                    return Err(Denial::ToOneself);
                }
                return self
                    .authorize_with_peer(generation, action, user, peer)
                    .await;
            }
            Channel::Group(group) => group,
        };
        // Groups known to be deleted cause no call to WuKongIM or the store.
        if self.records.is_known_deleted(group) {
            return Err(Denial::ChannelNotFound);
        }
        let allowed = async {
            let generation = self.generation().await?;
            self.authorize_in_group(generation, action, user, group)
                .await
        };
        let (deleted, allowed) = tokio::join!(self.records.is_deleted(group), allowed);
        // The tombstone has precedence: it applies whatever WuKongIM answers, and also if WuKongIM fails.
        if deleted {
            return Err(Denial::ChannelNotFound);
        }
        allowed
    }

    async fn authorize_in_group(
        &self,
        generation: Generation,
        action: Action,
        user: &Uid,
        group: &ChannelId,
    ) -> Result<(), Denial> {
        match (generation, &self.mode) {
            (Generation::V3, _) => Ok(()),
            (Generation::V2, Mode::Open) => {
                let facts = self.facts(FactQuery::State(group.clone())).await;
                let facts = facts.map_err(Denial::Unavailable)?;
                facts.group_exists()?;
                facts.accepts(action)
            }
            (Generation::V2, mode @ (Mode::Members | Mode::Callback(_))) => {
                let by_members = matches!(mode, Mode::Members);
                let query = if by_members {
                    FactQuery::Members(group.clone())
                } else {
                    FactQuery::SendRestrictions(group.clone())
                };
                let (facts, banned) =
                    tokio::try_join!(self.facts(query), self.is_user_banned(user))
                        .map_err(Denial::Unavailable)?;
                facts.group_exists()?;
                if banned {
                    return Err(Denial::Forbidden);
                }
                if by_members {
                    facts.is_subscriber(&self.fingerprints, user)?;
                }
                facts.accepts(action)?;
                facts.lists_permit(&self.fingerprints, user, action)
            }
        }
    }

    async fn authorize_with_peer(
        &self,
        generation: Generation,
        action: Action,
        user: &Uid,
        peer: &Uid,
    ) -> Result<(), Denial> {
        if matches!(self.mode, Mode::Open) || generation == Generation::V3 {
            return Ok(());
        }
        let blocked_by = async {
            Ok(match action {
                // A user may always read its own pairs, unless the user is banned.
                Action::Read => None,
                Action::Send => Some(self.facts(FactQuery::BlockedBy(peer.clone())).await?),
            })
        };
        let (banned, facts) =
            tokio::try_join!(self.is_user_banned(user), blocked_by).map_err(Denial::Unavailable)?;
        if banned {
            return Err(Denial::Forbidden);
        }
        facts.map_or(Ok(()), |facts| {
            facts.lists_permit(&self.fingerprints, user, action)
        })
    }

    async fn generation(&self) -> Result<Generation, Denial> {
        self.client.generation().await.map_err(Denial::Unavailable)
    }

    async fn facts(&self, query: FactQuery) -> Result<Arc<Facts>, Error> {
        let look_up = || {
            let (client, fingerprints, query) = (
                Arc::clone(&self.client),
                self.fingerprints.clone(),
                query.clone(),
            );
            async move {
                // Boxed: the future is large, and is moved several times on its way into the task.
                let facts = Box::pin(Facts::fetch(&client, &fingerprints, &query)).await;
                facts.map(Arc::new)
            }
        };
        self.facts.get(&query, look_up).await
    }

    /// Whether the user is banned, through the cache; never on v3, which has no user bans.
    pub async fn is_user_banned(&self, user: &Uid) -> Result<bool, Error> {
        if self.client.generation().await? == Generation::V3 {
            return Ok(false);
        }
        let look_up = || {
            let (client, user) = (Arc::clone(&self.client), user.clone());
            // Boxed: the future is large, and is moved several times on its way into the task.
            Box::pin(async move { client.user_is_banned(&user).await })
        };
        self.bans.get(user, look_up).await
    }
}
