//! The operations port: `/livez`, `/readyz`, `/metrics`, `/version`. Plain HTTP without authentication; shows no secrets.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, VARY};
use serde_json::json;
use tokio::sync::Mutex;
use tower_http::catch_panic::CatchPanicLayer;

use crate::http::envelope::json as json_response;
use crate::state::App;
use crate::wukongim::Error;

/// A slower store counts as down, so that `/readyz` answers within a prober's timeout.
const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a ping's result is reused, since each ping writes to the store.
const STORE_ANSWER_TTL: Duration = Duration::from_secs(1);

/// The inputs of the readiness check.
#[derive(Clone)]
pub struct Readiness {
    app: App,
    draining: Arc<AtomicBool>,
    /// When the store was last pinged, and the result.
    store: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Readiness {
    /// Readiness of `app`; not ready as soon as `draining` is set.
    pub fn new(app: App, draining: Arc<AtomicBool>) -> Self {
        Self {
            app,
            draining,
            store: Arc::default(),
        }
    }

    /// Whether the store can be read and written. Pings it at most once a second.
    pub(super) async fn is_store_healthy(&self) -> bool {
        let mut last = self.store.lock().await;
        let now = Instant::now();
        if let Some((checked_at, healthy)) = *last
            && now - checked_at < STORE_ANSWER_TTL
        {
            return healthy;
        }
        let ping = tokio::time::timeout(STORE_TIMEOUT, self.app.store.ping()).await;
        let healthy = matches!(ping, Ok(Ok(())));
        *last = Some((now, healthy));
        healthy
    }

    /// Why WuKongIM cannot be used, if it cannot.
    async fn upstream_problem(&self) -> Option<&'static str> {
        let token = &self.app.settings.wukongim.manager_token;
        match self.app.client.health().await {
            Ok(()) => None,
            Err(Error::OtherGeneration) => Some("every wukongim node is of another generation"),
            Err(Error::Credentials) if token.is_some() => {
                Some("wukongim refuses wukongim.manager_token")
            }
            Err(Error::Credentials) => {
                Some("wukongim asks for a manager token, and wukongim.manager_token is not set")
            }
            Err(_) => Some("no wukongim node answers"),
        }
    }
}

/// The routes of the operations port.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .layer(CatchPanicLayer::new())
        .with_state(readiness)
}

/// 503 with the reasons while no WuKongIM node of the generation in use answers, or none takes the gateway's manager token, the issuer's keys
/// were never loaded or the gateway drains. A store that is down only degrades readiness, since messages still flow.
async fn readyz(State(readiness): State<Readiness>) -> Response {
    let (upstream, store_healthy) =
        tokio::join!(readiness.upstream_problem(), readiness.is_store_healthy());
    let (mut reasons, mut degraded) = (Vec::new(), Vec::new());
    if readiness.draining.load(Ordering::Relaxed) {
        reasons.push("draining".to_owned());
    }
    // Such nodes do no harm while another one answers.
    let others = readiness.app.client.other_nodes();
    let others = others.into_iter().map(|(name, generation)| {
        format!("wukongim node {name} is of another generation: {generation}")
    });
    match upstream {
        Some(problem) => reasons.extend(iter::once(problem.to_owned()).chain(others)),
        None => degraded.extend(others),
    }
    if readiness.app.verifier.lacks_keys() {
        reasons.push("no signing key was ever loaded".to_owned());
    }
    if !store_healthy {
        degraded.push("store".to_owned());
    }
    let mut report = json!({"ready": reasons.is_empty()});
    let mut status = StatusCode::OK;
    if !reasons.is_empty() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        report["reasons"] = reasons.into();
    }
    if !degraded.is_empty() {
        report["degraded"] = degraded.into();
    }
    json_response(status, report.to_string().into_bytes())
}

async fn metrics(State(readiness): State<Readiness>, headers: HeaderMap) -> Response {
    let app = &readiness.app;
    let (kind, text) = if prefers_prometheus(&headers) {
        (
            "text/plain; version=0.0.4; charset=utf-8",
            app.prometheus_text(),
        )
    } else {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (kind, app.metrics_text())
    };
    ([(CONTENT_TYPE, kind), (VARY, "accept")], text).into_response()
}

/// Whether `Accept` gives Prometheus's text format a higher weight than OpenMetrics.
fn prefers_prometheus(headers: &HeaderMap) -> bool {
    let weight_of = |name: &str| {
        let ranges = headers.get_all(ACCEPT).iter();
        let ranges = ranges.flat_map(|value| value.to_str().unwrap_or_default().split(','));
        let weights = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next()?.eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            is_it.then(|| weight.map_or(1.0_f32, |weight| weight.parse().unwrap_or(0.0)))
        });
        weights.fold(0.0_f32, f32::max)
    };
    weight_of("text/plain") > weight_of("application/openmetrics-text")
}

async fn version() -> Response {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let body = json!({"name": name, "version": version});
    json_response(StatusCode::OK, body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_older_format_is_served_on_request() {
        for (accepted, expected) in [
            ("", false),
            ("*/*", false),
            (
                "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                false,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", true),
            ("text/plain", true),
            (
                "Text/Plain; version=0.0.4; q=0.9, application/openmetrics-text; q=0.2",
                true,
            ),
            ("text/plain;q=0", false),
            ("text/html", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accepted));
            assert_eq!(prefers_prometheus(&headers), expected, "{accepted}");
        }
    }
}
