//! Why a user may not do something, and the mapping of WuKongIM v3's refusals. Does not know HTTP.

use std::sync::Arc;

use super::callback::CallbackError;
use crate::domain::{Channel, ChannelType};
use crate::wukongim::{Error, Reason, Rejection};

/// Why a send or a read does not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The user is not a subscriber of the group (403 `not_a_member`).
    #[error("not a subscriber of the group")]
    NotAMember,
    /// The user is on the denylist of the group or of the peer (403 `blocked`).
    #[error("on the denylist")]
    Blocked,
    /// The user is banned, or not on an existing allowlist (403 `forbidden`).
    #[error("not allowed")]
    Forbidden,
    /// The group is banned: no user may send to it (403 `channel_banned`).
    #[error("the channel is banned")]
    ChannelBanned,
    /// Sending is disabled in this channel (403 `send_banned`); only v3 reports this.
    #[error("sending is banned in the channel")]
    SendBanned,
    /// v3 must never get a message to oneself (400 `invalid_request`). Its task that adds the pair to both users' directories contains the
    /// same entry twice and fails forever, and so do all such tasks of the physical slot: its users read no new conversation any more, even
    /// after restarts (seen on a running server: one message, a tenth of all users).
    #[error("v3 cannot keep messages to oneself")]
    ToOneself,
    /// Another channel with the same key owns the log in v2, so messages would not be stored (409 `channel_exists`).
    #[error("another channel has the same key in wukongim")]
    Taken,
    /// This WuKongIM does not accept payloads of that size (400 `invalid_request`).
    #[error("this wukongim accepts payloads of at most {max_bytes} bytes")]
    PayloadTooLarge {
        /// The maximum in bytes.
        max_bytes: usize,
    },
    /// There is no such group, or it was deleted (404 `channel_not_found`).
    #[error("no such channel")]
    ChannelNotFound,
    /// A fact needed for the decision could not be looked up (503 `upstream_unavailable`): nothing was sent.
    #[error("permission could not be looked up: {0}")]
    Unavailable(#[source] Error),
    /// The application's backend refuses (403 `forbidden`), with its reason for the log: bounded, without control characters.
    #[error("refused by the callback: {0}")]
    Refused(Arc<str>),
    /// The application's backend gave no usable answer (503 `upstream_unavailable`), which never permits anything.
    #[error(transparent)]
    CallbackFailed(CallbackError),
    /// Not a refusal: the call failed with this error.
    #[error(transparent)]
    Upstream(Error),
}

impl Denial {
    /// Maps WuKongIM's `error` to a send to `channel`; [`Self::Upstream`] where it is not a refusal. Only v3 refuses sends; its reason
    /// codes were seen on a running server, and each is unambiguous.
    pub fn of_send_refusal(channel: &Channel, error: &Error) -> Self {
        let reason = match *error {
            Error::PayloadTooLarge { max_bytes } => return Self::PayloadTooLarge { max_bytes },
            Error::Refused(reason) => reason,
            // The same refusal as a text with an HTTP status (404 `channel not found`; source).
            Error::Rejected(Rejection::ChannelNotFound) => Reason::NO_CHANNEL,
            Error::Rejected(Rejection::Disbanded) => Reason::DISBANDED,
            Error::Rejected(Rejection::MembershipRequired) => Reason::NOT_SUBSCRIBED,
            _ => return Self::Upstream(error.clone()),
        };
        let person = channel.channel_type() == ChannelType::Person;
        match reason {
            // A pair has neither subscribers nor a ban of its own that the contract could name.
            Reason::NOT_SUBSCRIBED | Reason::BANNED if person => Self::Forbidden,
            Reason::NOT_SUBSCRIBED => Self::NotAMember,
            Reason::BANNED => Self::ChannelBanned,
            Reason::IN_DENYLIST => Self::Blocked,
            Reason::NO_CHANNEL | Reason::DISBANDED => Self::ChannelNotFound,
            Reason::NOT_ALLOWED | Reason::NOT_IN_ALLOWLIST => Self::Forbidden,
            Reason::SEND_BANNED => Self::SendBanned,
            // Rate limit, system errors and unknown reasons.
            _ => Self::Upstream(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChannelId, Uid};

    #[test]
    fn every_reason_of_v3_has_its_meaning() {
        let group = Channel::Group(ChannelId::parse("g", 9).unwrap());
        let person = Channel::Person(Uid::parse("bob", 9).unwrap());
        let table = [
            (3, Denial::NotAMember, Denial::Forbidden),
            (4, Denial::Blocked, Denial::Blocked),
            (5, Denial::ChannelNotFound, Denial::ChannelNotFound),
            (11, Denial::Forbidden, Denial::Forbidden),
            (13, Denial::Forbidden, Denial::Forbidden),
            (19, Denial::ChannelBanned, Denial::Forbidden),
            (24, Denial::ChannelNotFound, Denial::ChannelNotFound),
            (25, Denial::SendBanned, Denial::SendBanned),
        ];
        for (reason, in_group, with_person) in table {
            let error = Error::Refused(Reason(reason));
            assert_eq!(
                Denial::of_send_refusal(&group, &error),
                in_group,
                "{reason}"
            );
            assert_eq!(
                Denial::of_send_refusal(&person, &error),
                with_person,
                "{reason}"
            );
        }
    }

    #[test]
    fn the_words_of_v3_mean_what_its_reasons_do() {
        let group = Channel::Group(ChannelId::parse("g", 9).unwrap());
        let person = Channel::Person(Uid::parse("bob", 9).unwrap());
        for (words, reason) in [
            (Rejection::ChannelNotFound, 5),
            (Rejection::Disbanded, 24),
            (Rejection::MembershipRequired, 3),
        ] {
            for channel in [&group, &person] {
                assert_eq!(
                    Denial::of_send_refusal(channel, &Error::Rejected(words)),
                    Denial::of_send_refusal(channel, &Error::Refused(Reason(reason))),
                    "{words:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_refusal_stays_the_error_it_is() {
        let group = Channel::Group(ChannelId::parse("g", 9).unwrap());
        for error in [
            Error::Refused(Reason::RATE_LIMITED),
            Error::Refused(Reason(15)),
            Error::Refused(Reason(999)),
            Error::Rejected(Rejection::Conflict),
            Error::Timeout,
        ] {
            let denial = Denial::of_send_refusal(&group, &error);
            assert_eq!(denial, Denial::Upstream(error));
        }
    }
}
