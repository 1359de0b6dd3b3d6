//! Who may send where: v2's rules for sockets (its API checks nothing), and v3's for both.

use wkproto::Reason;

use super::{
    keys::{GROUP, PERSON, SYSTEM_UID},
    state::{Inner, List},
};

const CUSTOMER_SERVICE: u8 = 3;
const INFORMATION: u8 = 6;
const VISITORS: u8 = 10;
const AGENT: u8 = 11;
/// v2: ban and disband do not apply to them.
pub(super) const PUBLIC_TYPES: [u8; 4] = [CUSTOMER_SERVICE, INFORMATION, VISITORS, AGENT];

/// v2's answer to a SEND on a socket, after the sender's own ban on sending.
pub(super) fn v2(
    inner: &Inner,
    stored_id: &str,
    channel_type: u8,
    from_uid: &str,
    trusted: bool,
) -> Reason {
    let flags = inner.flags(stored_id, channel_type);
    if !PUBLIC_TYPES.contains(&channel_type) {
        if flags.ban {
            return Reason::BAN;
        }
        if flags.disband {
            return Reason::DISBAND;
        }
    }
    // Seen: strangers write to 3, 6 and 11.
    let is_open = matches!(channel_type, CUSTOMER_SERVICE | INFORMATION | AGENT);
    let is_own = channel_type == VISITORS && from_uid == stored_id;
    if is_open || is_own || trusted {
        return Reason::SUCCESS;
    }
    if channel_type == PERSON {
        let receiver = peer(stored_id, from_uid);
        let denied =
            receiver != SYSTEM_UID && inner.listed(receiver, PERSON, List::Denied, from_uid);
        return if denied {
            Reason::IN_BLACKLIST
        } else {
            Reason::SUCCESS
        };
    }
    by_lists(inner, stored_id, channel_type, from_uid)
}

/// v3's answer to a message, over its API as well.
pub(super) fn v3(
    inner: &Inner,
    stored_id: &str,
    channel_type: u8,
    from_uid: &str,
    trusted: bool,
) -> Reason {
    let channel = inner.channel(stored_id, channel_type);
    let known = channel.is_some_and(|channel| channel.info.is_some());
    let flags = inner.flags(stored_id, channel_type);
    if from_uid != SYSTEM_UID && inner.flags(from_uid, PERSON).send_ban {
        return Reason::SEND_BAN;
    }
    if channel_type != GROUP || trusted {
        if flags.disband {
            return Reason::DISBAND;
        }
        let receiver = peer(stored_id, from_uid);
        let denied = channel_type == PERSON
            && !trusted
            && receiver != SYSTEM_UID
            && inner.listed(receiver, PERSON, List::Denied, from_uid);
        return if denied {
            Reason::IN_BLACKLIST
        } else {
            Reason::SUCCESS
        };
    }
    if !known {
        return Reason::CHANNEL_NOT_EXIST;
    }
    if flags.ban {
        return Reason::BAN;
    }
    if flags.disband {
        return Reason::DISBAND;
    }
    by_lists(inner, stored_id, GROUP, from_uid)
}

/// Denylist, members, allowlist.
fn by_lists(inner: &Inner, stored_id: &str, channel_type: u8, from_uid: &str) -> Reason {
    let on = |list| inner.listed(stored_id, channel_type, list, from_uid);
    let has_allowlist = inner
        .channel(stored_id, channel_type)
        .is_some_and(|channel| !channel.list(List::Allowed).is_empty());
    if on(List::Denied) {
        Reason::IN_BLACKLIST
    } else if !on(List::Members) {
        Reason::SUBSCRIBER_NOT_EXIST
    } else if has_allowlist && !on(List::Allowed) {
        Reason::NOT_IN_WHITELIST
    } else {
        Reason::SUCCESS
    }
}

/// The other one of a pair; the same one in a conversation with oneself.
fn peer<'a>(stored_id: &'a str, uid: &str) -> &'a str {
    let (one, other) = stored_id.split_once('@').unwrap_or((stored_id, stored_id));
    if one == uid { other } else { one }
}

/// v3's stored id, or `None` for the id of a pair that `uid` is not one of.
pub(super) fn v3_stored_id(
    inner: &Inner,
    uid: &str,
    channel_id: &str,
    channel_type: u8,
) -> Option<String> {
    if channel_type != PERSON {
        return Some(channel_id.to_owned());
    }
    let (one, other) = match channel_id.split_once('@') {
        None => (uid, channel_id),
        Some((one, other)) => {
            let pair = !one.is_empty() && !other.is_empty() && !other.contains('@');
            if !pair || (one != uid && other != uid) {
                return None;
            }
            (one, other)
        }
    };
    Some(inner.dialect.person_channel_id(one, other))
}
