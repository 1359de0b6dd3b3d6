//! Who may read and send.

mod cache;
mod failures;
mod matrix;
mod open;
mod persons;
mod policy;
mod roles;
mod store;
mod swaps;

use dev_upstream::{Dialect, GROUP};

use crate::support::TestApp;
use crate::support::answer::Answer;

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
    if app.dialect == Dialect::V2 {
        let sent = app.calls_to("/message/send");
        assert!(sent.is_empty(), "{sent:#?}");
    }
}
