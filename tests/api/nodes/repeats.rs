//! What may be done a second time, how often, and what never is.

use std::time::Instant;

use super::{all_are_known, cluster, cluster_with, impatient, sends, sends_to};
use crate::support::prelude::*;

fn everywhere(app: &TestApp, rule: &Rule) {
    for node in app.nodes() {
        node.faults().add(rule.clone());
    }
}

#[tokio::test]
async fn a_send_to_v2_that_may_have_arrived_is_never_repeated() {
    let broken = Fault::Status(500, "{}".into());
    for fault in [
        Fault::Reset,
        Fault::ResetAfter,
        Fault::HalfAnswer,
        Fault::Garbage,
        Fault::Hang,
        broken,
    ] {
        let app = cluster_with(V2, 3, |settings| {
            impatient(settings);
            settings.wukongim.timeout = Duration::from_secs(1);
        })
        .await;
        all_are_known(&app).await;
        everywhere(&app, &Rule::new("/message/send", fault.clone()));
        let answer = app.user("alice").send(&numbered(2, "g", "hi", "n")).await;
        let arrived = matches!(fault, Fault::ResetAfter | Fault::HalfAnswer);
        assert_eq!(answer.status == 200, arrived, "{fault:?} {answer:#?}");
        assert_eq!(sends(&app).iter().sum::<usize>(), 1, "{fault:?}");
        assert_eq!(app.stored_in("g").len(), usize::from(arrived), "{fault:?}");
    }
}

#[tokio::test]
async fn what_changes_a_group_is_not_repeated_either() {
    for dialect in [V2, V3] {
        let app = cluster(dialect, 3).await;
        all_are_known(&app).await;
        everywhere(
            &app,
            &Rule::new("/channel/subscriber_add", Fault::ResetAfter),
        );
        let answer = app.user("alice").add("g", &["carol"]).await;
        assert_ne!(answer.status, 200, "{answer:#?}");
        let calls: usize = app
            .nodes()
            .iter()
            .map(|node| node.calls_to("/channel/subscriber_add").len())
            .sum();
        assert_eq!(calls, 1, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_send_to_v3_is_retried_on_another_node_with_its_client_msg_no() {
    for fault in [
        Fault::Reset,
        Fault::ResetAfter,
        Fault::HalfAnswer,
        Fault::Garbage,
        Fault::Status(500, "{}".into()),
        Fault::Status(503, r#"{"error":"retry required"}"#.into()),
    ] {
        let app = cluster(V3, 2).await;
        all_are_known(&app).await;
        // Whichever is asked first.
        let rule = Rule::new("/message/send", fault.clone()).containing("first");
        app.faults().add(rule.clone());
        app.others[0].faults().add(rule.containing("never"));
        let mut repeated = 0;
        for n in 0..6 {
            let body = numbered(2, "g", "hi", &format!("first-{n}"));
            let sent = app.user("alice").send(&body).await.ok();
            assert_eq!(sent["messageSeq"], n + 1, "{fault:?}");
        }
        for call in sends_to(&app.upstream) {
            let again = sends_to(&app.others[0]);
            assert!(
                again.iter().any(|other| other.body == call.body),
                "{fault:?}"
            );
            repeated += 1;
        }
        assert!(repeated > 0 || sends(&app)[1] == 6, "{fault:?}");
        assert_eq!(app.stored_in("g").len(), 6, "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_is_made_once_more_elsewhere_and_not_on_one_node_alone() {
    for dialect in [V2, V3] {
        for (nodes, status) in [(1, 502), (2, 200)] {
            let app = cluster(dialect, nodes).await;
            app.user("alice").send_to_group("g", "hi").await.ok();
            if nodes > 1 {
                all_are_known(&app).await;
            }
            app.always("/channel/messagesync", Fault::Status(500, "{}".into()));
            for _ in 0..10 {
                let answer = app.user("alice").sync(2, "g", "").await;
                assert_eq!(answer.status, status, "{dialect:?} {nodes} {answer:#?}");
            }
        }
    }
}

#[tokio::test]
async fn no_more_than_a_tenth_of_the_calls_is_repeated() {
    const BAD: usize = 60;
    const GOOD: usize = 4;
    let app = cluster(V2, 2).await;
    app.group("bad", "alice", &[]).await;
    for group in ["bad", "g"] {
        app.user("alice").send_to_group(group, "hi").await.ok();
    }
    all_are_known(&app).await;
    let broken = Fault::Status(500, "{}".into());
    let rule = Rule::new("/channel/messagesync", broken).containing("\"bad\"");
    everywhere(&app, &rule);
    // The good ones meet, so that each node has some and none fails only.
    let delay = Fault::Delay(Duration::from_millis(30));
    let rule = Rule::new("/channel/messagesync", delay).containing("\"g\"");
    everywhere(&app, &rule);
    let alice = app.user("alice");
    let began = Instant::now();
    for _ in 0..BAD {
        alice.sync(2, "bad", "").await.fails(502, "upstream_error");
        for page in join_all((0..GOOD).map(|_| alice.sync(2, "g", ""))).await {
            page.ok();
        }
    }
    let nodes = app.nodes().into_iter();
    let asked: usize = nodes
        .map(|node| {
            let calls = node.calls_to("/channel/messagesync");
            let bad = |call: &&dev_upstream::Call| call.body["channel_id"] == "bad";
            calls.iter().filter(bad).count()
        })
        .sum();
    let repeated = asked - BAD;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    // What was done before this test looked brought in some as well.
    let calls = BAD * (1 + GOOD) + 100;
    assert!(repeated > 0);
    assert!(repeated <= 5 + calls / 10 + seconds, "{repeated}");
    let refused = app.metric("gateway_upstream_retries_refused_total{call=\"messagesync\"}");
    assert!(refused.is_some_and(|refused| refused > 0.0), "{refused:?}");
    let made = app.metric("gateway_upstream_retries_total{call=\"messagesync\"}");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let repeated = repeated as f64;
    assert!(
        made.is_some_and(|made| made >= repeated),
        "{made:?} {repeated}"
    );
}
