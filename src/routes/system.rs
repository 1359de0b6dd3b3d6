//! `GET /system/info`: versions, uptime and connections of WuKongIM.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::http::envelope::Envelope;
use crate::http::errors::Failure;
use crate::state::App;

/// Information about WuKongIM and the gateway.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SystemInfoResponse {
    /// WuKongIM's version; `unknown` if it reports none.
    version: String,
    /// Whole seconds since the start, of the longest running node.
    uptime: u64,
    /// Clients connected to WuKongIM, summed over all nodes.
    connections: u64,
    /// The gateway's version.
    gateway_version: &'static str,
}

/// Version, uptime and connections of WuKongIM.
///
/// Nodes that do not answer are omitted; the call fails if none answers.
#[utoipa::path(
    get,
    path = "",
    tag = "system",
    extensions(("x-summary-zh" = json!("获取悟空IM的版本、运行时长和连接数"))),
    responses((status = 200, description = "The information.", body = SystemInfoResponse, example = json!({
        "version": "1.0.0", "uptime": 86400, "connections": 1000, "gatewayVersion": "0.1.0"
    })))
)]
pub(super) async fn get_system_info(
    _: Caller,
    State(app): State<App>,
) -> Result<Envelope<SystemInfoResponse>, Failure> {
    let info = app.client.system_info().await?;
    Ok(Envelope(SystemInfoResponse {
        version: info.version.unwrap_or_else(|| "unknown".to_owned()),
        uptime: info.uptime_s,
        connections: info.connections,
        gateway_version: env!("CARGO_PKG_VERSION"),
    }))
}
