//! The documentation page: Swagger UI, embedded in the binary. It calls only the gateway it was loaded from, and knows only the address of
//! the OpenAPI document.

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use utoipa_axum::router::UtoipaMethodRouter;

use super::Endpoint;
use crate::routes::static_files::{self, StaticFile};
use crate::state::App;

/// The content security policy. The style sheet's icons are `data:` URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file at its path below `/api/v1/im/docs`: one of Swagger UI's, made and checked by tests/page/embed.mjs, or one of the gateway's own.
macro_rules! file {
    ($path:literal, $kind:literal) => {
        file!($path, $kind, true, concat!("swagger-ui", $path, ".gz"))
    };
    ($path:literal, $kind:literal, $file:literal) => {
        file!($path, $kind, false, $file)
    };
    ($path:literal, $kind:literal, $is_packed:literal, $file:expr) => {
        StaticFile::at(
            concat!("/api/v1/im/docs", $path),
            concat!("text/", $kind, "; charset=utf-8"),
            include_bytes!($file),
        )
        .packed($is_packed)
    };
}

/// The page itself first. Its links are relative to `/api/v1/im/`, so that it works behind any path prefix of a proxy.
static FILES: [StaticFile; 5] = [
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
    static_files::router(&FILES, POLICY)
        .route(SLASH.route, get(async || Redirect::permanent("../docs")))
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
