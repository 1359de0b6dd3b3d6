//! v2.0.10 ends on a payload that the default limit allows: the gateway finds out what a v2 bears, holds to it, and says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dev_upstream::V2Release;
use wukongim_gateway::wukongim::SAFE_PAYLOAD_BYTES;

use crate::support::prelude::*;

const KIB_64: usize = 64 * 1024;

fn of(bytes: usize) -> Value {
    json!({"channelId": "bob", "channelType": 1, "payload": STANDARD.encode("x".repeat(bytes))})
}

async fn told(app: &TestApp) -> usize {
    let config = app.user("alice").get("/config").await.ok();
    usize::try_from(config["limits"]["payloadBytes"].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn no_payload_crashes_a_v2() {
    for version in V2Release::ALL {
        let app = TestApp::release(version).await;
        let alice = app.user("alice");
        let limit = told(&app).await;
        let is_old = version == V2Release::V2_0_10;
        let expected = if is_old { SAFE_PAYLOAD_BYTES } else { KIB_64 };
        assert_eq!(limit, expected, "{version:?}");
        alice.send(&of(limit)).await.ok();
        let refused = alice.send(&of(limit + 1)).await;
        let refused = refused.names(&["payload"]);
        assert!(refused.text.contains(&limit.to_string()), "{refused:?}");
        let batch = [of(5), of(limit + 1), of(limit), of(limit + 1)];
        let refused = alice.send_batch(&batch).await;
        refused.names(&["[1].payload", "[3].payload"]);
        assert!(!app.upstream.killed(), "{version:?}");
        assert_eq!(app.calls_to("/message/send").len(), 1, "{version:?}");
    }
}

#[tokio::test]
async fn the_longest_ids_with_the_largest_payload_crash_no_v2() {
    let app = TestApp::builder()
        .options(|options| options.release = V2Release::V2_0_10)
        .config(|settings| {
            settings.limits.id_bytes = 255;
            settings.limits.client_msg_no_bytes = 255;
        })
        .start()
        .await;
    let (alice, bob) = ("a".repeat(255), "b".repeat(255));
    let mut body = of(SAFE_PAYLOAD_BYTES);
    body["channelId"] = json!(bob);
    body["clientMsgNo"] = json!("n".repeat(255));
    let refused = app.user(&alice).send(&body).await;
    let refused = refused.names(&["payload"]);
    assert!(app.calls_to("/message/send").is_empty());
    let max = refused.body["details"][0]["message"].as_str().unwrap();
    let max: String = max.chars().filter(char::is_ascii_digit).collect();
    body["payload"] = of(max.parse().unwrap())["payload"].clone();
    app.user(&alice).send(&body).await.ok();
    assert!(!app.upstream.killed());
}

#[tokio::test]
async fn a_reported_version_decides_and_an_unknown_one_is_probed() {
    let varz = |version: &str| {
        let body = json!({"version": version, "uptime": "1s", "connections": 0});
        Fault::Status(200, body.to_string())
    };
    for (version, limit) in [
        ("v2.2.5-20260422", KIB_64),
        ("v2.2.0", KIB_64),
        ("2.10.1", KIB_64),
        ("v2.1.5-20250424", SAFE_PAYLOAD_BYTES),
        ("v2.0.10-20241221", SAFE_PAYLOAD_BYTES),
    ] {
        let app = TestApp::start(V2).await;
        app.faults().always("/varz", varz(version));
        assert_eq!(told(&app).await, limit, "{version}");
        assert!(app.calls_to("/cluster/slots").is_empty(), "{version}");
    }
    for fault in [varz(""), varz("dev"), Fault::Status(404, String::new())] {
        let app = TestApp::start(V2).await;
        app.faults().always("/varz", fault.clone());
        assert_eq!(told(&app).await, KIB_64, "{fault:?}");
        assert_eq!(app.calls_to("/cluster/slots").len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_node_of_unknown_version_gets_only_small_payloads() {
    for (path, fault) in [
        ("/cluster/slots", Fault::Status(403, String::new())),
        ("/cluster/slots", Fault::Status(500, String::new())),
        ("/cluster/slots", Fault::Reset),
        ("/varz", Fault::Hang),
    ] {
        let brief = Duration::from_millis(300);
        let app = TestApp::with(V2, move |settings| settings.wukongim.timeout = brief).await;
        app.faults().always(path, fault.clone());
        assert_eq!(told(&app).await, SAFE_PAYLOAD_BYTES, "{fault:?}");
        let refused = app.user("alice").send(&of(SAFE_PAYLOAD_BYTES + 1)).await;
        assert_ne!(refused.status, 200, "{fault:?}");
        assert!(app.calls_to("/message/send").is_empty(), "{fault:?}");
        app.user("alice").send(&of(SAFE_PAYLOAD_BYTES)).await.ok();
    }
}

#[tokio::test]
async fn an_upgrade_is_noticed_when_the_server_comes_back_and_so_is_a_downgrade() {
    let app = TestApp::release(V2Release::V2_0_10).await;
    let alice = app.user("alice");
    for (version, status) in [
        (V2Release::V2_2_5, 200),
        (V2Release::V2_0_10, 400),
        (V2Release::V2_2_0, 200),
    ] {
        app.upstream.stop().await;
        alice.send(&of(5)).await.fails(503, "upstream_unavailable");
        app.upstream.set_release(version);
        app.upstream.restart().await.unwrap();
        // That it was down is believed for a moment.
        let mut sent = alice.send(&of(SAFE_PAYLOAD_BYTES + 1)).await;
        while sent.status == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent = alice.send(&of(SAFE_PAYLOAD_BYTES + 1)).await;
        }
        assert_eq!(sent.status, status, "{version:?}");
    }
    assert!(!app.upstream.killed());
}

#[tokio::test]
async fn the_setting_overrides_the_detected_limit() {
    for (version, limit) in [(V2Release::V2_0_10, 40_000), (V2Release::V2_2_5, 1000)] {
        let builder = TestApp::builder()
            .options(move |options| options.release = version)
            .config(move |settings| settings.wukongim.v2_payload_limit = Some(limit));
        let app = builder.start().await;
        assert_eq!(told(&app).await, limit);
        assert!(app.calls_to("/varz").is_empty());
        if version == V2Release::V2_2_5 {
            app.user("alice").send(&of(limit)).await.ok();
            failure(400, "invalid_request").is(app.user("alice").send(&of(limit + 1)).await);
        }
    }
}

#[tokio::test]
async fn v3_and_small_payloads_need_no_probe() {
    let app = TestApp::start(V3).await;
    assert_eq!(told(&app).await, KIB_64);
    app.user("alice").send(&of(KIB_64)).await.ok();
    assert!(app.calls_to("/varz").is_empty());
    let app = TestApp::release(V2Release::V2_2_5).await;
    for _ in 0..3 {
        app.user("alice").send(&of(SAFE_PAYLOAD_BYTES)).await.ok();
    }
    assert!(app.calls_to("/varz").is_empty());
    for _ in 0..3 {
        app.user("alice").send(&of(KIB_64)).await.ok();
    }
    assert_eq!(app.calls_to("/varz").len(), 1, "known from then on");
}

#[tokio::test]
async fn a_restarted_node_is_checked_before_it_gets_a_large_message() {
    let app = TestApp::builder().nodes(2).start().await;
    let alice = app.user("alice");
    alice.send(&of(KIB_64)).await.ok();
    // A proxy in front of it answers while it is exchanged.
    for node in app.nodes() {
        let fault = Fault::Status(502, String::new());
        node.faults()
            .add(Rule::new("/channel/messagesync", fault).times(2));
        node.set_release(V2Release::V2_0_10);
    }
    while app.nodes().iter().any(|node| node.faults().remaining() > 0) {
        alice.sync(1, "bob", "").await;
    }
    failure(400, "invalid_request").is(alice.send(&of(KIB_64)).await);
    assert!(app.nodes().iter().all(|node| !node.killed()));
}
