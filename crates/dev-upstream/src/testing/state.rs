//! Test controls: inspect an upstream's state, or change it without a call.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::super::{
    Dialect,
    ids::unix_seconds,
    keys::{GROUP, PERSON},
    log::Message,
    state::{Flags, List, State},
};

/// A message to store without a call.
#[derive(Debug, Clone, Default)]
pub struct StoredMessage {
    /// The stored id: a group's id, or `a@b`.
    pub channel_id: String,
    /// 1 person, 2 group.
    pub channel_type: u8,
    /// The sender; any uid.
    pub from_uid: String,
    /// Any string, also one used by another sender.
    pub client_msg_no: String,
    /// The payload before base64.
    pub payload: Vec<u8>,
    /// Unix seconds; by default as a send would set it: now on v2, 0 on v3.
    pub timestamp: Option<i32>,
    /// A fresh snowflake id when `None`.
    pub message_id: Option<i64>,
}

impl State {
    /// Sets or removes the ban of a group; creates its record when there is none.
    pub fn ban_group(&self, group_id: &str, banned: bool) {
        self.change_flags(group_id, GROUP, |flags| flags.ban = banned);
    }

    /// Sets or removes the ban of a user.
    pub fn ban_user(&self, uid: &str, banned: bool) {
        self.change_flags(uid, PERSON, |flags| flags.ban = banned);
    }

    /// Disbands a group, as `/channel/delete` does.
    pub fn disband(&self, group_id: &str) {
        self.change_flags(group_id, GROUP, |flags| flags.disband = true);
    }

    fn change_flags(&self, channel_id: &str, channel_type: u8, change: impl FnOnce(&mut Flags)) {
        let mut inner = self.lock();
        let channel = inner.channel_mut(channel_id, channel_type);
        let mut flags = channel.flags();
        change(&mut flags);
        channel.write_info(channel_id, channel_type, flags);
    }

    /// Puts `uid` on the denylist of a group, or of the person `channel_id`.
    pub fn deny(&self, channel_type: u8, channel_id: &str, uid: &str) {
        self.put(channel_type, channel_id, List::Denied, uid);
    }

    /// Puts `uid` on the allowlist of a group: users not on a non-empty allowlist may not send.
    pub fn allow(&self, group_id: &str, uid: &str) {
        self.put(GROUP, group_id, List::Allowed, uid);
    }

    /// Makes `uid` a member of a group without any call.
    pub fn join(&self, group_id: &str, uid: &str) {
        self.put(GROUP, group_id, List::Members, uid);
    }

    /// Removes `uid` from a group without any call.
    pub fn leave(&self, group_id: &str, uid: &str) {
        let uids = [uid.to_owned()];
        let mut inner = self.lock();
        inner.remove(group_id, GROUP, List::Members, &uids);
    }

    fn put(&self, channel_type: u8, channel_id: &str, list: List, uid: &str) {
        let uids = [uid.to_owned()];
        let mut inner = self.lock();
        inner.settled(channel_id, channel_type);
        inner.add(channel_id, channel_type, list, &uids);
    }

    /// The members of a group, in the order upstream lists them.
    pub fn members(&self, group_id: &str) -> Vec<String> {
        let inner = self.lock();
        let members = inner
            .channel(group_id, GROUP)
            .map(|channel| channel.list(List::Members));
        members.map_or_else(Vec::new, |members| {
            members
                .values()
                .map(|member| member.uid.to_string())
                .collect()
        })
    }

    /// The flags of a channel, `None` when upstream has no record of it.
    pub fn flags(&self, channel_type: u8, channel_id: &str) -> Option<Flags> {
        let inner = self.lock();
        let info = inner.channel(channel_id, channel_type)?.info.as_ref()?;
        Some(info.flags)
    }

    /// The stored messages of a channel, oldest first. A pair's id is its stored one, see
    /// [`messages_between`](Self::messages_between).
    pub fn messages(&self, channel_type: u8, channel_id: &str) -> Vec<Arc<Message>> {
        let mut inner = self.lock();
        let channel = inner.settled(channel_id, channel_type);
        channel.map_or_else(Vec::new, |channel| channel.log.iter().cloned().collect())
    }

    /// The stored messages of two persons, oldest first.
    pub fn messages_between(&self, uid: &str, peer: &str) -> Vec<Arc<Message>> {
        let channel_id = self.lock().dialect.person_channel_id(uid, peer);
        self.messages(PERSON, &channel_id)
    }

    /// Stores a message at once and returns its id and seq, without checking permissions, idempotency or the owner of the log.
    pub fn store_message(&self, message: StoredMessage) -> (i64, u64) {
        let mut inner = self.lock();
        let message_id = message.message_id.unwrap_or_else(|| inner.ids.next());
        let own_timestamp = match inner.dialect {
            Dialect::V2 => unix_seconds(SystemTime::now()),
            Dialect::V3 => 0,
        };
        let stored = Message {
            message_id,
            message_seq: 0,
            client_msg_no: message.client_msg_no.into(),
            from_uid: message.from_uid.into(),
            channel_id: message.channel_id.as_str().into(),
            channel_type: message.channel_type,
            red_dot: false,
            sync_once: false,
            expire: 0,
            timestamp: message.timestamp.unwrap_or(own_timestamp),
            payload: STANDARD.encode(&message.payload).into(),
            json: OnceLock::new(),
        };
        let (keep, dialect) = (inner.keep, inner.dialect);
        let (channel_id, channel_type) = (&*message.channel_id, message.channel_type);
        inner.admit(channel_id, channel_type, &stored.from_uid);
        let log = &mut inner.channel_mut(channel_id, channel_type).log;
        let seq = log.store(Instant::now(), stored, keep);
        if dialect == Dialect::V3 {
            log.index_client_msg_no();
        }
        (message_id, seq)
    }

    /// The owner of the log under a channel's key, as `<id>-<type>`, if it has one. A pair is named by its stored id.
    pub fn log_owner(&self, channel_type: u8, channel_id: &str) -> Option<String> {
        let inner = self.lock();
        let channel = inner.channel(channel_id, channel_type)?;
        channel.log.owner().map(str::to_owned)
    }

    /// Makes the channel the owner of the log under its key if it has none, as a client's read would.
    pub fn touch_log(&self, channel_type: u8, channel_id: &str) {
        self.lock().touch(channel_id, channel_type);
    }

    /// The token registered for a device; empty after `device_quit`.
    pub fn token_of(&self, uid: &str, device_flag: u8) -> Option<String> {
        let inner = self.lock();
        let key = (inner.dialect.uid_key(uid), device_flag);
        inner.tokens.get(&key).cloned()
    }

    /// Simulates a connected client.
    pub fn connect(&self, uid: &str, device_flag: u8) {
        self.lock().online.simulate(uid, device_flag);
    }

    /// The number of sends taken so far.
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    /// v2: how long after a send its message is visible, from now on.
    pub fn set_visible_after(&self, visible_after: Duration) {
        self.lock().visible_after = visible_after;
    }

    /// The number of connected clients, after all kicks.
    pub fn connections(&self) -> usize {
        self.lock().online.len()
    }

    /// Removes all data of a group: record, members and messages.
    pub fn forget_channel(&self, group_id: &str) {
        let mut inner = self.lock();
        let key = inner.dialect.channel_key(group_id, GROUP);
        inner.channels.remove(&key);
    }

    /// New messages are stored only on the first node, and shown by v2, until they are replicated or lost.
    pub fn stop_copying(&self) {
        let mut inner = self.lock();
        inner.copied_up_to = Some(inner.ids.next());
    }

    /// Replicates to all nodes what only the first one had.
    pub fn copy(&self) {
        self.lock().copied_up_to = None;
    }

    /// Loses the first node with the messages that only it had; another one becomes the leader.
    pub fn lose_what_is_not_copied(&self) {
        let mut inner = self.lock();
        let (now, keep) = (Instant::now(), inner.keep);
        let Some(copied_up_to) = inner.copied_up_to.take() else {
            return;
        };
        for channel in inner.channels.values_mut() {
            channel.log.settle(now, keep);
            channel.log.cut_above(copied_up_to);
        }
    }
}
