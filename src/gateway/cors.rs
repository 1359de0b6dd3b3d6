//! CORS: the origins whose pages may call the API. Part of the outermost layer and not a separate one, so that preflights have a request id
//! and a log line, and every answer has the headers. tower-http's layer answers every OPTIONS itself, also one that is no preflight.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use crate::config::{self, WebOrigin};

const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-has-more, x-next-cursor, x-total-count, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, www-authenticate",
);

/// The configured origins.
pub(super) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    /// `None` where no origin is configured; then no header is sent.
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

    /// The `Access-Control-Allow-Origin` for a request with these headers.
    pub(super) fn allow(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.any {
            return Some(ANY_ORIGIN);
        }
        let origin = headers.get(ORIGIN)?;
        self.origins.iter().find(|known| *known == origin).cloned()
    }

    /// Whether the answer depends on the request's `Origin`: not with a single origin, nor with `*`.
    pub(super) fn depends_on_origin(&self) -> bool {
        !self.any && self.origins.len() > 1
    }

    /// The `Access-Control-Allow-Origin` for a refused connection, of whose request at most `headers` are known.
    pub(super) fn allow_refused(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins[..] {
            [only] if !self.any => Some(only.clone()),
            _ => self.allow(headers),
        }
    }

    /// The answer to a preflight; `None` for other requests. Independent of the route, since all allow the same.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        if self.allow(headers).is_some() {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            // Echoes the requested headers: `*` would not include `Authorization`, and no header is harmful here.
            if let Some(requested) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
            }
        }
        let vary = "access-control-request-method, access-control-request-headers";
        answer.insert(VARY, HeaderValue::from_static(vary));
        Some(response)
    }

    /// Adds the headers that let a page of an allowed origin read the answer.
    pub(super) fn add_headers(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.any {
            // For caches: the answer differs by origin, including requests without one.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}
