//! The operations port: `/livez`, `/readyz`, `/metrics`, `/version`. Plain HTTP, no token, and nothing here shows a secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::app::App;
use crate::response::json;

/// A store that takes longer counts as down: whoever asks for readiness waits no longer than a prober does.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// What readiness is judged by.
#[derive(Clone)]
pub struct Readiness {
    app: App,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// Readiness of `app`, over as soon as `draining` is set.
    pub fn new(app: App, draining: Arc<AtomicBool>) -> Self {
        Self { app, draining }
    }
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
}

/// The routes of the operations port.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(readiness)
}

/// 503 with the reasons while no WuKongIM node answers, the issuer's keys were never loaded or the gateway drains. A store that is down only degrades: messages flow.
async fn readyz(State(readiness): State<Readiness>) -> Response {
    let ping = tokio::time::timeout(STORE_PATIENCE, readiness.app.store().ping());
    let (upstream, store) = tokio::join!(readiness.app.client().health(), ping);
    let mut reasons = Vec::new();
    if readiness.draining.load(Ordering::Relaxed) {
        reasons.push("draining");
    }
    if upstream.is_err() {
        reasons.push("no wukongim node answers");
    }
    if readiness.app.verifier().lacks_keys() {
        reasons.push("no signing key was ever loaded");
    }
    let degraded = match store {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(_)) | Err(_) => vec!["store"],
    };
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let report = Report {
        ready: reasons.is_empty(),
        reasons,
        degraded,
    };
    json(status, serde_json::to_vec(&report).unwrap_or_default())
}

async fn metrics(State(readiness): State<Readiness>) -> Response {
    let headers = [(
        CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    (headers, readiness.app.metrics_text()).into_response()
}

async fn version() -> Response {
    #[derive(Serialize)]
    struct Version {
        name: &'static str,
        version: &'static str,
    }
    let version = Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
    };
    json(
        StatusCode::OK,
        serde_json::to_vec(&version).unwrap_or_default(),
    )
}
