//! The endpoints as the reference lists them, and those beyond it, written down once more: what the router has is held to this.

use serde_json::{Value, json};

use crate::support::actors::{Actor, payload};
use crate::support::answer::Answer;

/// One endpoint, and a request that is good enough to reach WuKongIM.
pub struct Endpoint {
    pub method: &'static str,
    /// Below the prefix.
    pub path: &'static str,
    /// A query with its `?`, or nothing.
    pub query: &'static str,
    pub body: Option<Value>,
    /// What every 5xx says, in Chinese and in English.
    pub failure: (&'static str, &'static str),
}

impl Endpoint {
    /// The whole path.
    pub fn full_path(&self) -> String {
        format!("/api/v1/im{}", self.path)
    }

    pub fn is_public(&self) -> bool {
        self.path == "/health"
    }

    /// The good request, not sent yet.
    pub fn request(&self, actor: &Actor<'_>) -> reqwest::RequestBuilder {
        let request = actor.request(self.method, &format!("{}{}", self.path, self.query));
        match &self.body {
            None => request,
            Some(body) => request
                .header("content-type", "application/json")
                .body(body.to_string()),
        }
    }

    /// The answer to the good request.
    pub async fn call(&self, actor: &Actor<'_>) -> Answer {
        Answer::of(self.request(actor).send().await.expect("an answer")).await
    }
}

/// What a 5xx of an endpoint says that the reference does not have.
const OWN: (&str, &str) = ("服务内部错误", "internal service error");

/// All of them, in the reference's order.
pub fn all() -> Vec<Endpoint> {
    let get = |path, query, failure| Endpoint {
        method: "GET",
        path,
        query,
        body: None,
        failure,
    };
    let post = |path, body, failure| Endpoint {
        method: "POST",
        path,
        query: "",
        body,
        failure,
    };
    let message = json!({"channelId": "bob", "channelType": 1, "payload": payload("hi")});
    let group = json!({"channelId": "g", "channelType": 2});
    let subscribers = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob"]});
    let managers = json!({"channelId": "g", "channelType": 2, "uids": ["bob"]});
    let owner = json!({"channelId": "g", "channelType": 2, "uid": "bob"});
    vec![
        get(
            "/config",
            "",
            (
                "获取连接配置失败",
                "failed to get the connection configuration",
            ),
        ),
        post("/token", None, ("获取Token失败", "failed to get the token")),
        post("/token/revoke", None, OWN),
        post(
            "/message/send",
            Some(message.clone()),
            ("发送消息失败", "failed to send the message"),
        ),
        post(
            "/message/sendbatch",
            Some(json!([message])),
            ("批量发送消息失败", "failed to send the batch"),
        ),
        get(
            "/message/sync",
            "?channelId=bob&channelType=1",
            ("同步消息失败", "failed to sync messages"),
        ),
        post(
            "/channel/create",
            Some(group.clone()),
            ("创建频道失败", "failed to create the channel"),
        ),
        post(
            "/channel/delete",
            Some(group),
            ("删除频道失败", "failed to delete the channel"),
        ),
        post(
            "/channel/subscriber/add",
            Some(subscribers.clone()),
            ("添加订阅者失败", "failed to add subscribers"),
        ),
        post(
            "/channel/subscriber/remove",
            Some(subscribers),
            ("移除订阅者失败", "failed to remove subscribers"),
        ),
        get("/channel/info", "?channelId=g&channelType=2", OWN),
        post("/channel/manager/add", Some(managers.clone()), OWN),
        post("/channel/manager/remove", Some(managers), OWN),
        post("/channel/owner", Some(owner), OWN),
        get("/health", "", ("服务不可用", "service unavailable")),
        get(
            "/system/info",
            "",
            ("获取系统信息失败", "failed to get the system information"),
        ),
    ]
}

#[test]
fn bodies_of_every_endpoint_that_takes_one_are_fuzzed() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fuzz/fuzz_targets/json_bodies.rs"
    );
    let target = std::fs::read_to_string(path).unwrap();
    for endpoint in all().iter().filter(|endpoint| endpoint.method == "POST") {
        let quoted = format!("\"{}\",", endpoint.path);
        assert!(target.contains(&quoted), "{quoted} of {path}");
    }
}
