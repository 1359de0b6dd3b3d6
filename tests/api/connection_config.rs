//! `GET /config`: connect addresses and limits.

use crate::support::prelude::*;

const ADDRESSES: [&str; 4] = ["wsUrl", "tcpAddr", "apiUrl", "managerUrl"];

#[tokio::test]
async fn nothing_configured_falls_back_to_wukongims_own_answer() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        assert_eq!(app.settings.public.ws_url, None);
        let told = app.user("张三").get("/config").await.ok();
        assert_eq!(told["wsUrl"], app.upstream.ws_url());
        assert_eq!(told["tcpAddr"], app.upstream.tcp_addr().to_string());
        for empty in ["apiUrl", "managerUrl", "wssUrl"] {
            assert_eq!(told[empty], "", "{empty}");
        }
        assert_eq!(told["uid"], "张三");
        // Asked for the caller: a cluster places users.
        let asked = app.calls_to("/route");
        let [call] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(call.path, "/route?uid=%E5%BC%A0%E4%B8%89");
    }
}

#[tokio::test]
async fn configured_addresses_are_returned_unchanged_without_a_call() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            let public = &mut settings.public;
            public.ws_url = Some("ws://your-server:5200".into());
            public.wss_url = Some("wss://your-server/ws".into());
            public.tcp_addr = Some("your-server:5100".into());
            public.api_url = Some("http://your-server:5001".into());
            public.manager_url = Some("http://your-server:5300".into());
        })
        .await;
        app.upstream.stop().await;
        let mut told = app.user("alice").get("/config").await.ok();
        told.as_object_mut().unwrap().remove("limits");
        let expected = json!({
            "wsUrl": "ws://your-server:5200", "wssUrl": "wss://your-server/ws",
            "tcpAddr": "your-server:5100", "apiUrl": "http://your-server:5001",
            "managerUrl": "http://your-server:5300", "uid": "alice",
        });
        assert_eq!(told, expected);
        assert_eq!(app.upstream.calls().len(), 0);
    }
}

#[tokio::test]
async fn either_address_falls_back_by_itself() {
    for (ws, tcp) in [(Some("wss://mine/ws"), None), (None, Some("mine:5100"))] {
        let app = TestApp::with(V2, move |settings| {
            settings.public.ws_url = ws.map(str::to_owned);
            settings.public.tcp_addr = tcp.map(str::to_owned);
        })
        .await;
        let told = app.user("alice").get("/config").await.ok();
        let of_upstream = (app.upstream.ws_url(), app.upstream.tcp_addr().to_string());
        assert_eq!(told["wsUrl"], ws.unwrap_or(&of_upstream.0));
        assert_eq!(told["tcpAddr"], tcp.unwrap_or(&of_upstream.1));
        app.upstream.stop().await;
        let answer = app.user("alice").get("/config").await;
        let answer = answer.fails(503, "upstream_unavailable");
        assert_eq!(answer.body["message"], "获取连接配置失败");
    }
}

#[tokio::test]
async fn all_four_are_texts_whatever_wukongim_leaves_out() {
    for app in TestApp::both().await {
        for route in [
            r#"{"tcp_addr":"","ws_addr":"","wss_addr":""}"#,
            "{}",
            r#"{"tcp_addr":"t:1"}"#,
        ] {
            let fault = dev_upstream::Fault::Status(200, route.into());
            app.faults().clear();
            app.faults().always("/route", fault);
            let told = app.user("alice").get("/config").await.ok();
            for address in ADDRESSES {
                assert!(told[address].is_string(), "{route}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn the_limits_are_those_of_this_deployment() {
    let app = TestApp::start(V2).await;
    let defaults = json!({
        "idBytes": 128, "clientMsgNoBytes": 128, "payloadBytes": 65536, "batch": 100, "subscribers": 500,
        "syncMax": 200, "groupMembers": 10000,
    });
    let limits = |told: &Value| told["limits"].clone();
    assert_eq!(limits(&app.user("a").get("/config").await.ok()), defaults);
    let app = TestApp::with(V2, |settings| {
        let limits = &mut settings.limits;
        limits.id_bytes = 1;
        limits.client_msg_no_bytes = 2;
        limits.payload = 3;
        limits.batch = 4;
        limits.subscribers = 5;
        limits.sync_max = 6;
        limits.group_members = 7;
    })
    .await;
    let told = limits(&app.user("a").get("/config").await.ok());
    let expected = json!({
        "idBytes": 1, "clientMsgNoBytes": 2, "payloadBytes": 3, "batch": 4, "subscribers": 5, "syncMax": 6,
        "groupMembers": 7,
    });
    assert_eq!(told, expected);
}
