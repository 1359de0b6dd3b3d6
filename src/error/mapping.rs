//! What the inner rooms' errors mean to a client: the one place where they become codes.

use std::num::NonZeroU32;

use super::{ApiError, Failure, FieldProblem, Problem, Text};
use crate::auth::ImTokenError;
use crate::authorization::Denial;
use crate::channels;
use crate::domain::PayloadProblem;
use crate::history::ReadError;
use crate::limits::{Refused, UserFull};
use crate::memory::Full;
use crate::messages::{Cause, SendError};
use crate::wukongim::{Error, Rejection};

/// What `channel_exists` means of a message.
const TAKEN: Text = Text {
    zh: "该会话在WuKongIM中的位置已被另一频道占用",
    en: "another channel has the place of this conversation in WuKongIM",
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            // Of sends alone, and told as denials there.
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
        Self::come_again(full.to_string())
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::from(ApiError::Overloaded).because(full.to_string()),
            Full::User => Self::come_again(full.to_string()),
        }
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        let code = match denial {
            Denial::NotAMember => ApiError::NotAMember,
            Denial::Blocked => ApiError::Blocked,
            Denial::Forbidden => ApiError::Forbidden,
            Denial::ChannelBanned => ApiError::ChannelBanned,
            Denial::SendBanned => ApiError::SendBanned,
            Denial::ChannelNotFound => ApiError::ChannelNotFound,
            Denial::Taken => {
                return Self {
                    message: Some(TAKEN),
                    ..ApiError::ChannelExists.into()
                };
            }
            Denial::ToOneself => {
                return Self::invalid(vec![FieldProblem {
                    field: "channelId".into(),
                    problem: Problem::Oneself,
                }]);
            }
            Denial::PayloadTooLarge { max_bytes } => {
                return Self::invalid(vec![FieldProblem {
                    field: "payload".into(),
                    problem: Problem::Payload(PayloadProblem::TooLarge { max_bytes }),
                }]);
            }
            // Nothing can be decided while the gateway itself is refused; no retry helps before an operator does. Nor is WuKongIM
            // away where the gateway itself has too much to do.
            Denial::Unavailable(error @ (Error::Credentials | Error::Busy | Error::NoRoom(_)))
            | Denial::Upstream(error) => return error.into(),
            Denial::Unavailable(error) => {
                return Self::from(ApiError::UpstreamUnavailable).because(error.to_string());
            }
            Denial::Refused(_) => {
                return Self::from(ApiError::Forbidden).because(denial.to_string());
            }
            Denial::NoAnswer(error) => {
                return Self::from(ApiError::UpstreamUnavailable).because(error.to_string());
            }
        };
        code.into()
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Denied(denial) => denial.into(),
            // Here alone: a 429 says that nothing was done.
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
                let code = match &cause {
                    // An answer came, and it was an unexpected error or nonsense.
                    Cause::NoAnswer(
                        Error::Status(_) | Error::Decode(_) | Error::TooLarge { .. },
                    ) => ApiError::UpstreamError,
                    Cause::NoAnswer(_) | Cause::NeverSeen | Cause::OutOfTime => {
                        ApiError::MessageUnconfirmed
                    }
                };
                let mut failure = Self::from(code).because(cause.to_string());
                if let Cause::NoAnswer(Error::Timeout) = cause {
                    failure.cause =
                        Some("no answer to the send in time, and not seen stored".into());
                }
                failure.client_msg_no = Some(client_msg_no);
                failure
            }
        }
    }
}

impl From<channels::Error> for Failure {
    fn from(error: channels::Error) -> Self {
        let code = match error {
            channels::Error::Exists => ApiError::ChannelExists,
            channels::Error::Deleted => ApiError::ChannelDeleted,
            channels::Error::NotFound => ApiError::ChannelNotFound,
            channels::Error::NotOwner => ApiError::NotOwner,
            channels::Error::NotAMember => ApiError::NotAMember,
            channels::Error::Full => ApiError::ChannelFull,
            channels::Error::OwnerCannotLeave => ApiError::OwnerCannotLeave,
            channels::Error::IdIsMade => {
                return Self::invalid(vec![FieldProblem {
                    field: "channelId".into(),
                    problem: Problem::IdIsMade,
                }]);
            }
            channels::Error::NoRandomId => ApiError::Internal,
            channels::Error::NotTakenBack(error) => {
                let cause = "what was done could not be taken back".to_owned();
                return Self::from(*error).because(cause);
            }
            channels::Error::Interrupted => ApiError::UpstreamUnavailable,
            channels::Error::Denied(denial) => return denial.into(),
            channels::Error::Upstream(error) => return error.into(),
            channels::Error::Store(error) => {
                return Self::from(ApiError::StoreUnavailable).because(error.to_string());
            }
        };
        code.into()
    }
}

impl From<ImTokenError> for Failure {
    fn from(error: ImTokenError) -> Self {
        match error {
            ImTokenError::Banned => ApiError::Forbidden.into(),
            ImTokenError::Upstream(error) => error.into(),
            ImTokenError::Store(error) => {
                Self::from(ApiError::StoreUnavailable).because(error.to_string())
            }
            ImTokenError::Interrupted => ApiError::UpstreamUnavailable.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_for_which_the_gateway_is_too_busy_is_an_overload_and_no_lost_wukongim() {
        let told = |error| Failure::from(Denial::Unavailable(error)).error;
        for error in [Error::Busy, Error::NoRoom(Full::All)] {
            assert_eq!(told(error), ApiError::Overloaded);
        }
        for error in [Error::Connect, Error::Timeout, Error::Status(500)] {
            assert_eq!(told(error), ApiError::UpstreamUnavailable);
        }
        assert_eq!(told(Error::Credentials), ApiError::UpstreamError);
    }
}
