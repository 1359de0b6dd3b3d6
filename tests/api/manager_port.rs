//! v3's manager port by itself: what becomes of it says nothing of the nodes, and it is logged in to no more often than needed.

use std::time::Instant;

use crate::support::prelude::*;

#[tokio::test]
async fn a_failing_manager_port_casts_no_doubt_on_the_nodes() {
    let builder = TestApp::builder().upstream(V3);
    let app = builder.manager_port().nodes(2).start().await;
    app.group("g", "alice", &["bob"]).await;
    for fault in [
        Fault::Reset,
        Fault::Garbage,
        Fault::Status(500, "{}".into()),
    ] {
        app.faults().always("/manager/channels", fault.clone());
        let answer = app.user("alice").add("g", &["carol"]).await;
        assert!([502, 503].contains(&answer.status), "{fault:?} {answer:#?}");
        app.faults().clear();
        app.user("bob").send_to_group("g", "x").await.ok();
    }
    for node in ["n1", "n2"] {
        let rests = format!("gateway_upstream_ejections_total{{node=\"{node}\"}}");
        assert_eq!(app.metric(&rests), Some(0.0), "still spoken to: {node}");
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_login_at_the_manager_port() {
    let app = TestApp::builder().upstream(V3).manager_port().start().await;
    let alice = app.user("alice");
    let made = (0..20).map(|index| {
        let id = format!("g{index}");
        let alice = &alice;
        async move { alice.create_group(&id).await }
    });
    all_ok(join_all(made).await);
    assert_eq!(app.calls_to("/manager/login").len(), 1);
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_for_each_request() {
    let builder = TestApp::builder().upstream(V3).manager_port();
    let app = builder
        .config(|settings| {
            settings.wukongim.manager_password = Some("wrong".to_owned().into());
        })
        .start()
        .await;
    let started = Instant::now();
    for index in 0..20 {
        let answer = app.user("alice").create_group(&format!("g{index}")).await;
        answer.fails(502, "upstream_error");
    }
    let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap();
    let logins = app.calls_to("/manager/login").len();
    assert!(
        (1..=most).contains(&logins),
        "{logins} logins, {most} allowed"
    );
}

#[tokio::test]
async fn a_session_that_the_port_has_forgotten_is_renewed() {
    let app = TestApp::builder().upstream(V3).manager_port().start().await;
    app.group("g", "alice", &[]).await;
    // A login of just now is not doubted.
    tokio::time::sleep(Duration::from_millis(1050)).await;
    app.once("/manager/channels", Fault::Status(401, "{}".into()));
    app.user("alice").add("g", &["bob"]).await.ok();
    assert_eq!(app.calls_to("/manager/login").len(), 1);
}
