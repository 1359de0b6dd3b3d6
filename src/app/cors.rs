//! CORS: which origins' pages may call, by configuration. Part of the outermost layer rather than a layer around it, so that a preflight
//! has its request id and its log line, and no answer is without its headers.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use crate::config::{self, WebOrigin};

const ANY: HeaderValue = HeaderValue::from_static("*");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-has-more, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, www-authenticate",
);

/// The configured origins.
pub(super) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    /// `None` where no origin is configured: then nothing is sent at all.
    pub(super) fn new(settings: &config::Cors) -> Option<Self> {
        let exact = settings
            .allowed_origins
            .iter()
            .filter_map(|origin| match origin {
                WebOrigin::Any => None,
                WebOrigin::Exact(origin) => HeaderValue::from_str(origin).ok(),
            });
        (!settings.allowed_origins.is_empty()).then(|| Self {
            any: settings.allowed_origins.contains(&WebOrigin::Any),
            origins: exact.collect(),
            max_age: HeaderValue::from(settings.max_age.as_secs()),
        })
    }

    /// What `Access-Control-Allow-Origin` says to a request with these headers.
    pub(super) fn allow(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.any {
            return Some(ANY);
        }
        let origin = headers.get(ORIGIN)?;
        self.origins.iter().find(|known| *known == origin).cloned()
    }

    /// Whether a refusal must know who asks: with one origin, or all, whoever asks is told the same.
    pub(super) fn depends_on_origin(&self) -> bool {
        !self.any && self.origins.len() > 1
    }

    /// What `Access-Control-Allow-Origin` says where a connection is refused, of whose request at most `headers` are known.
    pub(super) fn allow_refused(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins[..] {
            [only] if !self.any => Some(only.clone()),
            _ => self.allow(headers),
        }
    }

    /// The answer to a preflight; `None` for any other request. No route is asked: what is allowed is the same for all.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let told = response.headers_mut();
        if self.allow(headers).is_some() {
            told.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            told.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            // Whatever is asked for: `*` would leave out `Authorization`, and no header here does harm.
            if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                told.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        let vary = "access-control-request-method, access-control-request-headers";
        told.insert(VARY, HeaderValue::from_static(vary));
        Some(response)
    }

    /// Puts on any answer what lets a page of an allowed origin read it.
    pub(super) fn mark(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.any {
            // For caches: another origin gets another answer, one without an origin included.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}
