//! `POST /token`: the caller's connect token for WuKongIM; `POST /token/revoke`: revokes those issued so far.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, DeviceFlag, ImToken, ImTokenError};
use crate::authorization::Audit;
use crate::authorization::callback::Action;
use crate::domain::Uid;
use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::{Json, request};
use crate::state::App;

request! {
    /// The device of the token.
    #[derive(Debug, ToSchema)]
    pub(super) struct CreateTokenRequest: schema {
        /// 1 (web) by default.
        "deviceFlag" => device_flag: Option<DeviceFlag>,
    }
    impl {
        const IS_OPTIONAL: bool = true;
    }
}

/// The token, its user and its device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateTokenResponse {
    token: ImToken,
    uid: Uid,
    #[schema(value_type = DeviceFlag)]
    device_flag: u8,
}

/// The caller's connect token for WuKongIM.
///
/// The token of a user and device stays the same until it is revoked. A repeated call closes no connections, unless the deployment is
/// configured to do so.
#[utoipa::path(
    post,
    path = "",
    tag = "connection",
    extensions(("x-summary-zh" = json!("获取当前用户连接悟空IM用的 Token"))),
    request_body(content = Option<CreateTokenRequest>, example = json!({"deviceFlag": 1})),
    responses((status = 200, description = "The token.", body = CreateTokenResponse, example = json!({
        "token": "wukongim-token", "uid": "user1", "deviceFlag": 1
    })))
)]
pub(super) async fn create_token(
    caller: Caller,
    State(app): State<App>,
    Json(CreateTokenRequest { device_flag }): Json<CreateTokenRequest>,
) -> Result<Envelope<CreateTokenResponse>, Failure> {
    let device = device_flag.unwrap_or(DeviceFlag::Web);
    let token = app.im_tokens.issue(&caller.uid, device).await?;
    Ok(Envelope(CreateTokenResponse {
        token,
        uid: caller.uid,
        device_flag: device.number(),
    }))
}

request! {
    /// The user and the device of the tokens.
    #[derive(Debug, ToSchema)]
    pub(super) struct RevokeTokenRequest: schema {
        /// All three by default.
        "deviceFlag" => device_flag: Option<DeviceFlag>,
        /// The caller by default; another user only for admins.
        "uid" => uid: Option<Uid>,
    }
    impl {
        const IS_OPTIONAL: bool = true;
    }
}

/// The user and the devices of the revoked tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokeTokenResponse {
    uid: Uid,
    #[schema(value_type = Vec<DeviceFlag>)]
    device_flags: Vec<u8>,
}

/// Revokes the connect tokens issued so far, and closes their connections.
#[utoipa::path(
    post,
    path = "",
    tag = "connection",
    extensions(("x-summary-zh" = json!("吊销已发出的连接 Token，并断开用它建立的连接"))),
    request_body(content = Option<RevokeTokenRequest>, example = json!({"deviceFlag": 1})),
    responses((status = 200, description = "The tokens are revoked.", body = RevokeTokenResponse, example = json!({
        "uid": "user1", "deviceFlags": [1]
    })))
)]
pub(super) async fn revoke_token(
    caller: Caller,
    State(app): State<App>,
    Json(RevokeTokenRequest { device_flag, uid }): Json<RevokeTokenRequest>,
) -> Result<Envelope<RevokeTokenResponse>, Failure> {
    let uid = uid.unwrap_or_else(|| caller.uid.clone());
    let is_foreign = uid != caller.uid;
    if is_foreign && !caller.is_admin {
        return Err(ApiError::Forbidden.into());
    }
    let devices = device_flag.map_or(DeviceFlag::ALL.to_vec(), |device| vec![device]);
    let due = Arc::new(is_foreign.into());
    let audit = Audit::new(&caller.uid, Some(&uid), Action::TokenRevoke, None, due);
    let revoked = app.im_tokens.revoke(&uid, &devices).await;
    audit.record_outcome(&revoked);
    // Unless the store did not count it; what WuKongIM has not done yet changes nothing here.
    if !matches!(revoked, Err(ImTokenError::Store(_))) {
        app.sockets.end_revoked(&uid, &devices);
    }
    revoked?;
    Ok(Envelope(RevokeTokenResponse {
        uid,
        device_flags: devices.into_iter().map(DeviceFlag::number).collect(),
    }))
}
