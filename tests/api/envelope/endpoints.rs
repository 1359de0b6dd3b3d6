//! The endpoints as the reference lists them, and those beyond it, written down once more: what the router has is held to this.

use crate::support::prelude::*;

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

/// All of them, in the reference's order: method, path and query, body, and what every 5xx says, in Chinese and in English.
const TABLE: &str = r#"
GET  | /config | | 获取连接配置失败 | failed to get the connection configuration
POST | /token | | 获取Token失败 | failed to get the token
POST | /token/revoke | | 服务内部错误 | internal service error
POST | /message/send | {"channelId":"bob","channelType":1,"payload":"aGk="} | 发送消息失败 | failed to send the message
POST | /message/sendbatch | [{"channelId":"bob","channelType":1,"payload":"aGk="}] | 批量发送消息失败 | failed to send the batch
GET  | /message/sync?channelId=bob&channelType=1 | | 同步消息失败 | failed to sync messages
GET  | /conversation/list | | 获取会话列表失败 | failed to list the conversations
POST | /conversation/read | {"channelId":"bob","channelType":1} | 标记已读失败 | failed to mark as read
POST | /conversation/delete | {"channelId":"bob","channelType":1} | 删除会话失败 | failed to delete the conversation
POST | /channel/create | {"channelId":"g","channelType":2} | 创建频道失败 | failed to create the channel
POST | /channel/delete | {"channelId":"g","channelType":2} | 删除频道失败 | failed to delete the channel
POST | /channel/subscriber/add | {"channelId":"g","channelType":2,"subscribers":["bob"]} | 添加订阅者失败 | failed to add subscribers
POST | /channel/subscriber/remove | {"channelId":"g","channelType":2,"subscribers":["bob"]} | 移除订阅者失败 | failed to remove subscribers
GET  | /channel/info?channelId=g&channelType=2 | | 服务内部错误 | internal service error
GET  | /channel/subscribers?channelId=g&channelType=2 | | 获取成员列表失败 | failed to list the subscribers
POST | /channel/manager/add | {"channelId":"g","channelType":2,"uids":["bob"]} | 服务内部错误 | internal service error
POST | /channel/manager/remove | {"channelId":"g","channelType":2,"uids":["bob"]} | 服务内部错误 | internal service error
POST | /channel/owner | {"channelId":"g","channelType":2,"uid":"bob"} | 服务内部错误 | internal service error
GET  | /health | | 服务不可用 | service unavailable
GET  | /system/info | | 获取系统信息失败 | failed to get the system information
"#;

pub fn all() -> Vec<Endpoint> {
    let endpoint = |line: &'static str| {
        let [method, target, body, zh, en] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let target = target.trim();
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        Endpoint {
            method: method.trim(),
            path,
            query,
            body: serde_json::from_str(body).ok(),
            failure: (zh.trim(), en.trim()),
        }
    };
    TABLE.trim().lines().map(endpoint).collect()
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
