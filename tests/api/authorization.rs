//! Who may read and send.

mod cache;
mod failures;
mod lookups;
mod matrix;
mod open;
mod persons;
mod roles;
mod sockets;
mod store;
mod swaps;

use wukongim_gateway::config::Mode;

use crate::support::prelude::*;

/// What was asked of the lists and states; whose log a channel has is another matter.
fn looked_up(app: &TestApp) -> Vec<String> {
    let calls = app.calls_to("/cluster/channels").into_iter();
    let paths = calls.map(|call| call.path);
    let mut paths: Vec<_> = paths.filter(|path| !path.contains("/config")).collect();
    paths.sort();
    paths
}

/// A gateway for each dialect and each of the modes `members` and `open`.
async fn in_both_modes() -> Vec<TestApp> {
    let mut apps = Vec::new();
    for dialect in [V2, V3] {
        for mode in [Mode::Members, Mode::Open] {
            let app = TestApp::with(dialect, move |settings| settings.authorization.mode = mode);
            apps.push(app.await);
        }
    }
    apps
}

/// The answers to a user's send and sync in the group `g`.
async fn tries(app: &TestApp, uid: &str) -> (Answer, Answer) {
    let user = app.user(uid);
    let sent = user.send_to_group("g", "x").await;
    (sent, user.sync(GROUP, "g", "").await)
}

/// Asserts that `uid` can send to the group `g` and read it.
async fn is_in(app: &TestApp, uid: &str) {
    let (sent, read) = tries(app, uid).await;
    sent.ok();
    read.ok();
}

/// Asserts that `uid` can neither send to the group `g` nor read it, and that nothing is stored or, where the gateway decides
/// itself, sent.
async fn is_kept_out(app: &TestApp, uid: &str, status: u16, code: &str) {
    let before = app.state().messages(GROUP, "g").len();
    app.clear_calls();
    let (sent, read) = tries(app, uid).await;
    sent.fails(status, code);
    read.fails(status, code);
    assert_eq!(app.state().messages(GROUP, "g").len(), before);
    nothing_was_sent(app);
}

/// Asserts that v2, which would have taken it, got no message.
#[track_caller]
fn nothing_was_sent(app: &TestApp) {
    if app.dialect == V2 {
        let sent = app.calls_to("/message/send");
        assert!(sent.is_empty(), "{sent:#?}");
    }
}
