//! What a clientMsgNo promises.

use serde_json::json;

use crate::support::actors::payload;
use crate::support::answer::failure;
use crate::support::messages::numbered;
use crate::support::real::{TestApp, each_server, people};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_repeated_client_msg_no_stores_nothing_twice_and_another_payload_is_a_conflict() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let group = app.group(&alice, &[&bob]).await;
        let body = numbered(2, &group, "hi", "n-1");
        let first = app.user(&alice).send(&body).await.ok();
        let again = app.user(&alice).send(&body).await.ok();
        assert_eq!(again["messageId"], first["messageId"]);
        assert_eq!(again["messageSeq"], first["messageSeq"]);
        let other = numbered(2, &group, "other", "n-1");
        failure(409, "message_conflict").is(app.user(&alice).send(&other).await);
        // Another sender's number is another number.
        let bobs = app.user(&bob).send(&other).await.ok();
        assert_eq!(bobs["messageSeq"], 2);
        let read = app.user(&bob).sync(2, &group, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 2, "{read}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn concurrent_duplicates_store_one_message() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let group = app.group(&alice, &[]).await;
        let body = numbered(2, &group, "hi", "same");
        let sending = (0..8).map(|_| async { app.user(&alice).send(&body).await.ok() });
        let sent = futures_util::future::join_all(sending).await;
        for answer in &sent {
            assert_eq!(answer["messageId"], sent[0]["messageId"]);
            assert_eq!(answer["messageSeq"], 1);
        }
        let read = app.user(&alice).sync(2, &group, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1, "{read}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn another_senders_client_msg_no_is_ignored() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let group = app.group(&alice, &[&bob]).await;
        server.send(&bob, &group, "n-1", &payload("bob's")).await;
        let body = numbered(2, &group, "alice's", "n-1");
        let sent = app.user(&alice).send(&body).await.ok();
        let read = app.user(&alice).sync(2, &group, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 2, "{read}");
        let mine = read.as_array().unwrap().iter();
        let mine = mine
            .filter(|message| message["fromUid"] == *alice)
            .collect::<Vec<_>>();
        assert_eq!(mine[0]["messageId"], sent["messageId"]);
        assert_eq!(mine[0]["messageSeq"], sent["messageSeq"]);
        assert_eq!(mine[0]["payload"], payload("alice's"));
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn with_duplicate_check_upstream_a_restarted_gateway_knows_the_first_message() {
    for server in each_server() {
        let [alice, bob] = people(["alice", "bob"]);
        let body = json!({"channelId": bob, "channelType": 1, "payload": payload("hi"), "clientMsgNo": "n-1"});
        let mut first = None;
        for _ in 0..2 {
            let app = TestApp::start_with(&server, |settings| {
                settings.wukongim.duplicate_check =
                    wukongim_gateway::config::DuplicateCheck::Upstream;
            })
            .await;
            let sent = app.user(&alice).send(&body).await.ok();
            assert_eq!(*first.get_or_insert(sent.clone()), sent);
        }
    }
}
