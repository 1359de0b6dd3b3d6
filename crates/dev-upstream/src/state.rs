//! The stand-in's state, behind one lock.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    Dialect,
    ids::Snowflake,
    keys::Key,
    live::{Outgoing, Pending},
    log::Log,
    presence::Presence,
    rows::Rows,
};

/// The flags of a channel, all written at once by `POST /channel` and `POST /channel/info`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "upstream's own flags, each set on its own"
)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// No user may send.
    pub ban: bool,
    /// The channel is disbanded.
    pub disband: bool,
    /// No member may send; API sends ignore it.
    pub send_ban: bool,
    /// A large group.
    pub large: bool,
    /// Non-contacts may write to this user.
    pub allow_stranger: bool,
}

/// A channel's own record, apart from its members and messages.
#[derive(Debug, Clone)]
pub(super) struct Info {
    /// The id of the last writer: on v2 that can be another one with an equal hash.
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    pub(super) flags: Flags,
    pub(super) created_at: SystemTime,
    pub(super) updated_at: SystemTime,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) uid: Arc<str>,
    /// v3 shows this member nothing older.
    pub(super) join_seq: u64,
}

/// Which of a channel's three lists of uids is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Members,
    Denied,
    Allowed,
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) info: Option<Info>,
    members: BTreeMap<Key, Member>,
    denied: BTreeMap<Key, Member>,
    allowed: BTreeMap<Key, Member>,
    pub(super) log: Log,
    /// A pair's rows were made: they are once, whatever becomes of them.
    pub(super) has_rows: bool,
}

impl Channel {
    pub(super) fn list(&self, list: List) -> &BTreeMap<Key, Member> {
        match list {
            List::Members => &self.members,
            List::Denied => &self.denied,
            List::Allowed => &self.allowed,
        }
    }

    pub(super) fn list_mut(&mut self, list: List) -> &mut BTreeMap<Key, Member> {
        match list {
            List::Members => &mut self.members,
            List::Denied => &mut self.denied,
            List::Allowed => &mut self.allowed,
        }
    }

    pub(super) fn flags(&self) -> Flags {
        self.info
            .as_ref()
            .map_or_else(Flags::default, |info| info.flags)
    }

    pub(super) fn write_info(&mut self, channel_id: &str, channel_type: u8, flags: Flags) {
        let now = SystemTime::now();
        let created_at = self.info.as_ref().map_or(now, |info| info.created_at);
        self.info = Some(Info {
            channel_id: channel_id.to_owned(),
            channel_type,
            flags,
            created_at,
            updated_at: now,
        });
    }

    /// Adds `uids`, and returns how many were new. Existing entries keep their join position.
    pub(super) fn add(&mut self, dialect: Dialect, list: List, uids: &[String]) -> usize {
        let join_seq = self.log.last_seq() + 1;
        let entries = self.list_mut(list);
        let before = entries.len();
        for uid in uids {
            // On v2 a uid with the same hash replaces the other one: rows are keyed by the hash.
            let member = entries
                .entry(dialect.uid_key(uid))
                .or_insert_with(|| Member {
                    uid: uid.as_str().into(),
                    join_seq,
                });
            if *member.uid != *uid.as_str() {
                member.uid = uid.as_str().into();
            }
        }
        entries.len() - before
    }

    /// Removes `uids`, and returns how many were on the list.
    pub(super) fn remove(&mut self, dialect: Dialect, list: List, uids: &[String]) -> usize {
        let entries = self.list_mut(list);
        let before = entries.len();
        for uid in uids {
            entries.remove(&dialect.uid_key(uid));
        }
        before - entries.len()
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dialect: Dialect,
    pub(super) channels: HashMap<Key, Channel>,
    pub(super) rows: Rows,
    pub(super) tokens: HashMap<(Key, u8), String>,
    pub(super) online: Presence,
    pub(super) pending: Pending,
    pub(super) ids: Snowflake,
    pub(super) manager_tokens: HashSet<String>,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) keep: Option<usize>,
    pub(super) visible_after: Duration,
    pub(super) membership_after: Duration,
    /// How many nodes share all this.
    pub(super) nodes: u64,
    /// Only the first node has the messages with greater ids.
    pub(super) copied_up_to: Option<i64>,
    /// v3: the stored ids of the channels whose state no list can get.
    #[cfg(feature = "testing")]
    pub(super) unresolved: HashSet<String>,
}

impl Inner {
    pub(super) fn channel(&self, channel_id: &str, channel_type: u8) -> Option<&Channel> {
        self.channels
            .get(&self.dialect.channel_key(channel_id, channel_type))
    }

    pub(super) fn channel_mut(&mut self, channel_id: &str, channel_type: u8) -> &mut Channel {
        let key = self.dialect.channel_key(channel_id, channel_type);
        self.channels.entry(key).or_default()
    }

    /// The channel with everything stored whose time has come.
    pub(super) fn settled(&mut self, channel_id: &str, channel_type: u8) -> Option<&mut Channel> {
        let key = self.dialect.channel_key(channel_id, channel_type);
        let channel = self.channels.get_mut(&key)?;
        channel.log.settle(Instant::now(), self.keep);
        Some(channel)
    }

    /// The seq of the newest stored message, 0 for none.
    pub(super) fn last_seq(&mut self, channel_id: &str, channel_type: u8) -> u64 {
        let channel = self.settled(channel_id, channel_type);
        channel.map_or(0, |channel| channel.log.last_seq())
    }

    /// Makes the channel the owner of the log under its key if it has none.
    pub(super) fn touch(&mut self, channel_id: &str, channel_type: u8) {
        let log = &mut self.channel_mut(channel_id, channel_type).log;
        log.admit_channel(channel_id, channel_type);
    }

    pub(super) fn flags(&self, channel_id: &str, channel_type: u8) -> Flags {
        self.channel(channel_id, channel_type)
            .map_or_else(Flags::default, Channel::flags)
    }

    /// Whether `uid` is on the list: by the hash alone on v2.
    pub(super) fn listed(&self, channel_id: &str, channel_type: u8, list: List, uid: &str) -> bool {
        self.channel(channel_id, channel_type)
            .is_some_and(|channel| channel.list(list).contains_key(&self.dialect.uid_key(uid)))
    }

    pub(super) fn set_token(&mut self, uid: &str, device_flag: u8, token: String) {
        self.tokens
            .insert((self.dialect.uid_key(uid), device_flag), token);
    }

    /// Clears the token of a device that has one, and ends its connections.
    pub(super) fn quit(&mut self, uid: &str, device_flag: u8) {
        let key = (self.dialect.uid_key(uid), device_flag);
        if let Some(token) = self.tokens.get_mut(&key) {
            token.clear();
            self.kick(uid, device_flag, "");
        }
    }

    /// Ends the connections of a device, on v2 with a DISCONNECT that has this text.
    pub(super) fn kick(&mut self, uid: &str, device_flag: u8, text: &'static str) {
        let last = Outgoing::Kicked(text);
        self.online
            .remove(uid, Some(&last), |online| online.device_flag == device_flag);
    }
}

/// The state of an upstream, for tests.
#[derive(Debug)]
pub struct State {
    inner: Mutex<Inner>,
}

impl State {
    pub(super) fn new(
        dialect: Dialect,
        keep: Option<usize>,
        visible_after: Duration,
        membership_after: Duration,
    ) -> Self {
        let inner = Inner {
            dialect,
            channels: HashMap::new(),
            rows: Rows::new(),
            tokens: HashMap::new(),
            online: Presence::default(),
            pending: Pending::default(),
            ids: Snowflake::default(),
            manager_tokens: HashSet::new(),
            received: 0,
            received_bytes: 0,
            keep,
            visible_after,
            membership_after,
            nodes: 0,
            copied_up_to: None,
            #[cfg(feature = "testing")]
            unresolved: HashSet::new(),
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.lock().dialect
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Replaces the server by an empty one.
    #[cfg(feature = "testing")]
    pub(super) fn replace(&self, dialect: Dialect) {
        let mut inner = self.lock();
        inner.dialect = dialect;
        inner.channels.clear();
        inner.rows.clear();
        inner.tokens.clear();
        inner.online.clear();
        inner.manager_tokens.clear();
    }
}
