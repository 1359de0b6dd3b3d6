//! `POST /message/send` and `/message/sendbatch`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::actors::payload;
use crate::support::messages::seqs;
use crate::support::real::{TestApp, each_server, people, unique};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_message_to_a_person_has_its_real_seq_and_both_sides_read_it() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob, eve] = people(["alice", "bob", "eve"]);
        let mut ids = Vec::new();
        for seq in 1..=3 {
            let number = format!("n-{seq}");
            let body = json!({"channelId": bob, "channelType": 1, "payload": payload("hi"), "clientMsgNo": number});
            let sent = app.user(&alice).send(&body).await.ok();
            assert_eq!(sent["messageSeq"], seq, "{sent}");
            assert_eq!(sent["clientMsgNo"], *number);
            ids.push(sent["messageId"].as_str().unwrap().to_owned());
        }
        let answered = app.user(&bob).send_to_person(&alice, "hello").await.ok();
        assert_eq!(answered["messageSeq"], 4, "one log for both directions");
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(now_ms.as_millis()).unwrap();
        for (reader, peer) in [(&alice, &bob), (&bob, &alice)] {
            let read = app.user(reader).sync(1, peer, "").await.ok();
            assert_eq!(seqs(&read), [1, 2, 3, 4]);
            for message in read.as_array().unwrap() {
                assert_eq!(message["channelId"], *peer.as_str(), "{message}");
                assert_eq!(message["channelType"], 1);
                let ms = message["timestamp"].as_i64().unwrap();
                assert!((now_ms - ms).abs() < 60_000, "{message}");
            }
            assert_eq!(read[0]["messageId"], *ids[0]);
            assert_eq!(read[0]["fromUid"], *alice);
            assert_eq!(read[0]["clientMsgNo"], "n-1");
            assert_eq!(read[0]["payload"], payload("hi"));
            assert_eq!(read[3]["fromUid"], *bob);
        }
        let nothing = app.user(&eve).sync(1, &bob, "").await;
        assert_eq!(nothing.header("x-has-more"), "false");
        assert_eq!(nothing.ok(), json!([]));
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_note_to_oneself_is_a_conversation_like_any_other_on_v2_and_never_reaches_v3() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let sent = app.user(&alice).send_to_person(&alice, "note").await;
        if !server.is_v2() {
            sent.names(&["channelId"]);
            continue;
        }
        assert_eq!(sent.ok()["messageSeq"], 1);
        let read = app.user(&alice).sync(1, &alice, "").await.ok();
        assert_eq!(seqs(&read), [1]);
        assert_eq!(read[0]["channelId"], *alice);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn sixteen_clients_get_distinct_gapless_seqs_that_match_the_history() {
    const EACH: usize = 5;
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let members: Vec<_> = (0..16).map(|_| unique("u")).collect();
        let others: Vec<_> = members[1..].iter().map(String::as_str).collect();
        let group = app.group(&members[0], &others).await;
        let (app, group) = (&app, group.as_str());
        let sending = members.iter().map(|uid| async move {
            let mut sent: Vec<(u64, String, String)> = Vec::new();
            for _ in 0..EACH {
                let answer = app.user(uid).send_to_group(group, uid).await.ok();
                let seq = answer["messageSeq"].as_u64().unwrap();
                assert!(sent.last().is_none_or(|(last, ..)| *last < seq), "in order");
                let id = answer["messageId"].as_str().unwrap().to_owned();
                sent.push((seq, id, uid.clone()));
            }
            sent
        });
        let sent = futures_util::future::join_all(sending).await;
        let sent: BTreeSet<_> = sent.into_iter().flatten().collect();
        let expected: Vec<_> = (1..=16 * EACH as u64).collect();
        let got: Vec<_> = sent.iter().map(|(seq, ..)| *seq).collect();
        assert_eq!(got, expected);
        let read = app.user(&members[3]).sync(2, group, "&limit=200").await;
        let read = read.ok();
        let stored = read.as_array().unwrap().iter().map(|message| {
            let text = |key: &str| message[key].as_str().unwrap().to_owned();
            let seq = message["messageSeq"].as_u64().unwrap();
            (seq, text("messageId"), text("fromUid"))
        });
        assert_eq!(stored.collect::<BTreeSet<_>>(), sent);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_batch_keeps_the_order_of_each_channel() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob, carol] = people(["alice", "bob", "carol"]);
        let group = app.group(&alice, &[&bob]).await;
        let targets = [
            (&group, 2),
            (&bob, 1),
            (&group, 2),
            (&carol, 1),
            (&group, 2),
        ];
        let batch: Vec<_> = targets
            .iter()
            .enumerate()
            .map(|(n, (id, kind))| json!({"channelId": id, "channelType": kind, "payload": payload(&n.to_string())}))
            .collect();
        let sent = app.user(&alice).send_batch(&batch).await;
        let sent = sent.ok();
        if server.is_cluster() {
            continue;
        }
        assert_eq!(seqs(&sent), [1, 1, 2, 1, 3]);
        let read = app.user(&bob).sync(2, &group, "").await.ok();
        for (message, n) in read.as_array().unwrap().iter().zip([0, 2, 4]) {
            assert_eq!(message["payload"], payload(&n.to_string()));
        }
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_batch_that_is_sent_in_part_says_so_for_each_message() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let foreign = app.group(&bob, &[]).await;
        let item = |id: &str, kind: u8| json!({"channelId": id, "channelType": kind, "payload": payload("x")});
        let batch = [item(&bob, 1), item(&foreign, 2)];
        let sent = app.user(&alice).send_batch(&batch).await;
        assert_eq!(sent.status, 207, "{sent:#?}");
        assert_eq!(sent.body["code"], "partial_failure");
        assert_eq!(sent.body["data"][0]["messageSeq"], 1);
        assert_eq!(sent.body["data"][1]["error"]["code"], "not_a_member");
        let batch = [item(&bob, 1), item(&bob, 3)];
        let refused = app.user(&alice).send_batch(&batch).await;
        refused.names(&["[1].channelType"]);
        assert_eq!(
            seqs(&app.user(&alice).sync(1, &bob, "").await.ok()),
            [1],
            "nothing of a bad batch is sent"
        );
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn the_largest_payload_and_the_longest_ids_arrive_as_they_were_sent() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let alice = format!("{}-", unique("a"));
        let alice = format!("{alice:x<128}");
        let group = format!("{}-", unique("g"));
        let group = format!("{group:x<128}");
        app.user(&alice).create_group(&group).await.ok();
        let config = app.user(&alice).get("/config").await.ok();
        let borne = config["limits"]["payloadBytes"].as_u64().unwrap();
        let most = usize::try_from(borne).unwrap();
        let most = if server.is_cluster() {
            most.min(32_767)
        } else {
            most
        };
        let large = payload(&"x".repeat(most - 24));
        let number = "n".repeat(128);
        let body =
            json!({"channelId": group, "channelType": 2, "payload": large, "clientMsgNo": number});
        let sent = app.user(&alice).send(&body).await.ok();
        assert_eq!(sent["messageSeq"], 1);
        let read = app.user(&alice).sync(2, &group, "").await.ok();
        assert_eq!(read[0]["payload"], *large);
        assert_eq!(read[0]["clientMsgNo"], *number);
        assert_eq!(read[0]["fromUid"], *alice);
    }
}
