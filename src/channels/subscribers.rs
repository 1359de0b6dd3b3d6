//! The members of a group, page by page: the owner first, then the managers, then by uid. Changes nothing.

mod directory;

use std::sync::Arc;
use std::time::Duration;

use super::{Actor, Error};
use crate::authorization::fact_cache::FactCache;
use crate::authorization::{Authorization, Denial};
use crate::config::{MembersVisible, Mode};
use crate::domain::{ChannelId, ConversationKey};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::wukongim::{self, Client};
use directory::Directory;

/// A subscriber's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The owner.
    Owner,
    /// A manager.
    Manager,
    /// Any other subscriber.
    Member,
}

impl Role {
    /// All roles, in the order of the list.
    const ALL: [Self; 3] = [Self::Owner, Self::Manager, Self::Member];
}

/// The last subscriber of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPosition {
    role: Role,
    uid: String,
}

impl MemberPosition {
    /// The position as bytes, at most 256.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[self.role as u8], self.uid.as_bytes()].concat()
    }

    /// Reads [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (role, uid) = bytes.split_first()?;
        let uid = std::str::from_utf8(uid).ok()?.to_owned();
        let role = *Role::ALL.get(usize::from(*role))?;
        Some(Self { role, uid })
    }
}

/// A page of a group's subscribers.
pub struct MemberPage {
    directory: Arc<Directory>,
    staff: std::ops::Range<usize>,
    others: std::ops::Range<usize>,
}

impl MemberPage {
    /// The subscribers with their roles, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Role)> {
        let staff = self.directory.staff[self.staff.clone()].iter();
        let staff = staff.map(|(role, uid)| (&**uid, *role));
        let others = self.others.clone();
        staff.chain(others.map(|index| (self.directory.others.get(index), Role::Member)))
    }

    /// How many subscribers the group has.
    pub fn total(&self) -> usize {
        self.directory.len()
    }

    /// The last one, if more follow.
    pub fn next(&self) -> Option<MemberPosition> {
        let is_last = self.others.end == self.directory.others.len()
            && self.staff.end == self.directory.staff.len();
        let (uid, role) = self.iter().last().filter(|_| !is_last)?;
        let uid = uid.to_owned();
        Some(MemberPosition { role, uid })
    }
}

/// Lists the subscribers of groups. Shared by all requests.
pub struct Subscribers {
    client: Arc<Client>,
    store: Arc<Store>,
    authorization: Arc<Authorization>,
    channel_limiter: Arc<ChannelLimiter>,
    directories: Arc<FactCache<ChannelId, Arc<Directory>, Arc<Error>>>,
    mode: Mode,
    visible: MembersVisible,
}

/// What decides about the list of subscribers.
#[derive(Debug, Clone, Copy)]
pub struct SubscriberRules {
    /// The mode of authorization.
    pub mode: Mode,
    /// Who sees the list.
    pub visible: MembersVisible,
    /// How long a list is cached.
    pub cache_ttl: Duration,
    /// How many memberships are cached, each as eight bytes.
    pub cache_members: usize,
}

impl Subscribers {
    /// The subscribers of all groups.
    pub fn new(
        client: Arc<Client>,
        store: Arc<Store>,
        authorization: Arc<Authorization>,
        channel_limiter: Arc<ChannelLimiter>,
        rules: SubscriberRules,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (ttl, size) = (rules.cache_ttl, rules.cache_members);
        let lost = Arc::new(Error::Interrupted);
        Arc::new(Self {
            client,
            store,
            authorization,
            channel_limiter,
            directories: FactCache::new("subscribers", ttl, size, lost, metrics),
            mode: rules.mode,
            visible: rules.visible,
        })
    }

    /// As [`FactCache::size`].
    pub fn size(&self) -> (&'static str, usize) {
        self.directories.size()
    }

    /// The gateway is about to change the group's members or roles, or has. Must not block.
    pub fn group_changed(&self, group: &ChannelId) {
        self.directories.invalidate(group.as_str());
    }

    /// At most `limit` (1 or more) subscribers of `group` after `after`; for its subscribers, its owner, and admins.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`], [`Error::NotSupported`] on v3 without its manager port, in this order.
    pub async fn page(
        &self,
        actor: Actor<'_>,
        group: &ChannelId,
        after: Option<&MemberPosition>,
        limit: usize,
    ) -> Result<MemberPage, Error> {
        let conversation = ConversationKey::Group(group.clone());
        let permit = self.channel_limiter.try_acquire(&conversation);
        let _permit = permit.ok_or(wukongim::Error::Busy)?;
        let directory = self.directory(group).await?;
        self.authorize(actor, group, &directory).await?;
        if !directory.is_known {
            return Err(Error::NotSupported);
        }
        let (staff, others) = (directory.staff.len(), directory.others.len());
        let (first, first_other) = after.map_or((0, 0), |after| directory.after(after));
        let staff = first..staff.min(first + limit);
        let others = first_other..others.min(first_other + limit - staff.len());
        Ok(MemberPage {
            directory,
            staff,
            others,
        })
    }

    /// Whether the actor may see the list.
    async fn authorize(
        &self,
        actor: Actor<'_>,
        group: &ChannelId,
        directory: &Directory,
    ) -> Result<(), Error> {
        let is_banned = self.authorization.is_user_banned(actor.uid).await;
        if is_banned.map_err(Denial::Unavailable)? {
            return Err(Denial::Forbidden.into());
        }
        let is_permitted = actor.is_admin || directory.is_owner(actor.uid);
        // The list is cached like membership, so it decides as well as a lookup.
        if self.mode != Mode::Members || !(is_permitted || directory.lists(actor.uid)) {
            self.authorization
                .may_list_members(actor.uid, group)
                .await?;
        }
        // In mode `callback` the backend decides instead of the roles.
        let is_hidden = self.visible == MembersVisible::Managers && self.mode != Mode::Callback;
        if is_hidden && !(actor.is_admin || directory.has_role(actor.uid)) {
            return Err(Denial::Forbidden.into());
        }
        Ok(())
    }

    async fn directory(&self, group: &ChannelId) -> Result<Arc<Directory>, Error> {
        let look_up = || {
            let (client, store, group) = (
                Arc::clone(&self.client),
                Arc::clone(&self.store),
                group.clone(),
            );
            async move {
                let directory = Directory::fetch(&client, &store, &group).await;
                directory.map(Arc::new).map_err(Arc::new)
            }
        };
        let directory = self.directories.get(group, look_up).await;
        directory.map_err(|error| match &*error {
            Error::NotFound => Error::NotFound,
            Error::Upstream(error) => error.clone().into(),
            Error::Store(error) => StoreError::Unavailable(error.to_string().into()).into(),
            _ => Error::Interrupted,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Uid;

    fn uid(text: &str) -> Uid {
        Uid::parse(text, 99).unwrap()
    }

    fn page(
        directory: &Arc<Directory>,
        after: Option<&MemberPosition>,
        limit: usize,
    ) -> MemberPage {
        let (first, first_other) = after.map_or((0, 0), |after| directory.after(after));
        let staff = first..directory.staff.len().min(first + limit);
        let others = first_other
            ..directory
                .others
                .len()
                .min(first_other + limit - staff.len());
        MemberPage {
            directory: directory.clone(),
            staff,
            others,
        }
    }

    proptest! {
        #[test]
        fn pages_of_any_size_give_each_subscriber_once_and_in_order(
            members in proptest::collection::hash_set("[a-f]{1,2}", 0..30),
            managers in proptest::collection::hash_set("[a-f]{1,2}", 0..6),
            limit in 1_usize..9,
        ) {
            let owner = uid("owner");
            let mut list: Vec<String> = members.iter().cloned().collect();
            list.push("owner".into());
            let roles = managers.iter().map(|text| uid(text)).collect();
            let directory = Directory::new(Some(owner), roles, Some(list));
            let directory = Arc::new(directory);
            for uid in members.iter().chain(&managers) {
                let is_other = members.contains(uid) && !managers.contains(uid);
                prop_assert_eq!(directory.others.has(uid), is_other);
            }
            let mut expected = vec![("owner".to_owned(), Role::Owner)];
            for role in [Role::Manager, Role::Member] {
                let is_it = |member: &&String| managers.contains(*member) == (role == Role::Manager);
                let mut some: Vec<String> = members.iter().filter(is_it).cloned().collect();
                some.sort();
                expected.extend(some.into_iter().map(|uid| (uid, role)));
            }
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = page(&directory, after.as_ref(), limit);
                prop_assert_eq!(page.total(), expected.len());
                found.extend(page.iter().map(|(uid, role)| (uid.to_owned(), role)));
                prop_assert!(found.len() <= expected.len());
                match page.next() {
                    None => break,
                    next => {
                        prop_assert_eq!(page.iter().count(), limit);
                        let bytes = next.unwrap().to_bytes();
                        after = MemberPosition::from_bytes(&bytes);
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
