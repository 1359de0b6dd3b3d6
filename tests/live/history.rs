//! `GET /message/sync`.

use serde_json::json;

use crate::support::actors::payload;
use crate::support::answer::failure;
use crate::support::messages::seqs;
use crate::support::real::{Server, TestApp, each_server, people};

const COUNT: u64 = 25;

/// A group of `alice`, or her conversation with `bob`, with 25 messages.
async fn filled(server: &Server, app: &TestApp, alice: &str, bob: &str, kind: u8) -> String {
    let id = match kind {
        1 => bob.to_owned(),
        _ => app.group(alice, &[bob]).await,
    };
    let batch: Vec<_> = (1..=COUNT)
        .map(|n| json!({"channelId": id, "channelType": kind, "payload": payload(&n.to_string())}))
        .collect();
    let sent = app.user(alice).send_batch(&batch).await;
    let mut sent = seqs(&sent.ok());
    if server.is_cluster() {
        sent.sort_unstable();
    }
    assert_eq!(sent, (1..=COUNT).collect::<Vec<_>>());
    id
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn pages_in_both_directions_skip_nothing_and_reach_the_first_message() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        for kind in [1, 2] {
            let [alice, bob] = people(["alice", "bob"]);
            let id = filled(&server, &app, &alice, &bob, kind).await;
            let reader = app.user(&alice);

            let newest = reader.sync(kind, &id, "&limit=10").await;
            assert_eq!(newest.header("x-has-more"), "true");
            assert_eq!(seqs(&newest.ok()), (16..=25).collect::<Vec<_>>());

            let mut read = Vec::new();
            let mut last = 1;
            loop {
                let more = format!("&limit=7&lastMessageSeq={last}");
                let page = reader.sync(kind, &id, &more).await;
                let has_more = page.header("x-has-more") == "true";
                read.extend(seqs(&page.ok()));
                last = *read.last().unwrap();
                if !has_more {
                    break;
                }
            }
            assert_eq!(read, (2..=COUNT).collect::<Vec<_>>());

            let mut read = Vec::new();
            let mut before = COUNT + 1;
            loop {
                let more = format!("&limit=6&beforeMessageSeq={before}");
                let page = reader.sync(kind, &id, &more).await;
                let has_more = page.header("x-has-more") == "true";
                let page = seqs(&page.ok());
                before = page[0];
                read.splice(..0, page);
                if !has_more {
                    break;
                }
            }
            assert_eq!(read, (1..=COUNT).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn positions_outside_the_history_are_answered_as_what_is_there() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        for kind in [1, 2] {
            let [alice, bob] = people(["alice", "bob"]);
            let id = filled(&server, &app, &alice, &bob, kind).await;
            let reader = app.user(&alice);
            for (more, expected, has_more) in [
                ("&lastMessageSeq=25", vec![], "false"),
                ("&lastMessageSeq=1000", vec![], "false"),
                ("&beforeMessageSeq=1", vec![], "false"),
                ("&beforeMessageSeq=2", vec![1], "false"),
                ("&beforeMessageSeq=1000&limit=3", vec![23, 24, 25], "true"),
                ("&lastMessageSeq=0&limit=2", vec![24, 25], "true"),
                ("&lastMessageSeq=24", vec![25], "false"),
                ("&limit=25", (1..=25).collect(), "false"),
            ] {
                let page = reader.sync(kind, &id, more).await;
                assert_eq!(page.header("x-has-more"), has_more, "{more}");
                assert_eq!(seqs(&page.ok()), expected, "{more}");
            }
            failure(400, "invalid_request").is(reader
                .sync(kind, &id, "&lastMessageSeq=3&beforeMessageSeq=9")
                .await);
        }
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_group_without_messages_and_a_pair_that_never_spoke_are_empty() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let group = app.group(&alice, &[]).await;
        for (kind, id) in [(2, &group), (1, &bob)] {
            for more in ["", "&lastMessageSeq=5", "&beforeMessageSeq=5"] {
                let page = app.user(&alice).sync(kind, id, more).await;
                assert_eq!(page.header("x-has-more"), "false", "{more}");
                assert_eq!(page.ok(), json!([]), "{more}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_page_ends_at_its_byte_limit_and_the_next_goes_on() {
    for server in each_server() {
        let app =
            TestApp::start_with(&server, |settings| settings.limits.sync_bytes = 70_000).await;
        let [alice] = people(["alice"]);
        let group = app.group(&alice, &[]).await;
        for _ in 0..5 {
            let large = "x".repeat(30_000);
            app.user(&alice).send_to_group(&group, &large).await.ok();
        }
        let reader = app.user(&alice);
        let page = reader.sync(2, &group, "").await;
        assert_eq!(page.header("x-has-more"), "true");
        assert_eq!(seqs(&page.ok()), [4, 5]);
        let page = reader.sync(2, &group, "&lastMessageSeq=1").await;
        assert_eq!(page.header("x-has-more"), "true");
        assert_eq!(seqs(&page.ok()), [2, 3]);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn reading_a_pair_without_messages_creates_no_log_on_v2() {
    for server in each_server() {
        if !server.is_v2() {
            continue;
        }
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        for position in ["", "&lastMessageSeq=3", "&beforeMessageSeq=3"] {
            let read = app.user(&alice).sync(1, &bob, position).await;
            assert_eq!(read.header("x-has-more"), "false");
            assert_eq!(read.ok(), json!([]));
        }
        // As v2 stores the pair, in either order: of a cluster one node says `not found`, the others that they do not lead its slot.
        for pair in [format!("{alice}%40{bob}"), format!("{bob}%40{alice}")] {
            let path = format!("/cluster/channels/{pair}/1/config");
            let (status, told) = server.call("GET", &path, None).await;
            assert_eq!(status, 400, "{told}");
        }
        let sent = app.user(&bob).send_to_person(&alice, "hi").await.ok();
        assert_eq!(sent["messageSeq"], 1);
        let read = app.user(&alice).sync(1, &bob, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1);
    }
}
