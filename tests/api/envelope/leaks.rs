//! The leaks closed: extractors, limits, timeouts, panics, a broken upstream; and the request id on all of them.

use axum::Router;
use axum::routing::post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wukongim_gateway::gateway::Framed;
use wukongim_gateway::state::App;

use super::endpoints::all;
use crate::support::prelude::*;

#[tokio::test]
async fn a_hanging_upstream_is_504_when_the_requests_time_is_over() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.request_timeout = Duration::from_millis(150);
            // Without sockets `/config` asks WuKongIM too.
            settings.socket.enabled = false;
        })
        .await;
        // Settles the generation.
        app.user("alice").post_nothing("/token").await.ok();
        app.faults().always("/", Fault::Hang);
        for endpoint in all() {
            // Health answers from its last probe or from its own, shorter deadline.
            if endpoint.is_public() {
                continue;
            }
            let answer = endpoint.call(&app.user("alice")).await;
            // A batch has an answer for each message.
            let code = match endpoint.path {
                "/message/sendbatch" => "message_unconfirmed",
                // v3 is asked for no permission first: this may have been sent.
                "/message/send" if dialect == V3 => "message_unconfirmed",
                _ => "upstream_timeout",
            };
            let answer = answer.fails(504, code);
            answer.says(endpoint.failure.0);
        }
    }
}

#[tokio::test]
async fn a_hanging_call_is_504_when_the_calls_time_is_over() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.timeout = Duration::from_millis(150);
        })
        .await;
        app.anon().get("/health").await.ok();
        app.faults().always("/user/token", Fault::Hang);
        failure(504, "upstream_timeout").is(app.user("alice").post_nothing("/token").await);
    }
}

#[tokio::test]
async fn a_body_that_drips_is_408() {
    let app = TestApp::with(V2, |settings| {
        settings.server.request_timeout = Duration::from_millis(200);
    })
    .await;
    let token =
        crate::support::actors::sign(&serde_json::json!({"sub": "a", "exp": 4_000_000_000_u64}));
    for path in ["/message/send", "/token", "/channel/create"] {
        let address = app.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/im{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: 100\r\nx-request-id: drip\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
        assert!(answer.contains("\"requestId\":\"drip\""), "{answer}");
    }
    app.nothing_was_written();
}

/// A server with one route that panics, behind the real outermost layer.
async fn panicking(app: &App) -> String {
    async fn panics() {
        panic!("a secret thing went wrong");
    }
    let routes = Router::new()
        .route("/api/v1/im/message/send", post(panics))
        .route("/elsewhere", post(panics));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback_service(Framed::new(app, routes));
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn a_panic_is_500_and_affects_no_other_request() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    let base = panicking(&app.app).await;
    let client = wukongim_gateway::http_client::client().build().unwrap();
    for _ in 0..3 {
        for (path, text) in [
            ("/api/v1/im/message/send", "发送消息失败"),
            ("/elsewhere", "服务内部错误"),
        ] {
            let sent = client.post(format!("{base}{path}")).send().await.unwrap();
            let answer = Answer::of(sent).await.fails(500, "internal");
            answer.says(text);
            assert!(!answer.text.contains("secret"), "{answer:#?}");
        }
    }
    alice.send_to_person("bob", "still here").await.ok();
}

#[tokio::test]
async fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let longest = "a".repeat(128);
        for good in ["1", "Az09._-", &longest] {
            app.clear_calls();
            let request = alice.request("POST", "/token").header("x-request-id", good);
            let answer = Answer::to(request).await;
            answer.has("x-request-id", good);
            answer.ok();
            // The very first call of all may be the probe for the generation, which carries it too.
            for call in app.upstream.calls() {
                assert_eq!(call.request_id.as_deref(), Some(good), "{call:?}");
            }
            assert_eq!(app.calls_to("/user/token").len(), 1);
        }
        let too_long = "a".repeat(129);
        let mut seen = std::collections::HashSet::new();
        for bad in ["", " ", "a b", "a/b", "ü", "a\tb", "{}", "a,b", &too_long] {
            app.clear_calls();
            let request = alice.request("POST", "/token").header("x-request-id", bad);
            let answer = Answer::to(request).await;
            let id = answer.header("x-request-id").to_owned();
            assert_ne!(id, bad);
            assert!(
                !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{id}"
            );
            assert!(seen.insert(id.clone()), "a new one each time: {id}");
            assert_eq!(app.calls_to("/user/token")[0].request_id, Some(id));
            answer.ok();
        }
    }
}

#[tokio::test]
async fn every_call_a_request_makes_carries_its_id() {
    for app in TestApp::both_with_group(&[]).await {
        for endpoint in all() {
            app.clear_calls();
            let request = endpoint.request(&app.user("alice"));
            let answer = Answer::of(
                request
                    .header("x-request-id", "walk-7")
                    .send()
                    .await
                    .unwrap(),
            )
            .await;
            answer.has("x-request-id", "walk-7");
            for call in app.upstream.calls() {
                assert_eq!(
                    call.request_id.as_deref(),
                    Some("walk-7"),
                    "{}: {call:?}",
                    endpoint.path
                );
            }
        }
    }
}

#[tokio::test]
async fn a_message_speaks_the_clients_language_and_the_code_none() {
    let app = TestApp::start(V2).await;
    for (accepted, token_missing, not_found) in [
        (None, "缺少访问令牌", "接口不存在"),
        (Some("en"), "an access token is required", "no such path"),
        (
            Some("en-GB,zh;q=0.5"),
            "an access token is required",
            "no such path",
        ),
        (Some("zh-CN,en;q=0.9"), "缺少访问令牌", "接口不存在"),
        (Some("de"), "缺少访问令牌", "接口不存在"),
    ] {
        for (path, code, text) in [
            ("/config", "token_missing", token_missing),
            ("/nothing", "not_found", not_found),
        ] {
            let mut request = app.anon().request("GET", path);
            if let Some(accepted) = accepted {
                request = request.header("accept-language", accepted);
            }
            let answer = Answer::to(request).await;
            assert_eq!(answer.body["code"], code, "{answer:#?}");
            answer.says(text);
        }
    }
    // Details too.
    let request = app.user("alice").request("POST", "/message/send");
    let request = request
        .header("accept-language", "en")
        .header("content-type", "application/json")
        .body(r#"{"channelId":"","channelType":3}"#);
    let answer = failure(400, "invalid_request").is(Answer::to(request).await);
    assert!(answer.text.is_ascii(), "{answer:#?}");
    // The reference's own sentence, in every language.
    for accepted in ["en", "zh"] {
        let request = app.user("alice").request("GET", "/message/sync");
        let request = request.header("accept-language", accepted);
        let answer = Answer::to(request).await;
        answer
            .fails(400, "invalid_request")
            .says("channelId and channelType are required");
    }
}

#[tokio::test]
async fn nothing_of_upstreams_words_reaches_a_client() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.confirm_timeout = Duration::from_millis(100);
            // Without sockets `/config` asks WuKongIM too.
            settings.socket.enabled = false;
        })
        .await;
        app.anon().get("/health").await.ok();
        let words =
            r#"{"msg":"pebble: /var/lib/wukong closed","status":400,"error":"goroutine 7"}"#;
        for fault in [
            Fault::Status(400, words.into()),
            Fault::Status(401, words.into()),
            Fault::Status(500, words.into()),
            Fault::Status(503, words.into()),
            Fault::Garbage,
            Fault::Reset,
            Fault::HalfAnswer,
        ] {
            app.faults().clear();
            app.faults().always("/", fault.clone());
            for endpoint in all() {
                let answer = endpoint.call(&app.user("alice")).await;
                for word in ["pebble", "wukong", "goroutine", "127.0.0.1", "html"] {
                    assert!(
                        !answer.text.contains(word),
                        "{} {fault:?}: {answer:#?}",
                        endpoint.path
                    );
                }
                if !endpoint.is_public() {
                    assert_ne!(
                        answer.status, 200,
                        "{} {fault:?}: {answer:#?}",
                        endpoint.path
                    );
                }
            }
        }
    }
}
