//! Messages that v2 shows and that one node of its cluster alone has: they are not stored until more have them.

use wukongim_gateway::config::DuplicateCheck;

use super::cluster;
use crate::support::prelude::*;

async fn send(app: &TestApp, number: &str) -> Answer {
    let alice = app.user("alice");
    alice.send(&numbered(2, "g", number, number)).await
}

/// Sends it until it is acknowledged.
async fn send_until_acknowledged(app: &TestApp, number: &str) -> Answer {
    for _ in 0..20 {
        let answer = send(app, number).await;
        if answer.status == 200 {
            return answer;
        }
        answer.fails(504, "message_unconfirmed");
    }
    panic!("{number} is never acknowledged");
}

#[tokio::test]
async fn it_is_unconfirmed_until_another_node_has_it() {
    let app = cluster(V2, 3).await;
    send(&app, "before").await.ok();
    app.state().stop_copying();
    for _ in 0..2 {
        // Seen, and not sent again.
        send(&app, "n").await.fails(504, "message_unconfirmed");
        assert_eq!(app.stored_in("g").len(), 2);
    }
    app.state().copy();
    let sent = send(&app, "n").await.ok();
    assert_eq!(sent["messageSeq"], 2);
    assert_eq!(app.stored_in("g").len(), 2);
}

#[tokio::test]
async fn what_is_lost_with_its_node_was_not_acknowledged_and_a_retry_stores_it() {
    let app = cluster(V2, 3).await;
    send(&app, "before").await.ok();
    app.state().stop_copying();
    for number in ["one", "two"] {
        send(&app, number).await.fails(504, "message_unconfirmed");
    }
    app.state().lose_what_is_not_copied();
    assert_eq!(app.stored_in("g").len(), 1);
    // Another one takes its seq, and is not taken for it.
    assert_eq!(send(&app, "other").await.ok()["messageSeq"], 2);
    for (number, seq) in [("two", 3), ("one", 4)] {
        let sent = send_until_acknowledged(&app, number).await.ok();
        assert_eq!(sent["messageSeq"], seq, "{number}");
    }
    assert_eq!(app.stored_in("g").len(), 4);
}

#[tokio::test]
async fn it_does_not_hold_up_those_before_it() {
    let app = cluster(V2, 3).await;
    send(&app, "before").await.ok();
    for node in app.nodes() {
        node.faults()
            .always("/channel/messagesync", Fault::Hold("looks".into()));
    }
    let looks_wait = async {
        until(|| app.stored_in("g").len() == 2).await;
        app.state().stop_copying();
        for number in ["a", "b", "c", "d"] {
            let message = stored("g", "bob", number, "later");
            app.state().store_message(message);
        }
        for node in app.nodes() {
            node.faults().release("looks");
        }
    };
    let (sent, ()) = tokio::join!(send(&app, "n"), looks_wait);
    assert_eq!(sent.ok()["messageSeq"], 2);
    assert_eq!(app.stored_in("g").len(), 6);
}

#[tokio::test]
async fn a_duplicate_that_one_node_alone_has_is_no_answer() {
    let app = super::cluster_with(V2, 3, |settings| {
        super::impatient(settings);
        settings.wukongim.duplicate_check = DuplicateCheck::Upstream;
    })
    .await;
    app.state().stop_copying();
    let message = stored("g", "alice", "n", "n");
    app.state().store_message(message);
    send(&app, "n").await.fails(504, "message_unconfirmed");
    app.state().copy();
    assert_eq!(send(&app, "n").await.ok()["messageSeq"], 1);
    assert_eq!(app.stored_in("g").len(), 1);
}

#[tokio::test]
async fn a_node_that_does_not_say_what_it_has_is_not_waited_for() {
    let app = cluster(V2, 3).await;
    super::all_are_known(&app).await;
    let mute = &app.others[0];
    mute.faults().always("/cluster/messages", Fault::Hang);
    for turn in 0..10 {
        let number = turn.to_string();
        let sent = tokio::time::timeout(Duration::from_secs(5), send(&app, &number));
        sent.await.unwrap().ok();
    }
}

#[tokio::test]
async fn a_single_node_is_asked_for_its_topology_only() {
    let app = TestApp::start(V2).await;
    for turn in 0..5 {
        let text = turn.to_string();
        app.user("alice").send_to_person("bob", &text).await.ok();
    }
    assert_eq!(app.calls_to("/cluster/info").len(), 1);
    assert_eq!(app.calls_to("/cluster/messages").len(), 0);
}

#[tokio::test]
async fn a_single_server_without_cluster_calls_is_supported() {
    let app = TestApp::start(V2).await;
    let filtered = Fault::Status(404, "404 page not found".into());
    app.faults().always("/cluster/info", filtered);
    for n in 0..3 {
        let sent = app.user("alice").send_to_person("bob", "hi").await.ok();
        assert_eq!(sent["messageSeq"], n + 1);
    }
    let asked = app.calls_to("/cluster/info").len();
    assert!(asked <= 2, "asked {asked} times");
}

#[tokio::test]
async fn with_several_nodes_an_unanswered_cluster_query_is_not_ignored() {
    for (nodes, fault) in [
        (3, Fault::Status(404, "404 page not found".into())),
        (1, Fault::Status(500, String::new())),
    ] {
        let builder = TestApp::builder()
            .nodes(nodes)
            .config(|settings| settings.wukongim.confirm_timeout = Duration::from_millis(200));
        let app = builder.start().await;
        for node in app.nodes() {
            node.faults().always("/cluster/info", fault.clone());
        }
        failure(504, "message_unconfirmed").is(app.user("alice").send_to_person("bob", "hi").await);
    }
}
