//! CONNECT: who is let in, and the keys of the connection.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;
use wkproto::{Cipher, Connack, Connect, Frame, KeyPair, Reason, V2_VERSION, V3_VERSION};

use super::is_v2;
use crate::{
    cluster::FIRST,
    ids::unix_ms,
    keys::{PERSON, SYSTEM_DEVICE, SYSTEM_UID},
    live::Outgoing,
    server::Shared,
    state::State,
};

/// The uid for which v2 compares the manager token, and ends where it is another one.
const MANAGER_UID: &str = "____manager";
/// v2 asks uids with this ending for no token.
const VISITOR: &str = "___vstr";
/// v2 closes an older connection with the same device id this much later (read in the source).
const SAME_DEVICE: Duration = Duration::from_secs(2);

/// A client that was let in.
pub(crate) struct Client {
    pub(super) uid: String,
    /// The lower version of both sides.
    pub(super) version: u8,
    /// Whether no permission is checked for it: it claims to be the system or its device.
    pub(super) is_trusted: bool,
    /// v2 never answers a SEND of the system's device.
    pub(super) is_system_device: bool,
    pub(super) cipher: Cipher,
    pub(super) online: OnlineGuard,
    pub(super) queue: mpsc::Receiver<Outgoing>,
}

/// A client's entry in the online table, which it takes off when the session ends, however that ends.
pub(super) struct OnlineGuard {
    state: Arc<State>,
    uid: Box<str>,
    pub(super) id: u64,
}

impl Drop for OnlineGuard {
    fn drop(&mut self) {
        let online = &mut self.state.lock().online;
        online.remove(&self.uid, None, |online| online.id == self.id);
    }
}

/// What becomes of a CONNECT.
pub(crate) enum Connected {
    /// The CONNACK, and who it is.
    Welcome(Vec<u8>, Box<Client>),
    /// The CONNACK; then closed.
    Refused(Vec<u8>),
    /// Nothing is ever said; v2 closes when it has waited long enough.
    Silence,
    /// Closed at once.
    Closed,
    /// The server ends.
    Crash,
}

/// Judges a CONNECT, and adds the client to the online table.
pub(crate) fn connect(shared: &Shared, frame: Frame<'_>) -> Connected {
    let Ok(connect) = Connect::parse(frame) else {
        return Connected::Closed;
    };
    let Ok(uid) = std::str::from_utf8(connect.uid) else {
        return Connected::Closed;
    };
    let is_v2 = is_v2(shared);
    if is_v2 && let Some(refused) = refused_by_v2(shared, &connect, uid) {
        return refused;
    }
    let salt = &uuid::Uuid::new_v4().simple().to_string()[..16];
    let agreed = KeyPair::generate().and_then(|own| {
        let cipher = own.agree(connect.client_key, salt)?;
        Ok((own, cipher))
    });
    let Ok((own, cipher)) = agreed else {
        let reason = if connect.client_key.is_empty() {
            Reason::CLIENT_KEY_EMPTY
        } else {
            Reason::AUTH_FAIL
        };
        // v2 panics here, and closes.
        return if is_v2 {
            Connected::Closed
        } else {
            refused_by_v3(connect.version, reason)
        };
    };
    let latest = if is_v2 { V2_VERSION } else { V3_VERSION };
    let version = connect.version.min(latest);
    let node = if is_v2 {
        shared.node
    } else {
        shared.node - FIRST + 1
    };
    let connack = Connack {
        server_version: (version > 3).then_some(version),
        time_diff: unix_ms(SystemTime::now()).saturating_sub(connect.client_timestamp),
        reason: Reason::SUCCESS,
        server_key: own.public_key(),
        salt,
        node_id: node,
    };
    let mut out = Vec::new();
    if connack.write(version, &mut out).is_err() {
        return Connected::Closed;
    }
    if is_v2 {
        close_same_device(shared, uid, &connect);
    }
    let mut inner = shared.state.lock();
    let (id, queue) = inner
        .online
        .add(uid, connect.device_flag, connect.device_id);
    drop(inner);
    let is_system_device = connect.device_id == SYSTEM_DEVICE;
    let client = Client {
        uid: uid.to_owned(),
        version,
        is_trusted: is_system_device || uid == SYSTEM_UID,
        is_system_device,
        cipher,
        online: OnlineGuard {
            state: shared.state.clone(),
            uid: uid.into(),
            id,
        },
        queue,
    };
    Connected::Welcome(out, Box::new(client))
}

/// v2 answers none of its refusals.
fn refused_by_v2(shared: &Shared, connect: &Connect<'_>, uid: &str) -> Option<Connected> {
    if uid.contains(['@', '#', '&']) {
        return Some(Connected::Closed);
    }
    let inner = shared.state.lock();
    if uid == MANAGER_UID {
        let wrong = shared.manager_token.as_deref();
        if wrong.is_some_and(|token| token != connect.token) {
            return Some(Connected::Crash);
        }
    } else if shared.token_auth && !uid.ends_with(VISITOR) {
        let key = (inner.dialect.uid_key(uid), connect.device_flag);
        let token = inner.tokens.get(&key).map(String::as_str);
        if connect.token.is_empty() || token != Some(connect.token) {
            return Some(Connected::Silence);
        }
    }
    inner.flags(uid, PERSON).ban.then_some(Connected::Silence)
}

fn close_same_device(shared: &Shared, uid: &str, connect: &Connect<'_>) {
    let inner = shared.state.lock();
    let older: Vec<u64> = inner
        .online
        .of(uid)
        .iter()
        .filter(|online| {
            online.device_flag == connect.device_flag && *online.device_id == *connect.device_id
        })
        .map(|online| online.id)
        .collect();
    drop(inner);
    if older.is_empty() {
        return;
    }
    let (state, uid) = (shared.state.clone(), uid.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(SAME_DEVICE).await;
        let online = &mut state.lock().online;
        online.remove(&uid, None, |online| older.contains(&online.id));
    });
}

/// v3's refusals have no server version, whatever the client's.
fn refused_by_v3(version: u8, reason: Reason) -> Connected {
    let connack = Connack {
        server_version: None,
        time_diff: 0,
        reason,
        server_key: "",
        salt: "",
        node_id: 0,
    };
    let mut out = Vec::new();
    match connack.write(version, &mut out) {
        Ok(()) => Connected::Refused(out),
        Err(_) => Connected::Closed,
    }
}
