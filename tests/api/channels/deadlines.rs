//! What takes WuKongIM longer than a request may.

use crate::support::prelude::*;

/// v3's manager port takes 150 ms for each call, and a request may take half a second.
async fn slow() -> TestApp {
    let builder = TestApp::builder().upstream(V3).manager_port();
    let app = builder
        .config(|settings| settings.server.request_timeout = Duration::from_millis(500))
        .start()
        .await;
    app.group("g", "alice", &[]).await;
    for verb in ["add", "remove"] {
        let path = format!("/manager/channels/2/g/subscribers/{verb}");
        let slow = Fault::Delay(Duration::from_millis(150));
        app.faults().add(Rule::new(path, slow));
    }
    app
}

fn parts(app: &TestApp, verb: &str) -> usize {
    app.calls_to(&format!("/manager/channels/2/g/subscribers/{verb}"))
        .len()
}

/// Waits until nothing is under way, and tells how many parts there were.
async fn settled(app: &TestApp, verb: &str) -> usize {
    app.app.channels.wait_idle().await;
    parts(app, verb)
}

#[tokio::test]
async fn no_chunk_starts_after_the_deadline_and_a_retry_does_the_rest() {
    let app = slow().await;
    let uids: Vec<String> = (0..500).map(|n| format!("m{n}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    let alice = app.user("alice");
    alice.add("g", &uids).await.fails(504, "upstream_timeout");
    let begun = settled(&app, "add").await;
    assert!((1..5).contains(&begun), "{begun}");
    assert_eq!(app.state().members("g").len(), 1 + 100 * begun);
    let mut added = 100 * begun as u64;
    while added < 500 {
        let answer = alice.add("g", &uids).await;
        if answer.status == 200 {
            added += answer.ok()["added"].as_u64().unwrap();
            break;
        }
        app.app.channels.wait_idle().await;
        added = app.state().members("g").len() as u64 - 1;
    }
    assert_eq!(added, 500);
    assert_eq!(parts(&app, "add"), 5, "nobody is added twice");

    failure(504, "upstream_timeout").is(alice.remove("g", &uids).await);
    let begun = settled(&app, "remove").await;
    assert!((1..5).contains(&begun), "{begun}");
}

#[tokio::test]
async fn a_delete_continues_after_its_deadline() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.request_timeout = Duration::from_millis(500);
            settings.wukongim.timeout = Duration::from_millis(300);
        })
        .await;
        app.group("g", "alice", &["bob"]).await;
        let path = "/channel/subscriber_remove_all";
        app.faults().add(Rule::new(path, Fault::Hang).times(3));
        let alice = app.user("alice");
        alice.delete_group("g").await.fails(504, "upstream_timeout");
        failure(404, "channel_not_found").is(alice.send_to_group("g", "late").await);
        app.app.channels.wait_idle().await;
        assert_eq!(app.calls_to(path).len(), 4);
        assert_eq!(app.state().members("g"), [""; 0]);
        assert!(app.state().flags(2, "g").unwrap().disband);
        failure(404, "channel_not_found").is(alice.delete_group("g").await);
    }
}
