//! Errors of the API: one enum with status, code and message, and the value that carries it to where it is rendered (`http/envelope.rs`). Inner
//! causes go to the log, never to the client.

mod catalogue;
mod fields;

use std::borrow::Cow;
use std::num::NonZeroU32;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::value::RawValue;

use crate::domain::ClientMsgNo;

pub use catalogue::{Advice, catalogue, catalogue_page};
pub use fields::{FieldProblem, Problem};

/// The language of a client's messages: Chinese unless `Accept-Language` prefers English.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lang {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
}

/// A fixed text in both languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalizedText {
    /// Chinese.
    pub zh: &'static str,
    /// English.
    pub en: &'static str,
}

impl LocalizedText {
    /// The text in `lang`.
    pub fn in_lang(self, lang: Lang) -> &'static str {
        match lang {
            Lang::Zh => self.zh,
            Lang::En => self.en,
        }
    }
}

/// All errors of the API. Status and code of each never change; docs/ERRORS.md has a row for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiError {
    /// Malformed JSON, or a missing, wrongly typed or out-of-range field.
    InvalidRequest,
    /// No bearer token.
    TokenMissing,
    /// A token with an invalid signature or invalid claims.
    TokenInvalid,
    /// A valid token that has expired.
    TokenExpired,
    /// Not permitted, without a more specific reason.
    Forbidden,
    /// The caller is not a subscriber of the group.
    NotAMember,
    /// The caller is on a denylist.
    Blocked,
    /// The group is banned: messages to it are not stored.
    ChannelBanned,
    /// The sender is banned from sending.
    SendBanned,
    /// Only the owner or an admin may.
    NotOwner,
    /// Unknown path.
    NotFound,
    /// Unknown or deleted channel.
    ChannelNotFound,
    /// Known path, wrong method.
    MethodNotAllowed,
    /// The client did not finish its request in time.
    RequestTimeout,
    /// The id is taken.
    ChannelExists,
    /// The id was deleted and is never used again.
    ChannelDeleted,
    /// The group would have more members than allowed.
    ChannelFull,
    /// The client_msg_no was used for another payload.
    MessageConflict,
    /// The owner cannot be removed.
    OwnerCannotLeave,
    /// The body is larger than `server.body_limit`.
    PayloadTooLarge,
    /// A body without a JSON content type.
    UnsupportedMediaType,
    /// The headers are larger than the gateway reads.
    HeadersTooLarge,
    /// A user or an address asks for more than its limit.
    RateLimited,
    /// A bug or a panic.
    Internal,
    /// WuKongIM's answer was malformed or an unexpected error, or it refused the gateway's own credentials.
    UpstreamError,
    /// WuKongIM cannot be reached or is in maintenance.
    UpstreamUnavailable,
    /// The gateway is overloaded.
    Overloaded,
    /// The store is unavailable.
    StoreUnavailable,
    /// The issuer's keys are unavailable, and the token may be valid.
    KeysUnavailable,
    /// WuKongIM did not answer in time.
    UpstreamTimeout,
    /// Sent, but not confirmed in time.
    MessageUnconfirmed,
    /// Some messages of a batch were sent, others were not.
    PartialFailure,
}

impl ApiError {
    /// All errors, in the order of docs/ERRORS.md.
    pub const ALL: [Self; 32] = [
        Self::InvalidRequest,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::Forbidden,
        Self::NotAMember,
        Self::Blocked,
        Self::ChannelBanned,
        Self::SendBanned,
        Self::NotOwner,
        Self::NotFound,
        Self::ChannelNotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::ChannelExists,
        Self::ChannelDeleted,
        Self::ChannelFull,
        Self::MessageConflict,
        Self::OwnerCannotLeave,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::HeadersTooLarge,
        Self::RateLimited,
        Self::Internal,
        Self::UpstreamError,
        Self::UpstreamUnavailable,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::KeysUnavailable,
        Self::UpstreamTimeout,
        Self::MessageUnconfirmed,
        Self::PartialFailure,
    ];

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::TokenMissing | Self::TokenInvalid | Self::TokenExpired => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden
            | Self::NotAMember
            | Self::Blocked
            | Self::ChannelBanned
            | Self::SendBanned
            | Self::NotOwner => StatusCode::FORBIDDEN,
            Self::NotFound | Self::ChannelNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ChannelExists
            | Self::ChannelDeleted
            | Self::ChannelFull
            | Self::MessageConflict
            | Self::OwnerCannotLeave => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::UpstreamUnavailable
            | Self::Overloaded
            | Self::StoreUnavailable
            | Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout | Self::MessageUnconfirmed => StatusCode::GATEWAY_TIMEOUT,
            Self::PartialFailure => StatusCode::MULTI_STATUS,
        }
    }

    /// The code in the envelope; never translated and never changed.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::TokenMissing => "token_missing",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::NotAMember => "not_a_member",
            Self::Blocked => "blocked",
            Self::ChannelBanned => "channel_banned",
            Self::SendBanned => "send_banned",
            Self::NotOwner => "not_owner",
            Self::NotFound => "not_found",
            Self::ChannelNotFound => "channel_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::ChannelExists => "channel_exists",
            Self::ChannelDeleted => "channel_deleted",
            Self::ChannelFull => "channel_full",
            Self::MessageConflict => "message_conflict",
            Self::OwnerCannotLeave => "owner_cannot_leave",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::HeadersTooLarge => "headers_too_large",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::Overloaded => "overloaded",
            Self::StoreUnavailable => "store_unavailable",
            Self::KeysUnavailable => "keys_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::MessageUnconfirmed => "message_unconfirmed",
            Self::PartialFailure => "partial_failure",
        }
    }

    /// One sentence for the client. A 5xx has its endpoint's text instead; the text here is shown in docs/ERRORS.md and used where no
    /// endpoint is known.
    pub fn message(self) -> LocalizedText {
        let (zh, en) = match self {
            Self::InvalidRequest => ("请求参数有误", "the request is invalid"),
            Self::TokenMissing => ("缺少访问令牌", "an access token is required"),
            Self::TokenInvalid => ("访问令牌无效", "the access token is invalid"),
            Self::TokenExpired => ("访问令牌已过期", "the access token has expired"),
            Self::Forbidden => ("没有权限", "this is not allowed"),
            Self::NotAMember => ("不是该群成员", "not a member of this group"),
            Self::Blocked => ("已被对方或该群屏蔽", "you have been blocked"),
            Self::ChannelBanned => ("频道已被封禁", "the channel is banned"),
            Self::SendBanned => ("已被禁止发言", "sending is banned"),
            Self::NotOwner => ("只有群主可以执行此操作", "only the owner may do this"),
            Self::NotFound => ("接口不存在", "no such path"),
            Self::ChannelNotFound => ("频道不存在", "the channel does not exist"),
            Self::MethodNotAllowed => ("请求方法不被允许", "the method is not allowed"),
            Self::RequestTimeout => ("请求未能及时完成", "the request was not finished in time"),
            Self::ChannelExists => ("频道已存在", "the channel exists already"),
            Self::ChannelDeleted => ("频道已被删除", "the channel was deleted"),
            Self::ChannelFull => ("群成员已满", "the group is full"),
            Self::MessageConflict => (
                "消息编号已用于其他内容",
                "this clientMsgNo was used for another payload",
            ),
            Self::OwnerCannotLeave => ("群主不能退出", "the owner cannot leave"),
            Self::PayloadTooLarge => ("请求体过大", "the request body is too large"),
            Self::UnsupportedMediaType => ("请求体必须是JSON", "the request body must be JSON"),
            Self::HeadersTooLarge => ("请求头过大", "the request headers are too large"),
            Self::RateLimited => ("请求过于频繁", "too many requests"),
            Self::Internal
            | Self::UpstreamError
            | Self::UpstreamUnavailable
            | Self::Overloaded
            | Self::StoreUnavailable
            | Self::KeysUnavailable
            | Self::UpstreamTimeout
            | Self::MessageUnconfirmed => ("服务内部错误", "internal service error"),
            Self::PartialFailure => ("批量发送消息失败", "failed to send the batch"),
        };
        LocalizedText { zh, en }
    }

    /// Seconds for `Retry-After` on temporary errors; [`Failure::retry_after_s`] has precedence.
    pub fn retry_after_s(self) -> Option<u32> {
        match self {
            // The keys are not fetched again sooner.
            Self::KeysUnavailable => Some(10),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }
}

const ENCODED_BODY: LocalizedText = LocalizedText {
    zh: "请求体不能压缩（Content-Encoding只能是identity）",
    en: "the request body must not be compressed (Content-Encoding must be identity)",
};

/// An [`ApiError`] with everything in its envelope, and the cause for the log.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The error for the client.
    pub error: ApiError,
    /// All bad fields at once, for [`ApiError::InvalidRequest`].
    pub details: Vec<FieldProblem>,
    /// Replaces the error's own message.
    pub message: Option<LocalizedText>,
    /// `data` next to the failure; only batches and `/health` have it.
    pub data: Option<Box<RawValue>>,
    /// `clientMsgNo` next to `code`: the message may have arrived, and can safely be sent again with it.
    pub client_msg_no: Option<ClientMsgNo>,
    /// Seconds for `Retry-After`, where known more precisely than by [`ApiError::retry_after_s`].
    pub retry_after_s: Option<NonZeroU32>,
    /// The actual cause, only for the log.
    pub cause: Option<Cow<'static, str>>,
}

impl Failure {
    /// A 400 that names these fields.
    pub fn invalid(details: Vec<FieldProblem>) -> Self {
        Self {
            details,
            ..ApiError::InvalidRequest.into()
        }
    }

    /// A 415 of a body with a content encoding.
    pub fn encoded_body() -> Self {
        Self {
            message: Some(ENCODED_BODY),
            ..ApiError::UnsupportedMediaType.into()
        }
    }

    /// Whether it is [`Failure::encoded_body`]: only that 415 lists the accepted encodings (RFC 9110, 12.5.3).
    pub fn is_encoding_error(&self) -> bool {
        self.message == Some(ENCODED_BODY)
    }

    /// A 429 for a user at the limit of concurrent use; retry when some of it has finished.
    pub fn retry_later(cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after_s: Some(NonZeroU32::MIN),
            ..Self::from(ApiError::RateLimited).because(cause)
        }
    }

    /// The same failure with a cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cow<'static, str>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            details: Vec::new(),
            message: None,
            data: None,
            client_msg_no: None,
            retry_after_s: None,
            cause: None,
        }
    }
}

/// The failure is carried in the response's extensions, and rendered by the outermost layer, which knows language, endpoint and request id.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.error.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Failure::from(self).into_response()
    }
}
