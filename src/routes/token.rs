//! `POST /token`: the caller's connect token for WuKongIM; `POST /token/revoke`: the end of those given out.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, DeviceFlag, ImToken};
use crate::authorization::Audit;
use crate::authorization::callback::Action;
use crate::domain::Uid;
use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::{Json, request};
use crate::state::App;

request! {
    /// Which token.
    #[derive(Debug, ToSchema)]
    pub(super) struct CreateTokenRequest: schema {
        /// 1 (web) unless given.
        "deviceFlag" => device_flag: Option<DeviceFlag>,
    }
    impl {
        const IS_OPTIONAL: bool = true;
    }
}

/// The token, and for whom and what it is.
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
/// The same one for the same user and device until it is revoked; asking again disconnects nobody, unless the deployment says so.
#[utoipa::path(
    post,
    path = "",
    tag = "connection",
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
    /// Whose tokens, and for which device.
    #[derive(Debug, ToSchema)]
    pub(super) struct RevokeTokenRequest: schema {
        /// All three unless given.
        "deviceFlag" => device_flag: Option<DeviceFlag>,
        /// The caller unless given; another user for admins only.
        "uid" => uid: Option<Uid>,
    }
    impl {
        const IS_OPTIONAL: bool = true;
    }
}

/// Whose tokens are worth nothing from now on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokeTokenResponse {
    uid: Uid,
    #[schema(value_type = Vec<DeviceFlag>)]
    device_flags: Vec<u8>,
}

/// Makes the connect tokens given out so far worthless, and ends their connections.
#[utoipa::path(
    post,
    path = "",
    tag = "connection",
    request_body(content = Option<RevokeTokenRequest>, example = json!({"deviceFlag": 1})),
    responses((status = 200, description = "They are worth nothing.", body = RevokeTokenResponse, example = json!({
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
    revoked?;
    Ok(Envelope(RevokeTokenResponse {
        uid,
        device_flags: devices.into_iter().map(DeviceFlag::number).collect(),
    }))
}
