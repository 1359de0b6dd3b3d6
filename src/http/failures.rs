//! Maps the inner modules' errors to API errors, in one place.

use std::num::NonZeroU32;

use super::errors::{ApiError, Failure, FieldProblem, LocalizedText, Problem};
use crate::auth::ImTokenError;
use crate::authorization::Denial;
use crate::channels;
use crate::context::Full;
use crate::conversations;
use crate::domain::PayloadProblem;
use crate::history::ReadError;
use crate::limits::{Refused, UserFull};
use crate::messages::{Cause, SendError};
use crate::store::StoreError;
use crate::wukongim::{Error, Rejection};

/// The message of `channel_exists` for sends.
const CONVERSATION_KEY_TAKEN: LocalizedText = LocalizedText {
    zh: "该会话在WuKongIM中的位置已被另一频道占用",
    en: "another channel has the place of this conversation in WuKongIM",
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            // Only sends return this, and map it as a denial.
            Error::Withdrawn | Error::PayloadTooLarge { .. } => ApiError::Forbidden,
            Error::Connect
            | Error::Lost
            | Error::Maintenance
            | Error::OtherGeneration
            | Error::Rejected(Rejection::RetryRequired) => ApiError::UpstreamUnavailable,
            Error::Timeout => ApiError::UpstreamTimeout,
            Error::NoRoom(_) | Error::Busy => ApiError::Overloaded,
            Error::Status(_)
            | Error::Refused(_)
            | Error::Rejected(_)
            | Error::Decode(_)
            | Error::TooLarge { .. }
            | Error::Credentials => ApiError::UpstreamError,
        };
        Self::from(code).because(error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self {
            retry_after_s: NonZeroU32::new(refused.retry_after_s),
            ..ApiError::RateLimited.into()
        }
    }
}

impl From<UserFull> for Failure {
    fn from(full: UserFull) -> Self {
        Self::retry_later(full.to_string())
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::from(ApiError::Overloaded).because(full.to_string()),
            Full::User => Self::retry_later(full.to_string()),
        }
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        let bad_field = |name, problem| Self::invalid(vec![FieldProblem::new(name, problem)]);
        match denial {
            Denial::NotAMember => ApiError::NotAMember.into(),
            Denial::Blocked => ApiError::Blocked.into(),
            Denial::Forbidden => ApiError::Forbidden.into(),
            Denial::ChannelBanned => ApiError::ChannelBanned.into(),
            Denial::SendBanned => ApiError::SendBanned.into(),
            Denial::ChannelNotFound => ApiError::ChannelNotFound.into(),
            Denial::Taken => Self {
                message: Some(CONVERSATION_KEY_TAKEN),
                ..ApiError::ChannelExists.into()
            },
            Denial::ToOneself => bad_field("channelId", Problem::Oneself),
            Denial::PayloadTooLarge { max_bytes } => bad_field(
                "payload",
                Problem::Payload(PayloadProblem::TooLarge { max_bytes }),
            ),
            // While the gateway's own credentials are refused nothing can be decided, and a retry does not help until an operator fixes
            // them. An overloaded gateway does not mean that WuKongIM is down.
            Denial::Unavailable(error @ (Error::Credentials | Error::Busy | Error::NoRoom(_)))
            | Denial::Upstream(error) => error.into(),
            Denial::Unavailable(error) => {
                Self::from(ApiError::UpstreamUnavailable).because(error.to_string())
            }
            Denial::Refused(_) => Self::from(ApiError::Forbidden).because(denial.to_string()),
            Denial::CallbackFailed(error) => {
                Self::from(ApiError::UpstreamUnavailable).because(error.to_string())
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Denied(denial) => denial.into(),
            // Mapped here only, because a 429 means that nothing was done.
            ReadError::Upstream(Error::NoRoom(full)) => full.into(),
            ReadError::Upstream(error) => error.into(),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Denied(denial) => denial.into(),
            SendError::Upstream(error) => error.into(),
            SendError::Conflict => ApiError::MessageConflict.into(),
            SendError::Unconfirmed {
                client_msg_no,
                cause,
            } => {
                // An unexpected error or a malformed answer is an answer, too.
                let (error, cause) = match cause {
                    Cause::NoAnswer(
                        Error::Status(_) | Error::Decode(_) | Error::TooLarge { .. },
                    ) => (ApiError::UpstreamError, cause.to_string()),
                    Cause::NoAnswer(Error::Timeout) => (
                        ApiError::MessageUnconfirmed,
                        "no answer to the send in time, and not seen stored".to_owned(),
                    ),
                    Cause::NoAnswer(_) | Cause::NeverSeen | Cause::OutOfTime => {
                        (ApiError::MessageUnconfirmed, cause.to_string())
                    }
                };
                Self {
                    client_msg_no: Some(client_msg_no),
                    ..Self::from(error).because(cause)
                }
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::from(ApiError::StoreUnavailable).because(error.to_string())
    }
}

impl From<channels::Error> for Failure {
    fn from(error: channels::Error) -> Self {
        match error {
            channels::Error::Exists => ApiError::ChannelExists.into(),
            channels::Error::Deleted => ApiError::ChannelDeleted.into(),
            channels::Error::NotFound => ApiError::ChannelNotFound.into(),
            channels::Error::NotOwner => ApiError::NotOwner.into(),
            channels::Error::NotAMember => ApiError::NotAMember.into(),
            channels::Error::NotSupported => ApiError::NotSupported.into(),
            channels::Error::Full => ApiError::ChannelFull.into(),
            channels::Error::OwnerCannotLeave => ApiError::OwnerCannotLeave.into(),
            channels::Error::IdNotAllowed => {
                Self::invalid(vec![FieldProblem::new("channelId", Problem::IdNotAllowed)])
            }
            channels::Error::NoRandomId => ApiError::Internal.into(),
            channels::Error::NotUndone(error) => {
                Self::from(*error).because("the change could not be undone")
            }
            channels::Error::Interrupted => ApiError::UpstreamUnavailable.into(),
            channels::Error::Denied(denial) => denial.into(),
            channels::Error::Upstream(error) => error.into(),
            channels::Error::Store(error) => error.into(),
        }
    }
}

impl From<conversations::Error> for Failure {
    fn from(error: conversations::Error) -> Self {
        match error {
            conversations::Error::Denied(denial) => denial.into(),
            conversations::Error::NotSupported => ApiError::NotSupported.into(),
            // As in a history: nothing was done.
            conversations::Error::Upstream(Error::NoRoom(full)) => full.into(),
            conversations::Error::Upstream(error) => error.into(),
            conversations::Error::Store(error) => error.into(),
        }
    }
}

impl From<ImTokenError> for Failure {
    fn from(error: ImTokenError) -> Self {
        match error {
            ImTokenError::Banned => ApiError::Forbidden.into(),
            ImTokenError::Upstream(error) => error.into(),
            ImTokenError::Store(error) => error.into(),
            ImTokenError::Interrupted => ApiError::UpstreamUnavailable.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_refused_by_a_busy_gateway_is_an_overload_error() {
        let error_of = |error| Failure::from(Denial::Unavailable(error)).error;
        for error in [Error::Busy, Error::NoRoom(Full::All)] {
            assert_eq!(error_of(error), ApiError::Overloaded);
        }
        for error in [Error::Connect, Error::Timeout, Error::Status(500)] {
            assert_eq!(error_of(error), ApiError::UpstreamUnavailable);
        }
        assert_eq!(error_of(Error::Credentials), ApiError::UpstreamError);
    }
}
