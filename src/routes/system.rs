//! `GET /system/info`: what WuKongIM tells about itself.

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::auth::Caller;
use crate::error::Failure;
use crate::response::Envelope;

/// `uptime` in whole seconds, of the longest running node; `connections` summed over all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SystemInfoResponse {
    version: String,
    uptime: u64,
    connections: u64,
    gateway_version: &'static str,
}

/// Asks every node; those that do not answer are left out, none at all is a failure.
pub(super) async fn get_system_info(
    _: Caller,
    State(app): State<App>,
) -> Result<Envelope<SystemInfoResponse>, Failure> {
    let info = app.client().system_info().await?;
    Ok(Envelope(SystemInfoResponse {
        version: info.version.unwrap_or_else(|| "unknown".to_owned()),
        uptime: info.uptime_s,
        connections: info.connections,
        gateway_version: env!("CARGO_PKG_VERSION"),
    }))
}
