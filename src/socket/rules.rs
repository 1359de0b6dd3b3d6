//! What a client may send: the rules of a SEND, in the order in which the first one that is broken gives the reason. Membership, denylists,
//! allowlists and bans of groups are left to WuKongIM, which checks them on its sockets.

use std::str;

use wkproto::{Reason, Send, setting};

use crate::authorization::Denial;
use crate::domain::{Channel, ChannelId, ChannelType, ClientMsgNo, Uid};
use crate::state::App;
use crate::wukongim::Generation;

/// Bytes of a topic.
const MAX_TOPIC_BYTES: usize = 128;
/// AES works on blocks of this size, and always adds at least one byte.
const CIPHER_BLOCK_BYTES: usize = 16;

/// What becomes of a SEND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to WuKongIM.
    Pass,
    /// It is answered with this reason.
    Refuse(Reason),
    /// It is answered so, and the socket ends: its user is banned.
    Banned,
    /// What it depends on cannot be asked.
    Unavailable,
}

/// The parts of a SEND that the rules are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendFields<'a> {
    pub(super) channel_type: u8,
    pub(super) channel_id: &'a [u8],
    pub(super) client_msg_no: &'a str,
    /// The payload is not empty, and within the limit.
    pub(super) payload_fits: bool,
    /// Only what may be set is set.
    pub(super) options_fit: bool,
}

impl<'a> SendFields<'a> {
    /// Those of a frame, whose payload is sealed.
    pub(super) fn of_frame(send: &Send<'a>, payload_limit: usize) -> Self {
        let allowed = setting::RECEIPT | setting::TOPIC;
        Self {
            channel_type: send.channel_type,
            channel_id: send.channel_id,
            client_msg_no: send.client_msg_no,
            payload_fits: sealed_fits(send.payload, payload_limit),
            options_fit: send.setting & !allowed == 0
                && send.expire == 0
                && send.topic.len() <= MAX_TOPIC_BYTES,
        }
    }

    /// Those of a JSON-RPC request, whose payload is plain.
    pub(super) fn of_request(send: &'a wkproto::jsonrpc::Send<'_>, payload_limit: usize) -> Self {
        Self {
            channel_type: send.channel_type,
            channel_id: send.channel_id.as_bytes(),
            client_msg_no: &send.client_msg_no,
            payload_fits: (1..=payload_limit).contains(&send.payload.len()),
            options_fit: send.topic.len() <= MAX_TOPIC_BYTES,
        }
    }
}

/// Whether a sealed payload may be of at most `limit` bytes: it tells its length only up to the padding.
fn sealed_fits(sealed: &[u8], limit: usize) -> bool {
    let padding = sealed
        .iter()
        .rev()
        .take_while(|byte| **byte == b'=')
        .count();
    let cipher_bytes = (sealed.len() / 4 * 3).saturating_sub(padding);
    let most = (limit / CIPHER_BLOCK_BYTES + 1) * CIPHER_BLOCK_BYTES;
    (1..=most).contains(&cipher_bytes)
}

/// Judges a SEND of `sender`, and charges it to the user.
pub(super) async fn judge(
    app: &App,
    generation: Generation,
    sender: &Uid,
    send: SendFields<'_>,
) -> Verdict {
    let is_over_rate = app.limits.charge_user(sender).is_err();
    let channel = match parse(app, send) {
        Ok(channel) => channel,
        Err(reason) => return Verdict::Refuse(reason),
    };
    // A user over the limit causes no calls to WuKongIM, so that only then this rule comes after that of the rate.
    if generation == Generation::V2 && !app.client.owns_log(sender, &channel) && !is_over_rate {
        // Boxed because it runs once per channel.
        match Box::pin(app.client.log_is_foreign(sender, &channel)).await {
            Ok(false) => {}
            Ok(true) => return Verdict::Refuse(Reason::CHANNEL_ID_ERROR),
            Err(_) => return Verdict::Unavailable,
        }
    }
    if !send.payload_fits || !send.options_fit {
        return Verdict::Refuse(Reason::PAYLOAD_DECODE_ERROR);
    }
    if is_over_rate {
        return Verdict::Refuse(Reason::RATE_LIMIT);
    }
    match app.authorization.may_send_on_socket(sender, &channel).await {
        Ok(()) => Verdict::Pass,
        Err(Denial::ChannelNotFound) => Verdict::Refuse(Reason::DISBAND),
        Err(Denial::Refused(_) | Denial::ToOneself) => Verdict::Refuse(Reason::NOT_ALLOW_SEND),
        Err(Denial::Forbidden) => Verdict::Banned,
        Err(_) => Verdict::Unavailable,
    }
}

/// The channel of a SEND whose ids are valid; else the reason of the first that is not.
fn parse(app: &App, send: SendFields<'_>) -> Result<Channel, Reason> {
    let limits = &app.settings.limits;
    let is_person = match send.channel_type {
        number if number == ChannelType::Person.number() => true,
        number if number == ChannelType::Group.number() => false,
        _ => return Err(Reason::NOT_SUPPORT_CHANNEL_TYPE),
    };
    let id = str::from_utf8(send.channel_id).map_err(|_| Reason::CHANNEL_ID_ERROR)?;
    let id = ChannelId::parse(id, limits.id_bytes).map_err(|_| Reason::CHANNEL_ID_ERROR)?;
    let number = send.client_msg_no;
    if !number.is_empty() && ClientMsgNo::parse(number, limits.client_msg_no_bytes).is_err() {
        return Err(Reason::PAYLOAD_DECODE_ERROR);
    }
    Ok(if is_person {
        Channel::Person(id.into_uid())
    } else {
        Channel::Group(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_payload_of_exactly_the_limit_fits_and_the_next_block_does_not() {
        // base64 of so many bytes of cipher text.
        let sealed = |blocks: usize| {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD
                .encode(vec![0; blocks * CIPHER_BLOCK_BYTES])
                .into_bytes()
        };
        for (limit, blocks) in [
            (1, 1),
            (15, 1),
            (16, 2),
            (100, 7),
            (32_000, 2001),
            (65_536, 4097),
        ] {
            assert!(sealed_fits(&sealed(blocks), limit), "{limit}");
            assert!(!sealed_fits(&sealed(blocks + 1), limit), "{limit}");
        }
        assert!(!sealed_fits(b"", 100));
    }
}
