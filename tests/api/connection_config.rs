//! `GET /config`: connect addresses and limits.

use wukongim_gateway::config::Settings;

use crate::listener::socket::{Socket, alice};
use crate::support::prelude::*;

const ADDRESSES: [&str; 4] = ["wsUrl", "tcpAddr", "apiUrl", "managerUrl"];

#[tokio::test]
async fn with_sockets_the_address_is_the_gateways_own_at_the_requests_host() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        assert!(app.settings.socket.enabled);
        let told = app.user("张三").get("/config").await.ok();
        let own = app.base.replace("http://", "ws://");
        assert_eq!(told["wsUrl"], format!("{own}/api/v1/im/ws"));
        for empty in ["tcpAddr", "apiUrl", "managerUrl", "wssUrl"] {
            assert_eq!(told[empty], "", "{empty}");
        }
        assert_eq!(told["uid"], "张三");
        assert_eq!(app.calls_to("/route").len(), 0, "WuKongIM is not asked");
        // The limits are told without it too.
        app.upstream.stop().await;
        let told = app.user("alice").get("/config").await.ok();
        assert_eq!(told["wsUrl"], format!("{own}/api/v1/im/ws"));
    }
}

#[tokio::test]
async fn configured_addresses_are_told_whatever_the_host_is() {
    let app = TestApp::with(V2, |settings| {
        let public = &mut settings.public;
        public.ws_url = Some("wss://im.example.com/api/v1/im/ws".into());
        public.wss_url = Some("wss://tls.example.com/api/v1/im/ws".into());
        public.tcp_addr = Some("im.example.com:5100".into());
    })
    .await;
    for host in ["im.test", "no host"] {
        let told = config_at(&app, &format!("host: {host}\r\n")).await;
        assert_eq!(told["wsUrl"], "wss://im.example.com/api/v1/im/ws");
        assert_eq!(told["wssUrl"], "wss://tls.example.com/api/v1/im/ws");
        assert_eq!(told["tcpAddr"], "im.example.com:5100");
    }
    assert_eq!(app.calls_to("/route").len(), 0);
}

/// `/config` as alice gets it with these lines instead of the usual `Host`.
async fn config_at(app: &TestApp, lines: &str) -> Value {
    config_of(app, "/api/v1/im/config", lines).await
}

async fn config_of(app: &TestApp, target: &str, lines: &str) -> Value {
    let head = format!("GET {target} HTTP/1.1\r\n{lines}{}\r\n", alice());
    let answer = Socket::sending(app, head).await.answer().await.unwrap();
    assert_eq!(answer.status, 200, "{lines:?}: {answer:#?}");
    answer.body["data"].clone()
}

#[tokio::test]
async fn a_host_that_is_no_host_name_or_address_is_not_passed_on() {
    let app = TestApp::start(V2).await;
    for host in [
        "im.example.com",
        "IM.example.com:8080",
        "localhost:1",
        "im_gateway",
        "xn--fiqs8s.example.",
        "10.0.0.1:65535",
        "[2001:db8::1]",
        "[::1]:8080",
        "1and1.example",
    ] {
        let told = config_at(&app, &format!("host: {host}\r\n")).await;
        assert_eq!(told["wsUrl"], format!("ws://{host}/api/v1/im/ws"));
    }
    let long = format!("{}.example", "a".repeat(64));
    let longest = ["a"; 128].join(".");
    for host in [
        "",
        ":80",
        "im.example.com:",
        "im.example.com:0",
        "im.example.com:65536",
        "im.example.com:+80",
        "im.example.com:80:90",
        "alice@im.example.com",
        "im.example.com/evil",
        "im.example.com?",
        "im.example.com#",
        "im.example.com\\evil",
        "im.example.com,evil",
        "im.example.com evil",
        "im%2eexample.com",
        "im..example.com",
        ".example.com",
        "-im.example.com",
        "im-.example.com",
        "\"><script>alert(1)</script>",
        "javascript:alert(1)",
        "ws://im.example.com",
        "bücher.example",
        "10.0.0.256",
        "10.0.1",
        "2130706433",
        "::1",
        "[::1",
        "[::1]8080",
        "[::1%25eth0]:80",
        "[10.0.0.1]",
        "[im.example.com]",
        &long,
        &longest,
    ] {
        let told = config_at(&app, &format!("host: {host}\r\n")).await;
        assert_eq!(told["wsUrl"], "", "{host}");
    }
    let two = "host: a.example\r\nhost: b.example\r\n";
    for lines in ["", two] {
        assert_eq!(config_at(&app, lines).await["wsUrl"], "", "{lines}");
    }
    // The absolute form outranks the header.
    let target = "http://im.example.com:81/api/v1/im/config";
    let told = config_of(&app, target, "host: other.example\r\n").await;
    assert_eq!(told["wsUrl"], "ws://im.example.com:81/api/v1/im/ws");
}

#[tokio::test]
async fn only_a_trusted_proxy_tells_that_the_request_came_by_tls() {
    let behind = TestApp::with(V2, |settings| {
        settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let (behind, direct) = (behind.await, TestApp::start(V2).await);
    let own = "://im.example.com/api/v1/im/ws";
    for (app, lines, scheme) in [
        (&behind, "x-forwarded-proto: https\r\n", "wss"),
        (&behind, "x-forwarded-proto: HTTPS\r\n", "wss"),
        (&behind, "x-forwarded-proto: http\r\n", "ws"),
        (&behind, "x-forwarded-proto: httpsx\r\n", "ws"),
        (&behind, "", "ws"),
        (&direct, "x-forwarded-proto: https\r\n", "ws"),
    ] {
        let told = config_at(app, &format!("host: im.example.com\r\n{lines}")).await;
        assert_eq!(told["wsUrl"], format!("{scheme}{own}"), "{lines}");
    }
}

/// Without sockets of the gateway's.
async fn without_sockets(
    dialect: Dialect,
    change: impl FnOnce(&mut Settings) + 'static,
) -> TestApp {
    TestApp::with(dialect, |settings| {
        settings.socket.enabled = false;
        change(settings);
    })
    .await
}

#[tokio::test]
async fn without_sockets_nothing_configured_falls_back_to_wukongims_own_answer() {
    for dialect in [V2, V3] {
        let app = without_sockets(dialect, |_| ()).await;
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
async fn without_sockets_configured_addresses_are_returned_unchanged_without_a_call() {
    for dialect in [V2, V3] {
        let app = without_sockets(dialect, |settings| {
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
async fn without_sockets_either_address_falls_back_by_itself() {
    for (ws, tcp) in [(Some("wss://mine/ws"), None), (None, Some("mine:5100"))] {
        let app = without_sockets(V2, move |settings| {
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
    for dialect in [V2, V3] {
        let app = without_sockets(dialect, |_| ()).await;
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
