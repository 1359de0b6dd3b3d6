//! The API's documentation, if `docs.enabled` is on: the OpenAPI document, the catalogue of errors, and the page that shows them. They need
//! no authentication, since they contain nothing about the deployment.

mod page;

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Uri;
use http::header::{
    ACCEPT, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use utoipa_axum::router::UtoipaMethodRouter;

use super::static_files::set;
use super::{ENDPOINTS as DOCUMENTED, Endpoint, PREFIX};
use crate::http::envelope::preferred;
use crate::http::errors::{Lang, catalogue, catalogue_page};
use crate::http::openapi::{self, Described};
use crate::state::App;

const OPENAPI: &str = "/api/v1/im/openapi.json";
/// Next to the document, as docs/ERRORS.md is next to docs/openapi.json, so that relative links work in both places.
const ERRORS: &str = "/api/v1/im/ERRORS.md";

static ENDPOINTS: [Endpoint; 2] = [
    Endpoint::at(OPENAPI, UtoipaMethodRouter::default),
    Endpoint::at(ERRORS, UtoipaMethodRouter::default),
];

/// Their names in metrics and logs.
pub(super) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    ENDPOINTS.iter().chain(page::endpoints())
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| make(Lang::En));
static CHINESE: LazyLock<String> = LazyLock::new(|| make(Lang::Zh));

fn make(lang: Lang) -> String {
    openapi::document(
        PREFIX,
        lang,
        DOCUMENTED.iter().map(|endpoint| {
            let (schemas, paths, _) = (endpoint.handler)();
            Described {
                path: endpoint
                    .route
                    .strip_prefix(PREFIX)
                    .unwrap_or(endpoint.route),
                item: paths.paths.into_values().next().unwrap_or_default(),
                schemas,
                is_public: endpoint.is_public(),
                failure: endpoint.failure,
                refusals: endpoint.refusals,
            }
        }),
    )
}

/// The OpenAPI document of all endpoints, as JSON, in English and with `x-summary-zh`; created at first use.
pub fn document() -> &'static str {
    &DOCUMENT
}

pub(super) fn add_to(router: Router<App>) -> Router<App> {
    // Swagger UI's files are compressed already, and the page's own are small.
    let gzip = CompressionLayer::new().quality(CompressionLevel::Fastest);
    let documents = Router::new()
        .route(OPENAPI, get(openapi_document))
        .route(ERRORS, get(errors))
        .layer(set(CONTENT_SECURITY_POLICY, "default-src 'none'"))
        .layer(set(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(gzip);
    router.merge(documents).merge(page::router())
}

/// The document in the language of `?lang=`, `en` or `zh`, else of `Accept-Language`; English unless Chinese is preferred.
async fn openapi_document(uri: Uri, headers: HeaderMap) -> Response {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let requested = parameters.find_map(|parameter| match parameter {
        "lang=en" => Some(Lang::En),
        "lang=zh" => Some(Lang::Zh),
        _ => None,
    });
    let (language, document) = match requested.unwrap_or_else(|| preferred(&headers, Lang::En)) {
        Lang::En => ("en", &*DOCUMENT),
        Lang::Zh => ("zh", &*CHINESE),
    };
    let told = [(CONTENT_LANGUAGE, language), (VARY, "accept-language")];
    (told, text("application/json", document)).into_response()
}

/// The catalogue as in docs/; as HTML for clients that prefer it, such as a browser that follows a link of the page.
async fn errors(headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(ACCEPT).iter();
    let is_browser = accepted.any(|kinds| {
        let kinds = kinds.to_str();
        kinds.is_ok_and(|kinds| kinds.contains("text/html"))
    });
    let mut response = if is_browser {
        text("text/html; charset=utf-8", catalogue_page())
    } else {
        // Not text/markdown, which browsers save instead of showing it.
        text("text/plain; charset=utf-8", catalogue())
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn text(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}
