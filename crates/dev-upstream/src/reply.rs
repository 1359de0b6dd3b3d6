//! Requests and replies of the handlers, in the formats that both generations use.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;

/// The content type gin gives its JSON.
pub(super) const JSON: &str = "application/json; charset=utf-8";
const PLAIN: &str = "text/plain";

/// One call, as handlers see it.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Decoded, as Go's `URL.Path`: an encoded slash is a slash.
    pub(super) path: Cow<'a, str>,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
    pub(super) authorization: Option<&'a str>,
    pub(super) storing: Storing,
}

/// What becomes of a message that v2 has acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Storing {
    /// It is stored when it becomes visible.
    #[default]
    AsUsual,
    /// It is stored this much later, with the seq of that moment.
    #[cfg(feature = "testing")]
    Late(std::time::Duration),
    /// It is lost.
    #[cfg(feature = "testing")]
    Never,
}

impl Request<'_> {
    /// A query parameter, empty when it is missing.
    pub(super) fn param(&self, name: &str) -> Cow<'_, str> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map_or(Cow::Borrowed(""), |(_, value)| value)
    }

    /// A numeric query parameter, 0 when it is missing or no number of 8 bits.
    pub(super) fn small_param(&self, name: &str) -> u8 {
        self.param(name).parse().unwrap_or(0)
    }
}

/// Whether and when the server crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    None,
    /// It answers, then panics: v2.
    AfterAnswer,
    /// It ends before it answers: v3 in a panic, v2 out of memory.
    BeforeAnswer,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    pub(super) crash: Crash,
}

impl Reply {
    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        // Fails only for maps with non-string keys and custom `Serialize` impls, and there are none here.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::raw(status, JSON, body)
    }

    pub(super) fn raw(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            body: body.into(),
            crash: Crash::None,
        }
    }

    /// `{"status":200}`.
    pub(super) fn ok() -> Self {
        Self::raw(200, JSON, Bytes::from_static(br#"{"status":200}"#))
    }

    /// v2's error inside HTTP 200: another status in the body.
    pub(super) fn soft(status: u16) -> Self {
        Self::json(200, &json!({ "status": status }))
    }

    /// `{"msg":…,"status":400}`, the error of all of v2 and most of v3.
    pub(super) fn bad(message: impl AsRef<str>) -> Self {
        Self::json(400, &json!({ "msg": message.as_ref(), "status": 400 }))
    }

    /// The same from gin's own binding, which has set another content type by then.
    pub(super) fn bad_binding(message: impl AsRef<str>) -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            ..Self::bad(message)
        }
    }

    pub(super) fn not_found() -> Self {
        Self::raw(404, PLAIN, Bytes::from_static(b"404 page not found"))
    }

    pub(super) fn wrong_method() -> Self {
        Self::raw(405, PLAIN, Bytes::from_static(b"405 method not allowed"))
    }

    pub(super) fn with_crash(mut self, crash: Crash) -> Self {
        self.crash = crash;
        self
    }
}
