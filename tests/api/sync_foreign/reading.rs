//! Reading where another channel's messages lie.

use super::{FIRST, SECOND, TWIN, dropped};
use crate::support::prelude::*;

/// Every way to ask for a page.
const BOUNDS: [&str; 5] = [
    "",
    "&limit=1",
    "&lastMessageSeq=1",
    "&beforeMessageSeq=3",
    "&beforeMessageSeq=1000&limit=2",
];

#[tokio::test]
async fn a_group_with_the_hash_of_a_pair_shows_nothing_of_the_pair() {
    let app = TestApp::start(V2).await;
    app.user("hc-alice")
        .send_to_person("hc-bob", "private")
        .await
        .ok();
    app.user("hc-bob")
        .send_to_person("hc-alice", "private too")
        .await
        .ok();
    app.user("hc-bob")
        .send_to_person("hc-alice", "and this")
        .await
        .ok();
    // Made past the gateway: through it, it cannot be.
    seeds::group(&app, TWIN, &["mallory", "hc-alice"]);
    assert_eq!(dropped(&app), 0);
    for reader in ["mallory", "hc-alice"] {
        for bounds in BOUNDS {
            app.clear_calls();
            let before = dropped(&app);
            let answer = app.user(reader).sync(GROUP, TWIN, bounds).await;
            assert_eq!(page(answer), (vec![], false), "{reader} {bounds}");
            assert!(!seeds::asked_for(&app).is_empty(), "upstream was asked");
            assert!(dropped(&app) > before, "{reader} {bounds}: counted");
        }
    }
    let pair = app.user("hc-alice").sync(PERSON, "hc-bob", "").await;
    assert_eq!(page(pair), (vec![1, 2, 3], false), "the pair reads its own");
}

#[tokio::test]
async fn a_dropped_message_is_counted_once() {
    let app = TestApp::start(V2).await;
    for text in ["one", "two", "three"] {
        app.user("hc-alice")
            .send_to_person("hc-bob", text)
            .await
            .ok();
    }
    seeds::group(&app, TWIN, &["mallory"]);
    app.user("mallory").sync(GROUP, TWIN, "").await.ok();
    assert_eq!(dropped(&app), 3);
}

#[tokio::test]
async fn a_pair_shows_nothing_of_a_group_with_its_hash() {
    let app = TestApp::start(V2).await;
    seeds::group(&app, TWIN, &["carol"]);
    for _ in 0..3 {
        seeds::message(&app, GROUP, TWIN, "hc-alice", b"for the group");
    }
    for bounds in BOUNDS {
        for (reader, peer) in [("hc-alice", "hc-bob"), ("hc-bob", "hc-alice")] {
            let answer = app.user(reader).sync(PERSON, peer, bounds).await;
            assert_eq!(page(answer), (vec![], false), "{reader} {bounds}");
        }
    }
    assert!(dropped(&app) > 0);
}

#[tokio::test]
async fn two_groups_with_one_hash_show_each_only_its_own() {
    let app = TestApp::start(V2).await;
    let mallory = app.user("mallory");
    seeds::group(&app, FIRST, &["alice"]);
    seeds::message(&app, GROUP, FIRST, "alice", b"among us");
    // The record is the second one's from now on, as are the members of both.
    seeds::group(&app, SECOND, &["mallory"]);
    seeds::message(&app, GROUP, SECOND, "mallory", b"mine");
    let answer = mallory.sync(GROUP, SECOND, "").await;
    assert_eq!(page(answer), (vec![2], false));
    let answer = mallory.sync(GROUP, SECOND, "&beforeMessageSeq=2").await;
    assert_eq!(page(answer), (vec![], false));
    failure(404, "channel_not_found").is(mallory.sync(GROUP, FIRST, "").await);
}

#[tokio::test]
async fn own_messages_between_foreign_ones_are_paged_without_a_gap() {
    let app = TestApp::start(V2).await;
    seeds::group(&app, FIRST, &["alice"]);
    let mut own = Vec::new();
    for n in 0..40 {
        // Foreign ones in runs longer than a page.
        let (id, text) = if n % 13 < 2 {
            (FIRST, "own")
        } else {
            (SECOND, "foreign")
        };
        let seq = seeds::message(&app, GROUP, id, "alice", text.as_bytes());
        if id == FIRST {
            own.push(seq);
        }
    }
    let alice = app.user("alice");
    for limit in 1..=9 {
        let (mut seen, mut bounds) = (Vec::new(), String::new());
        loop {
            let query = format!("&limit={limit}{bounds}");
            let answer = alice.sync(GROUP, FIRST, &query).await;
            assert!(!answer.text.contains("Zm9yZWlnbg"), "{query}: {answer:#?}");
            let (seqs, more) = page(answer);
            seen.splice(0..0, seqs.iter().copied());
            assert_eq!(more, seen.len() < own.len(), "{query}: {seen:?}");
            if !more {
                break;
            }
            bounds = format!("&beforeMessageSeq={}", seen[0]);
        }
        assert_eq!(seen, own, "downwards by {limit}");

        let mut seen = vec![own[0]];
        loop {
            let query = format!("&limit={limit}&lastMessageSeq={}", seen[seen.len() - 1]);
            let (seqs, more) = page(alice.sync(GROUP, FIRST, &query).await);
            seen.extend(seqs);
            assert_eq!(more, seen.len() < own.len(), "{query}: {seen:?}");
            if !more {
                break;
            }
        }
        assert_eq!(seen, own, "upwards by {limit}");
    }
}

#[tokio::test]
async fn a_log_that_is_another_channels_is_given_up_after_a_few_pages() {
    let app = TestApp::start(V2).await;
    seeds::group(&app, FIRST, &["alice"]);
    let own = seeds::message(&app, GROUP, FIRST, "alice", b"own");
    let last = (0..9000)
        .map(|_| seeds::message(&app, GROUP, SECOND, "alice", b"foreign"))
        .last();
    let last = last.unwrap();
    let before_all = format!("&limit=1&beforeMessageSeq={}", last + 1);
    let after_own = format!("&limit=1&lastMessageSeq={own}");
    for (bounds, found, more) in [
        ("&limit=1", vec![], false),
        (&*before_all, vec![], false),
        (&*after_own, vec![], false),
        ("&limit=2&beforeMessageSeq=2", vec![own], false),
    ] {
        app.clear_calls();
        let answer = app.user("alice").sync(GROUP, FIRST, bounds).await;
        assert_eq!(page(answer), (found, more), "{bounds}");
        let looks = app.calls_to("/channel/messagesync").len();
        assert!(looks <= 18, "{bounds}: {looks} pages");
    }
}

#[tokio::test]
async fn messages_of_another_channel_are_dropped() {
    // Not even equal hashes: an upstream that mixes everything up, on either generation.
    for app in TestApp::both().await {
        seeds::two_channels(&app, 2);
        app.faults().always(
            "/channel/messagesync",
            Fault::Status(
                200,
                json!({"start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": [
                    foreign(1, "alice", "carol", 1),
                    foreign(2, "carol", "bob", 1),
                    foreign(3, "alice", "g", 1),
                    foreign(4, "alice", "bob", 2),
                    foreign(5, "alice", "h", 2),
                    foreign(6, "alice", "g ", 2),
                    foreign(7, "alice", "G", 2),
                    foreign(8, "", "", 1),
                ]})
                .to_string(),
            ),
        );
        for (channel_type, id) in [(GROUP, "g"), (PERSON, "bob")] {
            let answer = app.user("alice").sync(channel_type, id, "").await;
            assert_eq!(page(answer), (vec![], false), "{id}");
        }
        assert_eq!(dropped(&app), 16);
    }
}

fn foreign(seq: u64, from: &str, channel: &str, channel_type: u8) -> serde_json::Value {
    json!({
        "header": {"no_persist": 0, "red_dot": 0, "sync_once": 0}, "setting": 0,
        "message_id": 2_124_846_632_913_506_304_u64 + seq, "message_idstr": "x", "client_msg_no": "n",
        "message_seq": seq, "from_uid": from, "channel_id": channel, "channel_type": channel_type,
        "expire": 0, "timestamp": 1_700_000_000, "payload": "YQ==",
    })
}
