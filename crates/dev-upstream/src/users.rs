//! Tokens, devices and who is online: `/user/*`, nearly alike in both generations.

use serde_json::json;

use super::{
    Dialect, V2Release, go_json,
    keys::{PERSON, SYSTEM_UID},
    reply::{Crash, Reply, Request},
    requests::{DeviceQuit, TokenChange},
    state::State,
    v3_messages::DEADLY_TEXT as DEADLY_TEXT_V3,
};

const MALFORMED: &str = "数据格式有误！";
/// Device level 1: a token for the master device ends that device's other sessions.
const MASTER: u8 = 1;
/// App, web and PC: the devices that "all" means.
const DEVICE_FLAGS: [u8; 3] = [0, 1, 2];
/// What the DISCONNECT of such a session says: the account is in use on another device.
const OTHER_DEVICE: &str = "账号在其他设备上登录";
const BANNED: u16 = 19;
const DISBANDED: u16 = 24;

pub(super) fn token(state: &State, release: V2Release, request: &Request<'_>) -> Reply {
    let mut inner = state.lock();
    let change: TokenChange = match go_json::parse(request.body, "api.UpdateTokenReq") {
        Ok(change) => change,
        Err(error) if inner.dialect == Dialect::V2 => return Reply::bad(error),
        Err(_) => return Reply::bad("invalid request"),
    };
    if change.uid.is_empty() {
        return Reply::bad("uid不能为空！");
    }
    if change.token.is_empty() {
        return Reply::bad("token不能为空！");
    }
    if change.uid.contains(['@', '#', '&']) {
        return Reply::bad("uid不能包含特殊字符！");
    }
    if change.uid == SYSTEM_UID {
        return Reply::bad("系统账号不允许更新token！");
    }
    if inner.dialect == Dialect::V3 && change.token.len() >= DEADLY_TEXT_V3 {
        return Reply::ok().with_crash(Crash::BeforeAnswer);
    }
    if inner.dialect == Dialect::V2 {
        let flags = inner.flags(&change.uid, PERSON);
        if flags.ban {
            return Reply::soft(BANNED);
        }
        if flags.disband && release >= V2Release::V2_2_1 {
            return Reply::soft(DISBANDED);
        }
    }
    inner.set_token(&change.uid, change.device_flag, change.token);
    // Seen: v3 kicks nobody.
    if change.device_level == MASTER && inner.dialect == Dialect::V2 {
        inner.kick(&change.uid, change.device_flag, OTHER_DEVICE);
    }
    Reply::ok()
}

pub(super) fn device_quit(state: &State, request: &Request<'_>) -> Reply {
    let mut inner = state.lock();
    let quit: DeviceQuit = match go_json::parse(request.body, "api.DeviceQuitReq") {
        Ok(quit) => quit,
        Err(error) if inner.dialect == Dialect::V2 => return Reply::bad(error),
        Err(_) => return Reply::bad(MALFORMED),
    };
    if quit.device_flag == -1 {
        for device_flag in DEVICE_FLAGS {
            inner.quit(&quit.uid, device_flag);
        }
    } else if let Ok(device_flag) = u8::try_from(quit.device_flag) {
        inner.quit(&quit.uid, device_flag);
    }
    Reply::ok()
}

pub(super) fn online_status(state: &State, request: &Request<'_>) -> Reply {
    let inner = state.lock();
    let uids: Vec<String> = match go_json::parse(request.body, "[]string") {
        Ok(uids) => uids,
        Err(error) if inner.dialect == Dialect::V2 => return Reply::bad_binding(error),
        Err(_) => return Reply::bad(MALFORMED),
    };
    if uids.is_empty() {
        return Reply::ok();
    }
    let rows: Vec<_> = uids
        .iter()
        .flat_map(|uid| {
            inner
                .online
                .of(uid)
                .iter()
                .map(move |online| (uid, online.device_flag))
        })
        .map(|(uid, device_flag)| json!({ "uid": uid, "device_flag": device_flag, "online": 1 }))
        .collect();
    Reply::json(200, &rows)
}
