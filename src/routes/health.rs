//! `GET /health`: whether WuKongIM can be reached, for anybody.

use std::time::SystemTime;

use axum::extract::State;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::app::App;
use crate::error::{ApiError, Failure};
use crate::response::Envelope;

/// `status` is `healthy` or `unhealthy`; `timestamp` is ISO 8601, UTC, whole seconds.
#[derive(Debug, Serialize)]
pub(super) struct HealthResponse {
    status: &'static str,
    timestamp: String,
}

impl HealthResponse {
    fn now(status: &'static str) -> Self {
        Self {
            status,
            timestamp: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

/// One upstream probe a second at most, however often it is asked.
pub(super) async fn get_health(
    State(app): State<App>,
) -> Result<Envelope<HealthResponse>, Failure> {
    match app.client().health().await {
        Ok(()) => Ok(Envelope(HealthResponse::now("healthy"))),
        Err(error) => {
            let mut failure =
                Failure::from(ApiError::UpstreamUnavailable).because(error.to_string());
            failure.data = to_raw_value(&HealthResponse::now("unhealthy")).ok();
            Err(failure)
        }
    }
}
