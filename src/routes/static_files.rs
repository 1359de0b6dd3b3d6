//! Files of the gateway's own pages, embedded in the binary: their content, type, headers and revalidation. Knows no page.

use aws_lc_rs::digest;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::UtoipaMethodRouter;

use super::Endpoint;
use crate::state::App;

/// A file at its path.
pub(super) struct StaticFile {
    pub(super) endpoint: Endpoint,
    kind: &'static str,
    /// Whether the bytes are gzip-compressed. They are always sent compressed, since every browser accepts that; `curl` needs
    /// `--compressed`.
    is_packed: bool,
    pub(super) bytes: &'static [u8],
}

impl StaticFile {
    /// A file of this content type.
    pub(super) const fn at(route: &'static str, kind: &'static str, bytes: &'static [u8]) -> Self {
        Self {
            endpoint: Endpoint::at(route, UtoipaMethodRouter::default),
            kind,
            is_packed: false,
            bytes,
        }
    }

    /// The same where the bytes are gzip-compressed.
    pub(super) const fn packed(self, is_packed: bool) -> Self {
        Self { is_packed, ..self }
    }

    /// Derived from the content, so it changes with each version.
    fn etag(&self) -> HeaderValue {
        let hash =
            URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, self.bytes).as_ref()[..12]);
        HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    }

    fn answer(&self, etag: &HeaderValue, request: &HeaderMap) -> Response {
        let known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"));
        if known.into_iter().any(|tag| tag == "*" || tag == etag) {
            return (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response();
        }
        let kind = [(CONTENT_TYPE, self.kind)];
        let mut response = ([(ETAG, etag)], kind, self.bytes).into_response();
        if self.is_packed {
            let headers = response.headers_mut();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Serves these files with this content security policy.
pub(super) fn router(files: &'static [StaticFile], policy: &'static str) -> Router<App> {
    let router = files.iter().fold(Router::new(), |router, file| {
        let etag = file.etag();
        let answer = get(async move |headers: HeaderMap| file.answer(&etag, &headers));
        router.route(file.endpoint.route, answer)
    });
    router
        .layer(set(CONTENT_SECURITY_POLICY, policy))
        .layer(set(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(REFERRER_POLICY, "no-referrer"))
        // Cached, but revalidated each time, since files of different versions do not work together.
        .layer(set(CACHE_CONTROL, "no-cache"))
}

/// Sets a header of every answer.
pub(super) fn set(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}
