//! A group's roles and subscribers in the order of their list, compact enough to be cached. Knows nothing of permissions.

use std::sync::Arc;

use super::{MemberPosition, Role};
use crate::authorization::fact_cache::Fact;
use crate::channels::Error;
use crate::domain::{ChannelId, ChannelType, Uid, caps};
use crate::store::{ChannelRecord, Store};
use crate::wukongim::{Client, MemberList};

/// A group's roles and subscribers.
pub(super) struct Directory {
    /// The record's.
    owner: Option<Uid>,
    /// The record's.
    managers: Vec<Uid>,
    /// Whether WuKongIM can list the subscribers.
    pub(super) is_known: bool,
    /// Owner and managers that are subscribers, in the order of the list.
    pub(super) staff: Vec<(Role, String)>,
    /// All other subscribers.
    pub(super) others: SortedUids,
}

impl Fact for Arc<Directory> {
    fn memberships(&self) -> usize {
        let staff: usize = self.staff.iter().map(|(_, uid)| uid.len() + 32).sum();
        (self.others.bytes() + staff) / 8 + self.managers.len() * 4
    }
}

impl Directory {
    pub(super) async fn fetch(
        client: &Client,
        store: &Store,
        group: &ChannelId,
    ) -> Result<Self, Error> {
        let record = store.channel(group).await?;
        if record.as_ref().is_some_and(ChannelRecord::is_deleted) {
            return Err(Error::NotFound);
        }
        let list = client.list(MemberList::Subscribers, ChannelType::Group, group.as_str());
        let (state, list) = tokio::try_join!(client.group_state(group), list)?;
        // On v2 an id with the same hash shows another group's members.
        if !state.exists || state.disbanded {
            return Err(Error::NotFound);
        }
        // A claim gives no role.
        let record = record.filter(ChannelRecord::is_live);
        let (owner, managers) =
            record.map_or_else(Default::default, |record| (record.owner, record.managers));
        Ok(Self::new(owner, managers, list))
    }

    pub(super) fn new(owner: Option<Uid>, managers: Vec<Uid>, list: Option<Vec<String>>) -> Self {
        let is_known = list.is_some();
        let mut uids = list.unwrap_or_default();
        // None that no gateway could have added, so that a cursor is short.
        uids.retain(|uid| !uid.is_empty() && uid.len() <= caps::ID_BYTES);
        uids.sort_unstable();
        uids.dedup();
        let mut directory = Self {
            owner,
            managers,
            is_known,
            staff: Vec::new(),
            others: SortedUids::default(),
        };
        let mut roles: Vec<(&Uid, Role)> = directory
            .managers
            .iter()
            .map(|uid| (uid, Role::Manager))
            .chain(directory.owner.iter().map(|uid| (uid, Role::Owner)))
            .collect();
        roles.sort_unstable();
        let mut staff = Vec::new();
        let mut others = SortedUids::with_room_for(&uids);
        for uid in uids {
            match roles.binary_search_by_key(&&*uid, |(uid, _)| uid.as_str()) {
                Ok(index) => staff.push((roles[index].1, uid)),
                Err(_) => others.push(&uid),
            }
        }
        staff.sort_unstable();
        directory.staff = staff;
        directory.others = others;
        directory
    }

    pub(super) fn len(&self) -> usize {
        self.staff.len() + self.others.len()
    }

    pub(super) fn is_owner(&self, uid: &Uid) -> bool {
        self.owner.as_ref() == Some(uid)
    }

    pub(super) fn has_role(&self, uid: &Uid) -> bool {
        self.is_owner(uid) || self.managers.contains(uid)
    }

    /// Whether the user is a subscriber; `false` where the list is not known.
    pub(super) fn lists(&self, uid: &Uid) -> bool {
        let uid = uid.as_str();
        self.staff.iter().any(|(_, other)| other == uid) || self.others.has(uid)
    }

    /// Where the list continues after this position.
    pub(super) fn after(&self, after: &MemberPosition) -> (usize, usize) {
        let (role, uid) = (after.role, &*after.uid);
        let passed = |(other, text): &(Role, String)| (*other, &**text) <= (role, uid);
        let staff = self.staff.partition_point(passed);
        match role {
            Role::Owner | Role::Manager => (staff, 0),
            // Whoever has become a manager since stands on a page that was given already.
            Role::Member => (self.staff.len(), self.others.first_after(uid)),
        }
    }
}

/// Sorted uids in one text.
#[derive(Default)]
pub(super) struct SortedUids {
    text: String,
    /// Where each one ends.
    ends: Vec<u32>,
}

impl SortedUids {
    fn with_room_for(uids: &[String]) -> Self {
        Self {
            text: String::with_capacity(uids.iter().map(String::len).sum()),
            ends: Vec::with_capacity(uids.len()),
        }
    }

    /// Adds one, which is greater than all before.
    fn push(&mut self, uid: &str) {
        self.text.push_str(uid);
        // The list's own limit is far below 4 GiB.
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.ends.push(end);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<u32>()
    }

    pub(super) fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[index] as usize]
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        let index = self.first_after(uid);
        index > 0 && self.get(index - 1) == uid
    }

    /// The index of the first that is greater.
    fn first_after(&self, uid: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle) <= uid {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
