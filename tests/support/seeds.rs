//! What lies upstream before a test begins, put there without a call and behind the gateway's back.

use dev_upstream::{GROUP, PERSON, StoredMessage};
use serde_json::Value;

use super::answer::Answer;
use super::app::TestApp;
use super::messages::seqs;

/// A group that upstream has and the gateway's store does not know.
pub fn group(app: &TestApp, id: &str, members: &[&str]) {
    app.upstream.state().ban_group(id, false);
    for uid in members {
        app.upstream.state().join(id, uid);
    }
}

/// Stores a message of `from` with this payload; its seq.
pub fn message(app: &TestApp, channel_type: u8, id: &str, from: &str, payload: &[u8]) -> u64 {
    let channel_id = match channel_type {
        PERSON => app.upstream.dialect().person_channel_id(from, id),
        _ => id.to_owned(),
    };
    let (_, seq) = app.upstream.state().store_message(StoredMessage {
        channel_id,
        channel_type,
        from_uid: from.to_owned(),
        payload: payload.to_vec(),
        ..StoredMessage::default()
    });
    seq
}

/// The group `g` of alice and bob and the pair of both, each with `count` messages.
pub fn two_channels(app: &TestApp, count: usize) {
    group(app, "g", &["alice", "bob"]);
    for n in 0..count {
        let from = if n % 2 == 0 { "alice" } else { "bob" };
        let to = if n % 2 == 0 { "bob" } else { "alice" };
        message(app, GROUP, "g", from, b"in the group");
        message(app, PERSON, to, from, b"between us");
    }
}

/// The seqs of a page, and what `x-has-more` says.
#[track_caller]
pub fn page(answer: Answer) -> (Vec<u64>, bool) {
    let has_more = match answer.header("x-has-more") {
        "true" => true,
        "false" => false,
        other => panic!("x-has-more is {other:?}: {answer:#?}"),
    };
    (seqs(&answer.ok()), has_more)
}

/// The calls to `/channel/messagesync` and the `limit` of each.
pub fn asked_for(app: &TestApp) -> Vec<u64> {
    let calls = app.calls_to("/channel/messagesync");
    let limit = |body: &Value| body["limit"].as_u64().expect("a limit");
    calls.iter().map(|call| limit(&call.body)).collect()
}
