//! `GET /config`, `POST /token`, `GET /health` and `GET /system/info`.

use serde_json::json;

use crate::support::answer::failure;
use crate::support::real::{TestApp, each_server, people};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn the_config_names_the_gateways_own_socket_until_another_is_configured() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let config = app.user(&alice).get("/config").await.ok();
        let own = app.base.replace("http://", "ws://") + "/api/v1/im/ws";
        assert_eq!(config["wsUrl"], own);
        for key in ["tcpAddr", "apiUrl", "managerUrl"] {
            assert_eq!(config[key], "", "{key}");
        }
        assert_eq!(config["uid"], *alice);
        // What the server bears: v2.0.10 dies of more.
        let payload = config["limits"]["payloadBytes"].as_u64().unwrap();
        assert!([32_000, 64 * 1024].contains(&payload), "{payload}");

        let own = TestApp::start_with(&server, |settings| {
            settings.public.ws_url = Some("ws://im.example.com:5200".parse().unwrap());
        })
        .await;
        let config = own.user(&alice).get("/config").await.ok();
        assert_eq!(config["wsUrl"], "ws://im.example.com:5200");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_token_stays_the_same_and_differs_by_user_and_device() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let first = app.user(&alice).post_nothing("/token").await.ok();
        assert_eq!(first["uid"], *alice);
        assert_eq!(first["deviceFlag"], 1);
        let web = json!({"deviceFlag": 1});
        let again = app.user(&alice).post("/token", &web).await.ok();
        assert_eq!(again["token"], first["token"]);
        // Another replica, or the same one after a restart.
        let replica = TestApp::start(&server).await;
        let there = replica.user(&alice).post_nothing("/token").await.ok();
        assert_eq!(there["token"], first["token"]);
        let on_a_phone = json!({"deviceFlag": 0});
        let phone = app.user(&alice).post("/token", &on_a_phone).await.ok();
        assert_ne!(phone["token"], first["token"]);
        let others = app.user(&bob).post_nothing("/token").await.ok();
        assert_ne!(others["token"], first["token"]);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn health_needs_no_token_and_tells_the_time() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let health = app.anon().get("/health").await.ok();
        assert_eq!(health["status"], "healthy");
        assert!(
            health["timestamp"].as_str().unwrap().ends_with('Z'),
            "{health}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn an_unreachable_upstream_is_reported_at_once() {
    for mut server in each_server() {
        server.urls = vec!["http://127.0.0.1:9".to_owned()];
        let app = TestApp::start(&server).await;
        let health = failure(503, "upstream_unavailable").is(app.anon().get("/health").await);
        assert_eq!(health.body["data"]["status"], "unhealthy");
        failure(503, "upstream_unavailable")
            .is(app.user("alice").send_to_person("bob", "hi").await);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn system_info_tells_version_uptime_and_connections() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let info = app.user(&alice).get("/system/info").await.ok();
        assert!(!info["version"].as_str().unwrap().is_empty(), "{info}");
        assert!(info["uptime"].is_u64(), "{info}");
        assert!(info["connections"].is_u64(), "{info}");
        assert!(info["gatewayVersion"].is_string(), "{info}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn v2s_manager_token_is_needed_and_its_absence_is_not_revealed() {
    for mut server in each_server() {
        if server.manager_token.take().is_none() {
            continue;
        }
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let refused = app.user(&alice).post_nothing("/token").await;
        let refused = refused.fails(502, "upstream_error");
        assert!(!refused.text.contains("127.0.0.1"), "{refused:#?}");
    }
}
