//! The documentation page: Swagger UI, embedded in the binary. It calls only the gateway it was loaded from, and knows only the address of
//! the OpenAPI document.

use aws_lc_rs::digest;
use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
};
use utoipa_axum::router::UtoipaMethodRouter;

use super::{Endpoint, set};
use crate::state::App;

/// The content security policy. The style sheet's icons are `data:` URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One of the page's files.
struct File {
    endpoint: Endpoint,
    kind: &'static str,
    /// Whether the bytes are gzip-compressed. They are always sent compressed, since every browser accepts that; `curl` needs
    /// `--compressed`.
    is_packed: bool,
    bytes: &'static [u8],
}

/// A file at its path below `/api/v1/im/docs`: one of Swagger UI's, made and checked by tests/page/embed.mjs, or one of the gateway's own.
macro_rules! file {
    ($path:literal, $kind:literal) => {
        file!($path, $kind, true, concat!("swagger-ui", $path, ".gz"))
    };
    ($path:literal, $kind:literal, $file:literal) => {
        file!($path, $kind, false, $file)
    };
    ($path:literal, $kind:literal, $is_packed:literal, $file:expr) => {
        File {
            endpoint: Endpoint::at(
                concat!("/api/v1/im/docs", $path),
                UtoipaMethodRouter::default,
            ),
            kind: concat!("text/", $kind, "; charset=utf-8"),
            is_packed: $is_packed,
            bytes: include_bytes!($file),
        }
    };
}

/// The page itself first. Its links are relative to `/api/v1/im/`, so that it works behind any path prefix of a proxy.
static FILES: [File; 5] = [
    file!("", "html", "index.html"),
    file!("/start.js", "javascript", "start.js"),
    file!("/swagger-ui-bundle.js", "javascript"),
    file!("/swagger-ui-bundle.js.LICENSE.txt", "plain"),
    file!("/swagger-ui.css", "css"),
];

/// Redirects for paths from which relative links would be wrong.
static SLASH: Endpoint = Endpoint::at("/api/v1/im/docs/", UtoipaMethodRouter::default);

/// Their names in metrics and logs.
pub(super) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    FILES.iter().map(|file| &file.endpoint).chain([&SLASH])
}

pub(super) fn router() -> Router<App> {
    let files = FILES.iter().fold(Router::new(), |router, file| {
        let etag = file.etag();
        let answer = get(async move |headers: HeaderMap| file.answer(&etag, &headers));
        router.route(file.endpoint.route, answer)
    });
    files
        .layer(set(CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(REFERRER_POLICY, "no-referrer"))
        // Cached, but revalidated each time, since files of different versions do not work together.
        .layer(set(CACHE_CONTROL, "no-cache"))
        .route(SLASH.route, get(async || Redirect::permanent("../docs")))
}

impl File {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_adds_no_more_than_600_kb_to_the_binary() {
        let bytes: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        // And it is there at all.
        assert!((400_000..=600_000).contains(&bytes), "{bytes}");
    }
}
