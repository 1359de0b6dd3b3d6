//! What routing itself answers: no token, wrong method, unknown path.

use http::Method;

use super::endpoints::all;
use crate::support::prelude::*;

/// A request to a whole path, spelled as it is.
async fn raw(app: &TestApp, method: &str, path: &str) -> Answer {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = app.base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut builder = http::Response::builder().status(status);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        builder = builder.header(name, value);
    }
    Answer::of(builder.body(body.to_owned()).unwrap().into()).await
}

#[tokio::test]
async fn the_route_table_is_the_references() {
    let routes: Vec<String> = wukongim_gateway::routes::Endpoint::all()
        .iter()
        .map(|endpoint| format!("{} {}", endpoint.route, endpoint.failure.zh))
        .collect();
    insta::assert_snapshot!(routes.join("\n"), @"
    /api/v1/im/config 获取连接配置失败
    /api/v1/im/token 获取Token失败
    /api/v1/im/token/revoke 服务内部错误
    /api/v1/im/ws 建立连接失败
    /api/v1/im/message/send 发送消息失败
    /api/v1/im/message/sendbatch 批量发送消息失败
    /api/v1/im/message/sync 同步消息失败
    /api/v1/im/conversation/list 获取会话列表失败
    /api/v1/im/conversation/read 标记已读失败
    /api/v1/im/conversation/delete 删除会话失败
    /api/v1/im/channel/create 创建频道失败
    /api/v1/im/channel/delete 删除频道失败
    /api/v1/im/channel/subscriber/add 添加订阅者失败
    /api/v1/im/channel/subscriber/remove 移除订阅者失败
    /api/v1/im/channel/info 服务内部错误
    /api/v1/im/channel/subscribers 获取成员列表失败
    /api/v1/im/channel/manager/add 服务内部错误
    /api/v1/im/channel/manager/remove 服务内部错误
    /api/v1/im/channel/owner 服务内部错误
    /api/v1/im/health 服务不可用
    /api/v1/im/system/info 获取系统信息失败
    ");
    let written: Vec<_> = all()
        .iter()
        .map(|endpoint| format!("{} {}", endpoint.full_path(), endpoint.failure.0))
        .collect();
    // The socket's has tests of its own.
    let calls = routes.into_iter().filter(|route| !route.contains("/ws "));
    assert_eq!(calls.collect::<Vec<_>>(), written, "the tests' own table");
}

#[tokio::test]
async fn every_protected_route_refuses_anonymous() {
    for app in TestApp::both().await {
        for endpoint in all() {
            let answer = endpoint.call(&app.anon()).await;
            if endpoint.is_public() {
                answer.ok();
                app.clear_calls();
                continue;
            }
            let answer = answer.fails(401, "token_missing");
            answer.has("www-authenticate", "Bearer");
            assert!(answer.body.get("data").is_none(), "{answer:#?}");
            assert_eq!(app.upstream.calls().len(), 0, "{}", endpoint.path);
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_with_allow_on_every_route() {
    let app = TestApp::start(V2).await;
    for endpoint in all() {
        let allowed = if endpoint.method == "GET" {
            "GET,HEAD"
        } else {
            "POST"
        };
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW",
        ] {
            if method == endpoint.method {
                continue;
            }
            let answer = raw(&app, method, &endpoint.full_path()).await;
            answer
                .fails(405, "method_not_allowed")
                .has("allow", allowed);
        }
    }
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn an_unknown_path_is_404_under_the_prefix_and_outside_it() {
    const PATHS: &str = "
        / /api /api/v1/im /api/v1/im/ /api/v1/im/nothing /api/v1/im/health/
        /api/v1/im/message/send/ /api/v1/im//health //api/v1/im/health /api/v1/im/HEALTH
        /api/v1/im/message /api/v1/im/message/send/more /api/v1/im/%68ealth%00
        /api/v1/im/channel/.. /api/v2/im/health /health /livez /metrics /message/send";
    let app = TestApp::start(V2).await;
    for path in PATHS.split_whitespace() {
        for method in ["GET", "POST"] {
            raw(&app, method, path).await.fails(404, "not_found");
            // A token changes nothing: what is not there is not there for anybody.
            let url = format!("{}{path}", app.base);
            let with_token = app.user("alice").request(method, "");
            let (client, request) = with_token.build_split();
            let mut request = request.unwrap();
            *request.url_mut() = url.parse().unwrap();
            let answer = Answer::of(client.execute(request).await.unwrap()).await;
            assert_eq!(answer.status, 404, "{method} {path}: {answer:#?}");
        }
    }
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let app = TestApp::with_group(V2, &[]).await;
    let alice = app.user("alice");
    for endpoint in all() {
        let path = format!("{}{}", endpoint.path, endpoint.query);
        let request = alice.request(Method::HEAD.as_str(), &path);
        let answer = Answer::to(request).await;
        let expected = if endpoint.method == "GET" { 200 } else { 405 };
        assert_eq!(answer.status, expected, "{path}: {answer:#?}");
        assert_eq!(answer.text, "", "{path}");
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
    }
    let refused = app.anon().request("HEAD", "/config").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
}
