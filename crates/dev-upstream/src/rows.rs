//! The conversation rows: one for each user and channel that the user has, with how far it is read and deleted. Both generations keep them
//! outside of the channels, so they survive what happens to those.
//!
//! When a row is made and removed is known here; which rows a list shows, each generation's own file knows.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Dialect,
    ids::{Snowflake, unix_nanos},
    keys::{Key, PERSON},
    state::{Inner, List},
    v2_messages::COMMANDS,
};

/// v2 keeps the rows of a new pair in memory for up to this long.
const SAVED_AFTER: Duration = Duration::from_mins(1);

/// One user's state in one channel.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// A snowflake, which only v2's cluster API shows.
    pub(super) id: i64,
    /// The stored id: `a@b` for persons.
    pub(super) channel_id: Arc<str>,
    pub(super) channel_type: u8,
    pub(super) read_seq: u64,
    pub(super) deleted_to: u64,
    /// Unix nanoseconds.
    pub(super) created_at: i64,
    /// What lists are ordered by, Unix nanoseconds. v2: when it was created, cleared or set. v3: when it was activated, 0 for never.
    pub(super) ordered_at: i64,
    /// v2: since when it is in memory only.
    pub(super) unsaved_since: Option<Instant>,
    /// v3: the user has left, and is told so for ever.
    pub(super) has_left: bool,
}

impl Row {
    fn new(ids: &mut Snowflake, dialect: Dialect, channel_id: &Arc<str>, channel_type: u8) -> Self {
        let now = unix_nanos(SystemTime::now());
        Self {
            id: ids.next(),
            channel_id: channel_id.clone(),
            channel_type,
            read_seq: 0,
            deleted_to: 0,
            created_at: now,
            ordered_at: if dialect == Dialect::V2 { now } else { 0 },
            unsaved_since: None,
            has_left: false,
        }
    }
}

/// All rows: by user, then by channel.
pub(super) type Rows = HashMap<Key, HashMap<Key, Row>>;

impl Inner {
    fn row_keys(&self, uid: &str, channel_id: &str, channel_type: u8) -> (Key, Key) {
        let user = self.dialect.uid_key(uid);
        (user, self.dialect.channel_key(channel_id, channel_type))
    }

    /// All rows of a user, in no order.
    pub(super) fn rows_of(&self, uid: &str) -> impl Iterator<Item = &Row> {
        let rows = self.rows.get(&self.dialect.uid_key(uid));
        rows.into_iter().flat_map(HashMap::values)
    }

    /// v2: saves the user's rows whose time in memory is over. To be called before they are looked at.
    pub(super) fn settle_rows(&mut self, uid: &str) {
        let user = self.dialect.uid_key(uid);
        if let Some(rows) = self.rows.get_mut(&user) {
            save(rows.values_mut(), SAVED_AFTER);
        }
    }

    pub(super) fn row(&self, uid: &str, channel_id: &str, channel_type: u8) -> Option<&Row> {
        let (user, channel) = self.row_keys(uid, channel_id, channel_type);
        self.rows.get(&user)?.get(&channel)
    }

    pub(super) fn row_mut(
        &mut self,
        uid: &str,
        channel_id: &str,
        channel_type: u8,
    ) -> Option<&mut Row> {
        let (user, channel) = self.row_keys(uid, channel_id, channel_type);
        self.rows.get_mut(&user)?.get_mut(&channel)
    }

    /// The row, made where there is none.
    pub(super) fn row_or_new(
        &mut self,
        uid: &str,
        channel_id: &Arc<str>,
        channel_type: u8,
    ) -> &mut Row {
        let (user, channel) = self.row_keys(uid, channel_id, channel_type);
        let (ids, dialect) = (&mut self.ids, self.dialect);
        let rows = self.rows.entry(user).or_default();
        rows.entry(channel)
            .or_insert_with(|| Row::new(ids, dialect, channel_id, channel_type))
    }

    /// Adds `uids` to a list of the channel, and returns how many were new. New members get their rows.
    pub(super) fn add(
        &mut self,
        channel_id: &str,
        channel_type: u8,
        list: List,
        uids: &[String],
    ) -> usize {
        let dialect = self.dialect;
        let channel = self.channel_mut(channel_id, channel_type);
        let last_seq = channel.log.last_seq();
        let added = channel.add(dialect, list, uids);
        if list == List::Members {
            let channel_id = Arc::from(channel_id);
            for uid in uids {
                self.join(uid, &channel_id, channel_type, last_seq);
            }
        }
        added
    }

    /// Gives a new member its row: v2 leaves the newest message unread, v3 hides all that is there.
    fn join(&mut self, uid: &str, channel_id: &Arc<str>, channel_type: u8, last_seq: u64) {
        let known = self.row(uid, channel_id, channel_type);
        if known.is_some_and(|row| !row.has_left) {
            return;
        }
        let (read_seq, deleted_to) = match self.dialect {
            Dialect::V2 => (last_seq.saturating_sub(1), 0),
            Dialect::V3 => (last_seq, last_seq),
        };
        let row = self.row_or_new(uid, channel_id, channel_type);
        row.read_seq = read_seq;
        row.deleted_to = deleted_to;
        row.has_left = false;
    }

    /// Removes `uids` from a list of the channel, and returns how many were on it. v2 removes the rows of members as well.
    pub(super) fn remove(
        &mut self,
        channel_id: &str,
        channel_type: u8,
        list: List,
        uids: &[String],
    ) -> usize {
        let dialect = self.dialect;
        let channel = self.channel_mut(channel_id, channel_type);
        let removed = channel.remove(dialect, list, uids);
        if list == List::Members {
            for uid in uids {
                self.leave(uid, channel_id, channel_type);
            }
        }
        removed
    }

    fn leave(&mut self, uid: &str, channel_id: &str, channel_type: u8) {
        let (user, channel) = self.row_keys(uid, channel_id, channel_type);
        let Some(rows) = self.rows.get_mut(&user) else {
            return;
        };
        match self.dialect {
            Dialect::V2 => {
                rows.remove(&channel);
            }
            Dialect::V3 => {
                if let Some(row) = rows.get_mut(&channel) {
                    row.has_left = true;
                    row.ordered_at = 0;
                }
            }
        }
    }

    /// Empties a list of the channel. Seen: v2 leaves the rows of the members as they are.
    pub(super) fn clear(&mut self, channel_id: &str, channel_type: u8, list: List) {
        let channel = self.channel_mut(channel_id, channel_type);
        let members = std::mem::take(channel.list_mut(list));
        if list == List::Members && self.dialect == Dialect::V3 {
            for member in members.values() {
                self.leave(&member.uid, channel_id, channel_type);
            }
        }
    }

    /// Whether a message may be written to the channel's log. The first one of a pair makes both users' rows.
    pub(super) fn admit(&mut self, channel_id: &str, channel_type: u8, from_uid: &str) -> bool {
        let key = self.dialect.channel_key(channel_id, channel_type);
        let channel = self.channels.entry(key).or_default();
        if !channel.log.admit_channel(channel_id, channel_type) {
            return false;
        }
        if channel_type == PERSON && !std::mem::replace(&mut channel.has_rows, true) {
            self.open_pair(channel_id, from_uid);
        }
        true
    }

    fn open_pair(&mut self, channel_id: &str, from_uid: &str) {
        let (pair, is_command) = match channel_id.strip_suffix(COMMANDS) {
            Some(pair) => (pair, true),
            None => (channel_id, false),
        };
        let (one, other) = pair.split_once('@').unwrap_or((pair, pair));
        let unsaved_since = match self.dialect {
            Dialect::V2 if is_command => return,
            Dialect::V2 => Some(Instant::now()),
            // A conversation with oneself never gets its members.
            Dialect::V3 if one == other => return,
            Dialect::V3 => None,
        };
        let channel_id = Arc::from(channel_id);
        for uid in [one, other] {
            // Seen on v3: a stored command is listed for the receiver.
            let is_left_out = is_command && uid == from_uid;
            if is_left_out || self.row(uid, &channel_id, PERSON).is_some() {
                continue;
            }
            self.row_or_new(uid, &channel_id, PERSON).unsaved_since = unsaved_since;
        }
    }

    /// v2: saves all rows that are in memory, as the end of their minute does.
    #[cfg(feature = "testing")]
    pub(super) fn save_rows(&mut self) {
        let rows = self.rows.values_mut().flat_map(HashMap::values_mut);
        save(rows, Duration::ZERO);
    }

    /// v2: loses the rows that are in memory, as a crash does. Later messages do not bring them back.
    pub(super) fn lose_unsaved_rows(&mut self) {
        for rows in self.rows.values_mut() {
            rows.retain(|_, row| row.unsaved_since.is_none());
        }
    }
}

/// Saves the rows that have been in memory for so long. A saved row is as new as its saving.
fn save<'a>(rows: impl Iterator<Item = &'a mut Row>, after: Duration) {
    for row in rows {
        if row.unsaved_since.is_some_and(|at| at.elapsed() >= after) {
            let now = unix_nanos(SystemTime::now());
            row.unsaved_since = None;
            row.created_at = now;
            row.ordered_at = now;
        }
    }
}
