//! Typical failures, whole: status, headers that matter, body.

use crate::support::prelude::*;

/// The answer to a request with the id `r-1`, as text.
async fn told(request: reqwest::RequestBuilder) -> String {
    let request = request.header("x-request-id", "r-1");
    let answer = Answer::to(request).await;
    let mut lines = vec![answer.status.to_string()];
    for name in ["allow", "retry-after", "www-authenticate", "content-type"] {
        if !answer.header(name).is_empty() {
            lines.push(format!("{name}: {}", answer.header(name)));
        }
    }
    // The text, not the parsed body: order and absence of keys are part of it.
    lines.push(answer.text);
    lines.join("\n")
}

fn body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    request
        .header("content-type", "application/json")
        .body(body.to_string())
}

#[tokio::test]
async fn refusals_before_a_handler_look_like_this() {
    let app = TestApp::start(V2).await;
    insta::assert_snapshot!(told(app.anon().request("GET", "/config")).await, @r#"
    401
    www-authenticate: Bearer
    content-type: application/json
    {"success":false,"message":"缺少访问令牌","code":"token_missing","requestId":"r-1"}
    "#);
    let request = app.anon().request("GET", "/config").bearer_auth("junk");
    insta::assert_snapshot!(told(request).await, @r#"
    401
    www-authenticate: Bearer
    content-type: application/json
    {"success":false,"message":"访问令牌无效","code":"token_invalid","requestId":"r-1"}
    "#);
    insta::assert_snapshot!(told(app.anon().request("GET", "/nothing")).await, @r#"
    404
    content-type: application/json
    {"success":false,"message":"接口不存在","code":"not_found","requestId":"r-1"}
    "#);
    insta::assert_snapshot!(told(app.anon().request("PUT", "/config")).await, @r#"
    405
    allow: GET,HEAD
    content-type: application/json
    {"success":false,"message":"请求方法不被允许","code":"method_not_allowed","requestId":"r-1"}
    "#);
}

#[tokio::test]
async fn bad_requests_look_like_this() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    let bad = json!({"channelId": "", "channelType": 3, "payload": "string", "clientMsgNo": 7});
    let request = body(alice.request("POST", "/message/send"), &bad);
    insta::assert_snapshot!(told(request).await, @r#"
    400
    content-type: application/json
    {"success":false,"message":"请求参数有误","code":"invalid_request","requestId":"r-1","details":[{"field":"channelId","message":"不能为空"},{"field":"channelType","message":"必须是1（单聊）或2（群聊）"},{"field":"payload","message":"必须是带填充的标准Base64"},{"field":"clientMsgNo","message":"必须是字符串"}]}
    "#);
    let good = json!({"channelId": "bob", "channelType": 1, "payload": payload("hi")});
    let batch = json!([good, {"channelId": "bob", "channelType": 1}, 7]);
    let request = body(alice.request("POST", "/message/sendbatch"), &batch);
    let request = request.header("accept-language", "en");
    insta::assert_snapshot!(told(request).await, @r#"
    400
    content-type: application/json
    {"success":false,"message":"the request is invalid","code":"invalid_request","requestId":"r-1","details":[{"field":"[1].payload","message":"is required"},{"field":"[2]","message":"must be an object"}]}
    "#);
    let text = alice.request("POST", "/message/send").body("hi");
    insta::assert_snapshot!(told(text).await, @r#"
    415
    content-type: application/json
    {"success":false,"message":"请求体必须是JSON","code":"unsupported_media_type","requestId":"r-1"}
    "#);
}

#[tokio::test]
async fn refusals_of_a_handler_look_like_this() {
    let app = TestApp::with_group(V2, &[]).await;
    let group = json!({"channelId": "g", "channelType": 2});
    let request = body(app.user("bob").request("POST", "/channel/delete"), &group);
    insta::assert_snapshot!(told(request).await, @r#"
    403
    content-type: application/json
    {"success":false,"message":"只有群主可以执行此操作","code":"not_owner","requestId":"r-1"}
    "#);
    let request = body(app.user("bob").request("POST", "/channel/create"), &group);
    insta::assert_snapshot!(told(request).await, @r#"
    409
    content-type: application/json
    {"success":false,"message":"频道已存在","code":"channel_exists","requestId":"r-1"}
    "#);
    app.upstream.stop().await;
    let request = body(
        app.user("bob").request("POST", "/channel/delete"),
        &json!({"channelId": "h", "channelType": 2}),
    );
    insta::assert_snapshot!(told(request).await, @r#"
    503
    retry-after: 1
    content-type: application/json
    {"success":false,"message":"删除频道失败","code":"upstream_unavailable","requestId":"r-1"}
    "#);
}
