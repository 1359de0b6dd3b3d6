//! `GET /health`: whether WuKongIM can be reached, without authentication.

use std::time::SystemTime;

use axum::extract::State;
use serde::Serialize;
use serde_json::value::to_raw_value;
use utoipa::ToSchema;

use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::state::App;

/// The status and the time of the answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthResponse {
    status: HealthStatus,
    /// ISO 8601, UTC, whole seconds.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// Whether WuKongIM can be reached.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HealthStatus {
    Healthy,
    Unhealthy,
}

impl HealthResponse {
    fn now(status: HealthStatus) -> Self {
        Self {
            status,
            timestamp: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

/// Whether WuKongIM can be reached; without authentication.
///
/// The gateway checks it at most once a second, regardless of the number of calls.
#[utoipa::path(
    get,
    path = "",
    tag = "system",
    extensions(("x-summary-zh" = json!("检查悟空IM是否可用，无需认证"))),
    responses(
        (status = 200, description = "WuKongIM can be reached.", body = HealthResponse, example = json!({
            "status": "healthy", "timestamp": "2024-01-15T10:30:00Z"
        })),
        (status = 503, body = HealthResponse, examples(("upstream_unavailable" = (value = json!({
            "success": false, "message": "服务不可用", "code": "upstream_unavailable", "requestId": "62594eb9ff9f49d281ae136bce06db32",
            "data": {"status": "unhealthy", "timestamp": "2024-01-15T10:30:00Z"}
        })))))
    )
)]
pub(super) async fn get_health(
    State(app): State<App>,
) -> Result<Envelope<HealthResponse>, Failure> {
    match app.client.health().await {
        Ok(()) => Ok(Envelope(HealthResponse::now(HealthStatus::Healthy))),
        Err(error) => {
            let mut failure =
                Failure::from(ApiError::UpstreamUnavailable).because(error.to_string());
            failure.data = to_raw_value(&HealthResponse::now(HealthStatus::Unhealthy)).ok();
            Err(failure)
        }
    }
}
