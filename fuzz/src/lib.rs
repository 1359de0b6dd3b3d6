//! A gateway for fuzz targets: the real router, without listeners.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use wukongim_gateway::gateway::Framed;
use wukongim_gateway::state::App;
use wukongim_gateway::config::{Generation, Mode, Settings};
use wukongim_gateway::store::Store;

const SECRET: &str = "a-secret-for-fuzzing-that-is-long-enough";
/// Claims of an admin whose token never expires.
pub const CLAIMS: &str = r#"{"sub":"alice","roles":["admin"],"exp":4000000000}"#;

/// A gateway on a runtime of its own.
pub struct Gateway {
    runtime: Arc<Runtime>,
    service: Framed,
    token: String,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

/// A runtime for gateways and what they call.
pub fn runtime() -> Arc<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Arc::new(builder.enable_all().build().expect("a runtime"))
}

impl Gateway {
    /// One in front of `upstream`, with short patience.
    pub fn new(runtime: Arc<Runtime>, upstream: &str, generation: Generation) -> Self {
        let mut settings = Settings::builtin(&SECRET.to_owned().into()).expect("the defaults");
        settings.authorization.mode = Mode::Open;
        // What a limit refuses is not looked at.
        settings.limits.requests_per_second = 1_000_000;
        settings.limits.burst = 1_000_000;
        settings.limits.anonymous_per_second = 1_000_000;
        settings.authorization.cache_ttl = Duration::ZERO;
        settings.wukongim.api_urls = vec![upstream.parse().expect("an address")];
        settings.wukongim.version = Some(generation);
        settings.wukongim.confirm_timeout = Duration::from_millis(1);
        let service = runtime.block_on(async {
            let store = Store::open("sqlite::memory:", 1, Duration::from_secs(2));
            let store = Arc::new(store.await.expect("a store"));
            Framed::api(&App::new(settings, store).expect("a gateway"))
        });
        let token = sign(br#"{"alg":"HS256","typ":"JWT"}"#, CLAIMS.as_bytes());
        Self {
            runtime,
            service,
            token,
        }
    }

    /// Sends a request, with the admin's token unless it has one, and checks what holds for every answer.
    pub fn ask(&self, mut request: Request<Body>) -> Answer {
        let token = format!("Bearer {}", self.token);
        let headers = request.headers_mut();
        headers
            .entry(http::header::AUTHORIZATION)
            .or_insert_with(|| token.parse().expect("a header"));
        let (status, headers, body) = self.runtime.block_on(async {
            let answer = self.service.clone().oneshot(request).await;
            let (parts, body) = answer.expect("an answer").into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            (parts.status, parts.headers, body)
        });
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let success = status == StatusCode::OK;
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
        assert_eq!(body["success"], success, "{status} {body}");
        assert!(headers.contains_key("x-request-id"));
        assert!(success || body["code"].is_string(), "{status} {body}");
        Answer {
            status,
            headers,
            body,
        }
    }
}

/// A POST of JSON.
pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(format!("/api/v1/im{path}"))
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request")
}

/// A GET; `None` for what is no URI, which never gets as far as the router.
pub fn get(path_and_query: &str) -> Option<Request<Body>> {
    Request::get(format!("/api/v1/im{path_and_query}"))
        .body(Body::empty())
        .ok()
}

/// A token with this header and these claims, signed with HS256 whatever they say.
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
