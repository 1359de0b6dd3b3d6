//! v2 gives the log under a key to whichever channel touches it first, and keys are hashes of ids that users choose: the gateway
//! touches no key before somebody sends to it, and sends nothing where another channel's log lies.

use dev_upstream::{V2Release, fnv1a64};

use crate::support::prelude::*;

/// Two pairs with one hash, as they are stored.
const PAIR: &str = "hsyf6YpMDetD@ho-eve";
const VICTIMS: &str = "ho-anna@hitrPk9Q-vJD";
/// The peers whom eve has invented, and to whom anna writes.
const INVENTED: &str = "hsyf6YpMDetD";
const FRIEND: &str = "hitrPk9Q-vJD";
/// A group with the hash of the pair hc-alice and hc-bob.
const TWIN: &str = "xbdZAqbat_QtXO";

const LOOK: &str = "/cluster/channels/";

/// The calls that asked whose log it is.
fn looks(app: &TestApp) -> usize {
    let calls = app.nodes().into_iter().flat_map(|node| node.calls_to(LOOK));
    calls.filter(|call| call.path.contains("/config")).count()
}

/// Eve takes the key of anna's pair.
async fn invent(app: &TestApp) {
    let sent = app.user("ho-eve").send_to_person(INVENTED, "1st").await;
    sent.ok();
}

#[tokio::test]
async fn the_pairs_have_one_hash() {
    let [eves, annas] = [PAIR, VICTIMS].map(|pair| fnv1a64(&format!("{pair}-1")));
    assert_eq!(eves, annas);
}

#[tokio::test]
async fn reading_a_pair_without_messages_takes_no_key() {
    for version in V2Release::ALL {
        let app = TestApp::release(version).await;
        for position in ["", "&lastMessageSeq=5", "&beforeMessageSeq=5"] {
            let read = app.user("ho-eve").sync(1, INVENTED, position).await;
            assert_eq!(read.header("x-has-more"), "false");
            assert_eq!(read.ok(), Value::Array(vec![]), "{version:?}");
        }
        // In v2.0.10, which does not say so, a read touches nothing.
        let reads = app.calls_to("/channel/messagesync");
        assert!(reads.is_empty() || version == V2Release::V2_0_10);
        let state = app.state();
        assert_eq!(state.log_owner(1, PAIR), None, "{version:?}");
        app.user("ho-anna").send_to_person(FRIEND, "hi").await.ok();
        assert_eq!(state.messages_between("ho-anna", FRIEND).len(), 1);
    }
}

#[tokio::test]
async fn a_send_to_a_pair_whose_key_is_taken_is_refused() {
    for version in V2Release::ALL {
        let app = TestApp::release(version).await;
        invent(&app).await;
        app.clear_calls();
        let anna = app.user("ho-anna");
        for body in [message(1, FRIEND, "hi"), numbered(1, FRIEND, "hi", "n")] {
            anna.send(&body).await.fails(409, "channel_exists");
        }
        // Again, and from the other side.
        let body = numbered(1, FRIEND, "hi", "n");
        anna.send(&body).await.fails(409, "channel_exists");
        failure(409, "channel_exists").is(app.user(FRIEND).send_to_person("ho-anna", "hi").await);
        let batch = [
            message(1, FRIEND, "a"),
            message(1, "bob", "b"),
            message(1, FRIEND, "c"),
        ];
        let told = anna.send_batch(&batch).await.fails(207, "partial_failure");
        for index in [0, 2] {
            assert_eq!(told.body["data"][index]["error"]["code"], "channel_exists");
        }
        failure(409, "channel_exists").is(anna.send_batch(&batch[..1]).await);
        let sent = app.calls_to("/message/send");
        let to: Vec<_> = sent.iter().map(|call| &call.body["channel_id"]).collect();
        assert_eq!(to, ["bob"], "{version:?}");
        // Theirs goes on, and neither sees the other's.
        assert_eq!(anna.sync(1, FRIEND, "").await.ok(), Value::Array(vec![]));
        let on = app.user("ho-eve").send_to_person(INVENTED, "2nd").await;
        assert_eq!(on.ok()["messageSeq"], 2);
    }
}

#[tokio::test]
async fn on_v3_both_pairs_have_their_own_log() {
    let app = TestApp::start(V3).await;
    invent(&app).await;
    app.user("ho-anna").send_to_person(FRIEND, "hi").await.ok();
    assert_eq!(looks(&app), 0);
}

#[tokio::test]
async fn a_group_is_not_created_under_the_key_of_a_pairs_log() {
    let app = TestApp::start(V2).await;
    // Somebody has looked at the pair, past the gateway; it has no messages.
    app.state().touch_log(1, "hc-bob@hc-alice");
    failure(409, "channel_exists").is(app.user("mallory").create_group(TWIN).await);
    app.nothing_was_written();
    let done = app.user("hc-alice").send_to_person("hc-bob", "hi").await;
    done.ok();

    // And the other way round.
    let app = TestApp::start(V2).await;
    app.user("mallory").create_group(TWIN).await.ok();
    failure(409, "channel_exists").is(app.user("hc-alice").send_to_person("hc-bob", "hi").await);
    assert!(app.calls_to("/message/send").is_empty());
    app.user("mallory").send_to_group(TWIN, "hi").await.ok();

    // A group that was made past the gateway where a pair has its log.
    let app = TestApp::start(V2).await;
    app.state().touch_log(1, "hc-bob@hc-alice");
    app.state().join(TWIN, "carl");
    app.state().ban_group(TWIN, false);
    failure(409, "channel_exists").is(app.user("carl").send_to_group(TWIN, "hi").await);
}

#[tokio::test]
async fn the_owner_check_happens_once_per_channel() {
    let app = TestApp::start(V2).await;
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    for n in 0..3 {
        let text = n.to_string();
        alice.send_to_person("bob", &text).await.ok();
        bob.send_to_person("alice", &text).await.ok();
    }
    assert_eq!(looks(&app), 1);
    let asked = || app.calls_to("/channel/max_message_seq").len();
    assert_eq!(asked(), 0, "a message is known to be there");
    let group = ["g", "h"];
    for id in group {
        app.group(id, "alice", &[]).await;
        for _ in 0..2 {
            alice.send_to_group(id, "hi").await.ok();
        }
        assert_eq!(looks(&app), 1);
        app.clear_calls();
    }
    // Another replica, or the same after a restart.
    let other = app.beside(|_| {}).await;
    for _ in 0..3 {
        let read = other.user("bob").sync(1, "alice", "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 6);
    }
    assert_eq!(asked(), 1);
    assert_eq!(app.calls_to("/channel/messagesync").len(), 3);
    other.user("bob").send_to_person("alice", "hi").await.ok();
    assert_eq!(looks(&app), 0, "its own messages were seen");
}

#[tokio::test]
async fn in_a_cluster_a_missing_log_is_distinguished_from_an_empty_one() {
    let app = TestApp::builder().nodes(3).start().await;
    for _ in 0..6 {
        let read = app.user("ho-eve").sync(1, INVENTED, "").await.ok();
        assert_eq!(read, Value::Array(vec![]));
    }
    assert_eq!(app.state().log_owner(1, PAIR), None);
    app.user("ho-anna").send_to_person(FRIEND, "hi").await.ok();
    let read = app.user(FRIEND).sync(1, "ho-anna", "").await.ok();
    assert_eq!(read.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unused_key_is_not_cached() {
    let app = TestApp::start(V2).await;
    app.next_send(Fault::Status(400, r#"{"msg":"no"}"#.into()));
    let anna = app.user("ho-anna");
    failure(502, "upstream_error").is(anna.send_to_person(FRIEND, "hi").await);
    invent(&app).await;
    failure(409, "channel_exists").is(anna.send_to_person(FRIEND, "hi").await);
}

#[tokio::test]
async fn messages_are_sent_if_v2_cannot_tell_the_log_owner() {
    for answer in [
        Fault::Status(404, "404 page not found".into()),
        Fault::Status(403, "<html>".into()),
        Fault::Status(500, String::new()),
        Fault::Status(400, r#"{"msg":"slot not found","status":400}"#.into()),
        Fault::Garbage,
    ] {
        let app = TestApp::start(V2).await;
        app.add_fault(Rule::new(LOOK, answer.clone()).containing("/1/config"));
        app.add_fault(Rule::new("/channel/max_message_seq", answer.clone()));
        let alice = app.user("alice");
        let sent = alice.send_to_person("bob", "hi").await;
        assert_eq!(sent.ok()["messageSeq"], 1, "{answer:?}");
        let read = app.user("bob").sync(1, "alice", "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1, "{answer:?}");
        // Nor is anything made up of it for a pair that never spoke.
        let read = alice.sync(1, "nobody", "").await.ok();
        assert_eq!(read, Value::Array(vec![]), "{answer:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_if_the_log_owner_is_not_answered() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.timeout = Duration::from_millis(200);
    })
    .await;
    app.add_fault(Rule::new(LOOK, Fault::Hang).containing("/1/config"));
    failure(504, "upstream_timeout").is(app.user("alice").send_to_person("bob", "hi").await);
    assert!(app.calls_to("/message/send").is_empty());
    app.faults().clear();
    app.user("alice").send_to_person("bob", "hi").await.ok();
}

#[tokio::test]
async fn the_lookup_of_a_lost_send_creates_no_log() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_millis(300);
    })
    .await;
    let anna = app.user("ho-anna");
    let body = numbered(1, FRIEND, "hi", "n");
    // It never arrives; nor does its retry, which looks for it first.
    app.faults().always("/message/send", Fault::Reset);
    for _ in 0..2 {
        failure(504, "message_unconfirmed").is(anna.send(&body).await);
    }
    assert!(!app.calls_to("/channel/max_message_seq").is_empty());
    assert!(app.calls_to("/channel/messagesync").is_empty());
    assert_eq!(app.state().log_owner(1, VICTIMS), None);
    // Somebody else takes the place before the third try.
    app.faults().clear();
    invent(&app).await;
    anna.send(&body).await.fails(409, "channel_exists");
}

#[tokio::test]
async fn the_slot_leader_is_asked_in_a_cluster() {
    let app = TestApp::builder().nodes(3).start().await;
    invent(&app).await;
    let passes_on = |node: &&DevUpstream| {
        let looks = node.calls_to(LOOK);
        looks
            .iter()
            .any(|call| call.path.contains("/config?node_id=1001"))
    };
    // Until each node was asked once: which one is, is nobody's choice.
    for _ in 0..500 {
        let anna = app.user("ho-anna");
        let sends = (0..8).map(|_| anna.send_to_person(FRIEND, "hi"));
        for refused in join_all(sends).await {
            refused.fails(409, "channel_exists");
        }
        if app.nodes().iter().all(passes_on) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a node is never asked");
}
