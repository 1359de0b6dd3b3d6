//! `POST /token`: the caller's connect token for WuKongIM.

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::auth::{Caller, DeviceFlag};
use crate::config::{DeviceLevel, Limits};
use crate::domain::Uid;
use crate::error::{ApiError, Failure};
use crate::extract::{Fields, FromJson, Json, Problems};
use crate::response::Envelope;
use crate::wukongim::{Error, Reason};

/// The optional body.
#[derive(Debug)]
pub(super) struct CreateTokenRequest {
    device: DeviceFlag,
}

impl FromJson for CreateTokenRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let flag = Fields::of_body(body, limits, problems)?.device_flag()?;
        let device = flag
            .and_then(DeviceFlag::from_number)
            .unwrap_or(DeviceFlag::Web);
        Some(Self { device })
    }
}

/// The token, and for whom and what it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateTokenResponse {
    token: String,
    uid: Uid,
    device_flag: u8,
}

/// Makes the token and registers it with WuKongIM, on each call: WuKongIM may have lost it.
pub(super) async fn create_token(
    caller: Caller,
    State(app): State<App>,
    Json(CreateTokenRequest { device }): Json<CreateTokenRequest>,
) -> Result<Envelope<CreateTokenResponse>, Failure> {
    // The number of revocations; raised by a later `/token/revoke`.
    let token = app.im_tokens().token(&caller.uid, device, 0);
    let levels = &app.settings().im_token.level;
    let level = match device {
        DeviceFlag::App => levels.app,
        DeviceFlag::Web => levels.web,
        DeviceFlag::Pc => levels.pc,
    };
    let master = level == DeviceLevel::Master;
    match app
        .client()
        .register_token(&caller.uid, &token, device.number(), master)
        .await
    {
        Ok(()) => Ok(Envelope(CreateTokenResponse {
            token,
            uid: caller.uid,
            device_flag: device.number(),
        })),
        // v2 tells a banned user in band, with HTTP 200.
        Err(Error::Refused(Reason::BANNED)) => Err(ApiError::Forbidden.into()),
        Err(error) => Err(error.into()),
    }
}
