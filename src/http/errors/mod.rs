//! Errors of the API: one enum with status, code and message, and the value that carries it to where it is rendered (`http/envelope.rs`). Inner
//! causes go to the log, never to the client.

mod catalogue;
mod codes;
mod fields;

use std::borrow::Cow;
use std::num::NonZeroU32;

use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use crate::domain::ClientMsgNo;

pub use catalogue::{catalogue, catalogue_page};
pub use codes::{Advice, ApiError};
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
