//! Who is online: one entry a connection, with the queue that its session writes from.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::live::Outgoing;

/// How many messages wait for a client that does not read before its connection is closed; a real server counts bytes.
const MAX_QUEUED: usize = 10_000;

/// One connection of a user.
#[derive(Debug)]
pub(super) struct Online {
    pub(super) id: u64,
    pub(super) device_flag: u8,
    pub(super) device_id: Box<str>,
    /// Missing where a test only says that somebody is online.
    queue: Option<mpsc::Sender<Outgoing>>,
}

/// All connections by uid. A session ends when its entry is removed.
#[derive(Debug, Default)]
pub(super) struct Presence {
    users: HashMap<Box<str>, Vec<Online>>,
    connections: usize,
    last_id: u64,
}

impl Presence {
    /// Adds a connection: its id, and what is to be written to it until it is removed.
    pub(super) fn add(
        &mut self,
        uid: &str,
        device_flag: u8,
        device_id: &str,
    ) -> (u64, mpsc::Receiver<Outgoing>) {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        (
            self.insert(uid, device_flag, device_id, Some(sender)),
            queue,
        )
    }

    /// Adds a connection that nothing is written to.
    #[cfg(feature = "testing")]
    pub(super) fn simulate(&mut self, uid: &str, device_flag: u8) {
        self.insert(uid, device_flag, "", None);
    }

    fn insert(
        &mut self,
        uid: &str,
        device_flag: u8,
        device_id: &str,
        queue: Option<mpsc::Sender<Outgoing>>,
    ) -> u64 {
        self.last_id += 1;
        self.connections += 1;
        self.users.entry(uid.into()).or_default().push(Online {
            id: self.last_id,
            device_flag,
            device_id: device_id.into(),
            queue,
        });
        self.last_id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections == 0
    }

    /// The number of connections.
    pub(super) fn len(&self) -> usize {
        self.connections
    }

    pub(super) fn of(&self, uid: &str) -> &[Online] {
        self.users.get(uid).map_or(&[], Vec::as_slice)
    }

    /// Removes the connections of `uid` that `ends` says, after `last` has been queued for them.
    pub(super) fn remove(
        &mut self,
        uid: &str,
        last: Option<&Outgoing>,
        ends: impl Fn(&Online) -> bool,
    ) {
        self.retain(uid, |online| {
            let ends = ends(online);
            if let (true, Some(last), Some(queue)) = (ends, last, &online.queue) {
                // A full queue is closed without it.
                let _ = queue.try_send(last.clone());
            }
            !ends
        });
    }

    /// Queues `outgoing` for all connections of `uid` but one, and removes those whose queue is full.
    pub(super) fn queue(&mut self, uid: &str, outgoing: &Outgoing, except: Option<u64>) {
        self.retain(uid, |online| {
            let queue = online.queue.as_ref().filter(|_| Some(online.id) != except);
            queue.is_none_or(|queue| queue.try_send(outgoing.clone()).is_ok())
        });
    }

    fn retain(&mut self, uid: &str, stays: impl FnMut(&Online) -> bool) {
        let Some(connections) = self.users.get_mut(uid) else {
            return;
        };
        let before = connections.len();
        connections.retain(stays);
        self.connections -= before - connections.len();
        if connections.is_empty() {
            self.users.remove(uid);
        }
    }

    /// Removes all connections.
    #[cfg(feature = "testing")]
    pub(super) fn clear(&mut self) {
        self.users.clear();
        self.connections = 0;
    }
}
