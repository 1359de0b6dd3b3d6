//! Who may read and send: one policy, and the cache of what it goes by. Knows no HTTP and makes no change.
//!
//! WuKongIM v2 checks nothing of a call that comes over HTTP, so the gateway does; v3 checks by itself, so the gateway only
//! keeps deleted ids closed and says what v3's refusals mean. Who owns a group and who may change it is not decided here.
//!
//! | asked first | `members`, v2 | `callback`, v2 | `open`, v2 | v3, all modes |
//! |---|---|---|---|---|
//! | 1 the id was deleted (store) | `ChannelNotFound` | the same | the same | the same |
//! | 2 no such group, or disbanded | `ChannelNotFound` | the same | the same | v3 says |
//! | 3 the user is banned | `Forbidden` | the same | – | – (v3 knows no such ban) |
//! | 4 no subscriber | `NotAMember` | – | – | v3 says |
//! | 5 the group is banned, sending | `ChannelBanned` | the same | the same | v3 says |
//! | 6 on the group's or peer's denylist, sending | `Blocked` | the same | – | v3 says |
//! | 7 an allowlist without him, sending | `Forbidden` | the same | – | v3 says |
//! | 8 the application's backend says no | – | `Refused` | – | `Refused` in `callback` |
//!
//! `open` is the reference's literal reading: any valid token may do anything, so the lists and the user's ban are not even
//! asked for. What is left there is no matter of permission: v2 would silently drop what is sent to a banned or disbanded
//! group, and would store what is sent to a group that never was.
//!
//! `callback` leaves membership to the application's backend, which is asked last: what would be refused anyway it is not
//! asked. v3 goes on refusing those who are no subscribers.

mod audit;
pub mod callback;
mod denial;
mod facts;
mod fingerprints;
mod lookups;
mod tombstones;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use audit::Audit;
pub use denial::Denial;

use crate::domain::{Channel, ChannelId, Uid};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Error, Generation, Rejection};
use callback::Callback;
use facts::{Action, Banned, Caller, Facts, Question};
use fingerprints::Fingerprints;
use lookups::Lookups;
use tombstones::Tombstones;

/// For how long a permit needs no second look, where the gateway has changed nothing: longer than a send takes on its way.
const FRESH: Duration = Duration::from_secs(1);

/// Whose word counts.
#[derive(Debug, Clone)]
pub enum Mode {
    /// WuKongIM's lists: subscribers read and send, denylists and allowlists are kept to.
    Members,
    /// Any valid token may do anything in a group that exists.
    Open,
    /// The backend's, beside WuKongIM's denylists, allowlists and bans.
    Callback(Arc<Callback>),
}

/// The policy's settings.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whose word counts.
    pub mode: Mode,
    /// For how long an answer is believed, counted from when it was asked for.
    pub cache_ttl: Duration,
    /// How many memberships are kept (8 bytes each; a channel by itself counts as sixteen). The banned users and the deleted
    /// ids have tables of their own, each bounded in the same unit. A group that needs more than a quarter of it is looked up
    /// for each question, once for all who ask at the same time.
    pub cache_members: usize,
}

/// That somebody may send to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// By whose rules it was decided: what was left to v3 must not go to v2.
    pub generation: Generation,
    /// The channel's version when it was asked for.
    version: u64,
    asked: Instant,
}

/// The policy and what it knows. Shared by everything that reads or sends.
pub struct Authorization {
    client: Arc<Client>,
    mode: Mode,
    fingerprints: Fingerprints,
    facts: Arc<Lookups<Question, Arc<Facts>, Error>>,
    bans: Arc<Lookups<Caller, Banned, Error>>,
    tombstones: Tombstones,
}

impl Authorization {
    /// The policy over this WuKongIM and this store. Nothing is asked yet.
    pub fn new(
        client: Arc<Client>,
        store: Arc<Store>,
        rules: Rules,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Rules {
            mode,
            cache_ttl: ttl,
            cache_members: size,
        } = rules;
        Self {
            client,
            mode,
            fingerprints: Fingerprints::default(),
            facts: Lookups::new("members", ttl, size, Error::Lost, Arc::clone(&metrics)),
            bans: Lookups::new("bans", ttl, size, Error::Lost, Arc::clone(&metrics)),
            tombstones: Tombstones::new(store, ttl, size, metrics),
        }
    }

    /// How many facts are kept, by cache.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![self.facts.size(), self.bans.size(), self.tombstones.size()];
        if let Mode::Callback(callback) = &self.mode {
            sizes.push(callback.size());
        }
        sizes
    }

    /// Whether `sender` may send to `channel`, as far as that can be told before the send: v3 tells the rest in its answer,
    /// see [`Denial::of_send_refusal`]. `actor` is the admin who sends for him.
    pub async fn may_send(
        &self,
        sender: &Uid,
        actor: Option<&Uid>,
        channel: &Channel,
    ) -> Result<Permit, Denial> {
        // Before anything is asked: what changes meanwhile ends the permit.
        let (version, asked) = (self.facts.version_of(channel.id()), Instant::now());
        let generation = self.may(Action::Send, sender, channel).await?;
        let action = callback::Action::MessageSend;
        self.ask(action, sender, actor, channel).await?;
        Ok(Permit {
            generation,
            version,
            asked,
        })
    }

    /// Whether what was permitted then is permitted still, without asking: it was a moment ago, and the gateway has changed nothing
    /// of the channel since.
    pub fn still_holds(&self, permit: Permit, channel: &Channel) -> bool {
        permit.asked.elapsed() < FRESH && permit.version == self.facts.version_of(channel.id())
    }

    /// Whether `reader` may read `channel`, and by whose rules, as in [`Self::may_send`]; what v3 says to the reading itself,
    /// [`Self::explain_read_refusal`] explains.
    pub async fn may_read(&self, reader: &Uid, channel: &Channel) -> Result<Generation, Denial> {
        let permitted_by = self.may(Action::Read, reader, channel).await?;
        let action = callback::Action::MessageSync;
        self.ask(action, reader, None, channel).await?;
        Ok(permitted_by)
    }

    /// The backend's word, where it counts.
    async fn ask(
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

    /// Whether `user` may see what the gateway itself knows of the group: its subscribers may, or whom the backend lets.
    pub async fn may_see(&self, user: &Uid, group: &ChannelId) -> Result<(), Denial> {
        let channel = Channel::Group(group.clone());
        let permitted_by = self.may(Action::Read, user, &channel).await?;
        match (&self.mode, permitted_by) {
            (Mode::Callback(_), _) => {
                let action = callback::Action::ChannelInfo;
                return self.ask(action, user, None, &channel).await;
            }
            (Mode::Open, _) | (Mode::Members, Generation::V2) => return Ok(()),
            (Mode::Members, Generation::V3) => {}
        }
        // v3 is not asked for anything here to which it could say no itself.
        match self.client.is_subscriber(user, group).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::NotAMember),
            Err(error) => Err(Denial::Unavailable(error)),
        }
    }

    /// Whether `user` is known to be no subscriber of a group that is there: by what is remembered or looked up for all who ask, or by
    /// a question about him alone. `false` where neither tells (v3 without its manager port) or WuKongIM does not answer.
    pub async fn is_outsider(&self, user: &Uid, group: &ChannelId) -> bool {
        match self.generation().await {
            Ok(Generation::V2) => {
                let facts = self.facts(Question::Members(group.clone())).await;
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

    /// The gateway has changed the group or its members, or begins to: from this moment nobody is answered from what was
    /// looked up, or began to be looked up, before. To be called before and after each change upstream, a create included, and
    /// where the store may have marked the group as deleted without having said so.
    pub fn group_changed(&self, group: &ChannelId) {
        self.tombstones.doubt(group);
        self.facts.changed(&Question::Members(group.clone()));
        self.facts.changed(&Question::Silenced(group.clone()));
        self.facts.changed(&Question::State(group.clone()));
        if let Mode::Callback(callback) = &self.mode {
            callback.group_changed(group);
        }
    }

    /// The gateway has marked the group as deleted in the store: this replica knows it from this moment on.
    pub fn group_deleted(&self, group: &ChannelId) {
        self.tombstones.add(group);
        self.group_changed(group);
    }

    /// What WuKongIM's `error` as the answer to a user's reading of `channel` means; `None`: there is nothing to read, the page
    /// is empty. [`Denial::Upstream`] where it is no refusal, with the error as it came.
    ///
    /// v3 says the same of a group the reader is not in and of one that is not there: which it is, is asked.
    pub async fn explain_read_refusal(&self, channel: &Channel, error: &Error) -> Option<Denial> {
        let group = match (error, channel) {
            // A group without messages, told to its members alone; a pair that never spoke.
            (Error::Rejected(Rejection::ChannelNotFound), _)
            | (Error::Rejected(Rejection::MembershipRequired), Channel::Person(_)) => return None,
            (Error::Rejected(Rejection::Disbanded), _) => return Some(Denial::ChannelNotFound),
            (Error::Rejected(Rejection::MembershipRequired), Channel::Group(group)) => group,
            _ => return Some(Denial::Upstream(error.clone())),
        };
        Some(match self.facts(Question::State(group.clone())).await {
            Ok(facts) => facts.group_exists().err().unwrap_or(Denial::NotAMember),
            Err(error) => Denial::Unavailable(error),
        })
    }

    async fn may(
        &self,
        action: Action,
        user: &Uid,
        channel: &Channel,
    ) -> Result<Generation, Denial> {
        let group = match channel {
            Channel::Person(peer) => {
                let generation = self.generation().await?;
                if generation == Generation::V3 && action == Action::Send && user == peer {
                    return Err(Denial::ToOneself);
                }
                self.may_with(generation, action, user, peer).await?;
                return Ok(generation);
            }
            Channel::Group(group) => group,
        };
        // Neither WuKongIM nor the store is troubled with what is known to be gone.
        if self.tombstones.has(group) {
            return Err(Denial::ChannelNotFound);
        }
        let allowed = async {
            let generation = self.generation().await?;
            self.may_in(generation, action, user, group).await?;
            Ok(generation)
        };
        let (deleted, allowed) = tokio::join!(self.tombstones.is_deleted(group), allowed);
        // The tombstone counts first: it holds whatever WuKongIM says, and while it says nothing.
        if deleted {
            return Err(Denial::ChannelNotFound);
        }
        allowed
    }

    async fn may_in(
        &self,
        generation: Generation,
        action: Action,
        user: &Uid,
        group: &ChannelId,
    ) -> Result<(), Denial> {
        match (generation, &self.mode) {
            (Generation::V3, _) => Ok(()),
            (Generation::V2, Mode::Open) => {
                let facts = self.facts(Question::State(group.clone())).await;
                let facts = facts.map_err(Denial::Unavailable)?;
                facts.group_exists()?;
                facts.group_is_open(action)
            }
            (Generation::V2, mode @ (Mode::Members | Mode::Callback(_))) => {
                let by_members = matches!(mode, Mode::Members);
                let question = if by_members {
                    Question::Members(group.clone())
                } else {
                    Question::Silenced(group.clone())
                };
                let (facts, banned) = tokio::try_join!(self.facts(question), self.is_banned(user))
                    .map_err(Denial::Unavailable)?;
                facts.group_exists()?;
                if banned {
                    return Err(Denial::Forbidden);
                }
                if by_members {
                    facts.is_subscriber(&self.fingerprints, user)?;
                }
                facts.group_is_open(action)?;
                facts.is_let_through(&self.fingerprints, user, action)
            }
        }
    }

    async fn may_with(
        &self,
        generation: Generation,
        action: Action,
        user: &Uid,
        peer: &Uid,
    ) -> Result<(), Denial> {
        if matches!(self.mode, Mode::Open) || generation == Generation::V3 {
            return Ok(());
        }
        let (banned, facts) = match action {
            // The caller's own pair: nothing can stand against reading it but his own ban.
            Action::Read => (self.is_banned(user).await, None),
            Action::Send => {
                let asked = tokio::try_join!(
                    self.is_banned(user),
                    self.facts(Question::BlockedBy(peer.clone()))
                );
                match asked {
                    Ok((banned, facts)) => (Ok(banned), Some(facts)),
                    Err(error) => (Err(error), None),
                }
            }
        };
        if banned.map_err(Denial::Unavailable)? {
            return Err(Denial::Forbidden);
        }
        facts.map_or(Ok(()), |facts| {
            facts.is_let_through(&self.fingerprints, user, action)
        })
    }

    async fn generation(&self) -> Result<Generation, Denial> {
        self.client.generation().await.map_err(Denial::Unavailable)
    }

    async fn facts(&self, question: Question) -> Result<Arc<Facts>, Error> {
        let look_up = || {
            let (client, fingerprints, question) = (
                Arc::clone(&self.client),
                self.fingerprints.clone(),
                question.clone(),
            );
            async move {
                // In a box: it asks much at once, and is moved several times on the way into its task.
                let facts = Box::pin(Facts::ask(&client, &fingerprints, &question)).await;
                facts.map(Arc::new)
            }
        };
        self.facts.get(&question, look_up).await
    }

    async fn is_banned(&self, user: &Uid) -> Result<bool, Error> {
        let look_up = || {
            let (client, user) = (Arc::clone(&self.client), user.clone());
            async move { client.user_is_banned(&user).await.map(Banned) }
        };
        let Banned(banned) = self.bans.get(&Caller(user.clone()), look_up).await?;
        Ok(banned)
    }
}
