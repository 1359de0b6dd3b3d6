//! `POST /message/sendbatch`: all checked first, each sent by the rules of a single send.

mod outcomes;

use crate::support::messages::{seqs, series};
use crate::support::prelude::*;

#[tokio::test]
async fn results_come_in_the_order_of_the_request_and_channels_keep_theirs() {
    for app in TestApp::both_with_group(&[]).await {
        app.group("h", "alice", &[]).await;
        let (g, bob, h) = ((2, "g"), (1, "bob"), (2, "h"));
        let bodies = [g, bob, h, g, g, bob, h].into_iter().enumerate();
        let bodies = bodies.map(|(n, (channel_type, id))| {
            numbered(channel_type, id, &n.to_string(), &format!("n-{n}"))
        });
        let bodies: Vec<_> = bodies.collect();
        let data = app.user("alice").send_batch(&bodies).await.ok();
        assert_eq!(seqs(&data), [1, 1, 1, 2, 3, 2, 2]);
        for (entry, body) in data.as_array().unwrap().iter().zip(&bodies) {
            assert_eq!(entry["clientMsgNo"], body["clientMsgNo"]);
            assert!(entry["messageId"].is_string(), "{entry}");
            assert!(entry["timestamp"].is_u64(), "{entry}");
        }
        let stored = app.state().messages(2, "g");
        let texts = stored.iter().map(|message| message.payload.to_string());
        assert!(texts.eq(["0", "3", "4"].map(payload)), "{stored:?}");
    }
}

#[tokio::test]
async fn order_is_kept_where_each_message_takes_its_time() {
    for app in TestApp::both_with_group(&[]).await {
        // The earlier, the slower.
        for n in 0..5_u8 {
            let delay = Fault::Delay(Duration::from_millis(10 * u64::from(5 - n)));
            app.each_send(&format!("n-{n}"), delay);
        }
        let bodies = series(5);
        let data = app.user("alice").send_batch(&bodies).await.ok();
        assert_eq!(seqs(&data), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn channels_go_side_by_side() {
    for app in TestApp::both().await {
        app.always("/message/send", Fault::Hold("sends".into()));
        let bodies: Vec<_> = (0..4)
            .map(|n| message(1, &format!("peer{n}"), "hi"))
            .collect();
        let alice = app.user("alice");
        let all_out = async {
            // Were they sent one after the other, the second would never come.
            app.faults().wait_held("sends", 4).await;
            app.faults().release("sends");
        };
        let (answer, ()) = tokio::join!(alice.send_batch(&bodies), all_out);
        assert_eq!(seqs(&answer.ok()), [1, 1, 1, 1]);
    }
}

#[tokio::test]
async fn a_full_batch_in_one_channel_keeps_its_order() {
    for app in TestApp::both_with_group(&[]).await {
        let bodies: Vec<_> = (0..100).map(|n| message(2, "g", &n.to_string())).collect();
        let data = app.user("alice").send_batch(&bodies).await.ok();
        assert!(seqs(&data).into_iter().eq(1..=100));
    }
}

#[tokio::test]
async fn a_full_batch_to_a_slow_cluster_is_confirmed_together() {
    let app = TestApp::with_group(V2, &[]).await;
    let late = Fault::StoreLate(Duration::from_millis(300));
    app.faults().always("/message/send", late);
    let bodies: Vec<_> = (0..100).map(|n| message(2, "g", &n.to_string())).collect();
    let data = app.user("alice").send_batch(&bodies).await.ok();
    let mut seqs = seqs(&data);
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=100));
    // One after the other they would take thirty seconds, and the request ends after ten.
    assert!(app.looks() <= 500, "{} looks for 100 messages", app.looks());
}

#[tokio::test]
async fn more_channels_than_go_side_by_side_are_all_served() {
    for app in TestApp::both().await {
        let bodies: Vec<_> = (0..60)
            .map(|n| message(1, &format!("peer{n}"), "hi"))
            .collect();
        let data = app.user("alice").send_batch(&bodies).await.ok();
        assert_eq!(seqs(&data), [1; 60]);
    }
}

#[tokio::test]
async fn an_admin_sends_as_many_in_one_batch() {
    for app in TestApp::both_with_group(&["bob"]).await {
        let senders = ["alice", "stranger", "bob", "root"];
        let bodies = senders.map(|uid| as_user(uid, numbered(2, "g", uid, "n")));
        let answer = failure(207, "partial_failure").is(app.admin().send_batch(&bodies).await);
        let expected = ["sent", "not_a_member", "sent", "not_a_member"];
        assert_eq!(answer.outcomes(), expected);
        let data = &answer.body["data"];
        assert_eq!(data[0]["messageSeq"], 1);
        assert_eq!(data[2]["messageSeq"], 2);
        let senders = app.stored_in("g").into_iter().map(|stored| stored.0);
        assert!(senders.eq(["alice", "bob"]));
    }
}

#[tokio::test]
async fn refused_messages_do_not_stop_the_next_ones_from_waiting_for_each_other() {
    let app = TestApp::with_group(V2, &[]).await;
    // Without waiting, the last one would be stored before the second.
    for number in ["n-0", "n-1"] {
        app.each_send(number, Fault::StoreLate(Duration::from_millis(100)));
    }
    let from = |uid: &str, n: usize| as_user(uid, numbered(2, "g", "hi", &format!("n-{n}")));
    let refused = (3..93).map(|n| from("stranger", n));
    let bodies: Vec<_> = refused.chain((0..3).map(|n| from("alice", n))).collect();
    let answer = failure(207, "partial_failure").is(app.admin().send_batch(&bodies).await);
    let entries = &answer.body["data"].as_array().unwrap()[90..];
    let seqs: Vec<_> = entries.iter().map(|entry| &entry["messageSeq"]).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[tokio::test]
async fn a_foreign_from_uid_refuses_the_whole_batch() {
    for app in TestApp::both().await {
        let [own, foreign] = ["alice", "carol"].map(|uid| as_user(uid, message(1, "bob", "hi")));
        let answer = app.user("alice").send_batch(&[own.clone(), foreign]).await;
        let answer = answer.fails(403, "forbidden");
        assert!(answer.body.get("data").is_none(), "{answer:#?}");
        assert!(app.upstream.calls().is_empty());
        app.user("alice").send_batch(&[own]).await.ok();
    }
}

#[tokio::test]
async fn a_batch_longer_than_configured_is_refused() {
    let app = TestApp::with(V2, |settings| settings.limits.batch = 3).await;
    let alice = app.user("alice");
    let bodies = vec![message(1, "bob", "hi"); 4];
    alice.send_batch(&bodies).await.names(&["body"]);
    assert!(app.upstream.calls().is_empty());
    alice.send_batch(&bodies[..3]).await.ok();
}

#[tokio::test]
async fn a_client_msg_no_twice_in_one_batch_is_one_message() {
    for app in TestApp::both_with_group(&[]).await {
        let twice = numbered(2, "g", "same", "n");
        let other = numbered(2, "g", "other", "m");
        let bodies = [twice.clone(), other, twice.clone(), twice];
        let data = app.user("alice").send_batch(&bodies).await.ok();
        assert_eq!(seqs(&data), [1, 2, 1, 1]);
        assert_eq!(data[0], data[2]);
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

#[tokio::test]
async fn a_client_msg_no_with_two_payloads_is_a_conflict_of_the_second() {
    for app in TestApp::both_with_group(&[]).await {
        let bodies = [
            numbered(2, "g", "one", "n"),
            numbered(2, "g", "two", "n"),
            numbered(2, "g", "three", "m"),
        ];
        let answer = app.user("alice").send_batch(&bodies).await;
        let answer = answer.fails(207, "partial_failure");
        let data = &answer.body["data"];
        assert_eq!(data[0]["messageSeq"], 1);
        assert_eq!(data[1]["error"]["code"], "message_conflict");
        assert_eq!(data[2]["messageSeq"], 2);
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

#[tokio::test]
async fn two_batches_with_crossing_client_msg_nos_do_not_deadlock() {
    for app in TestApp::both_with_group(&[]).await {
        let alice = app.user("alice");
        let there = series(10);
        let back: Vec<_> = there.iter().rev().cloned().collect();
        let batches = [&there, &back, &there, &back];
        let answers = join_all(batches.map(|bodies| alice.send_batch(bodies))).await;
        let told = answers.into_iter().map(|answer| seqs(&answer.ok()));
        let told: Vec<_> = told.collect();
        let reversed: Vec<_> = told[1].iter().rev().copied().collect();
        assert_eq!(told[0], reversed);
        assert_eq!(told[0], told[2]);
        assert_eq!(app.stored_in("g").len(), 10);
    }
}

#[tokio::test]
async fn a_batch_repeated_stores_nothing_again() {
    for app in TestApp::both().await {
        let bodies: Vec<_> = (0..5)
            .map(|n| numbered(1, "bob", "hi", &format!("n-{n}")))
            .collect();
        let first = app.user("alice").send_batch(&bodies).await.ok();
        // One of them alone is the same message too.
        let alone = app.user("alice").send(&bodies[3]).await.ok();
        assert_eq!(alone, first[3]);
        assert_eq!(app.user("alice").send_batch(&bodies).await.ok(), first);
        let stored = app.state().messages_between("alice", "bob");
        assert_eq!(stored.len(), 5);
    }
}
