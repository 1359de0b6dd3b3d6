//! The callers of the gateway, all with the same methods.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Answer;
use super::served::{SECRET, Served};

/// Somebody with a token, or without.
pub struct Actor<'a> {
    base: &'a str,
    http: &'a reqwest::Client,
    token: Option<String>,
}

/// A JWT with these claims, signed with the tests' secret.
pub fn sign(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key)
        .expect("claims can be signed")
}

/// A payload as clients send it.
pub fn payload(text: &str) -> String {
    STANDARD.encode(json!({"type": 1, "content": text}).to_string())
}

/// A client without idle connections, so that no request meets one the gateway is just closing.
pub fn http_client() -> reqwest::Client {
    wukongim_gateway::http_client::client()
        .timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client")
}

/// A time no test lives to see, in Unix seconds.
pub const FAR: u64 = 4_000_000_000;

impl<'a> Actor<'a> {
    pub fn anonymous(app: &'a Served) -> Self {
        Self {
            base: &app.base,
            http: &app.http,
            token: None,
        }
    }

    pub fn user(app: &'a Served, uid: &str) -> Self {
        Self::with_claims(app, &json!({"sub": uid, "exp": FAR}))
    }

    pub fn admin(app: &'a Served) -> Self {
        Self::with_claims(app, &json!({"sub": "root", "roles": ["admin"], "exp": FAR}))
    }

    pub fn with_claims(app: &'a Served, claims: &Value) -> Self {
        Self {
            base: &app.base,
            http: &app.http,
            token: Some(sign(claims)),
        }
    }

    /// A request to a path below the prefix, with the token where there is one.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let url = format!("{}/api/v1/im{path}", self.base);
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request("GET", path)).await
    }

    /// A request that posts this text as JSON, to be sent by whoever wants something else of it.
    pub fn posting(&self, path: &str, body: impl Into<String>) -> reqwest::RequestBuilder {
        let request = self.request("POST", path);
        let request = request.header("content-type", "application/json");
        request.body(body.into())
    }

    /// Posts this text as JSON.
    pub async fn post_text(&self, path: &str, body: impl Into<String>) -> Answer {
        Answer::to(self.posting(path, body)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    /// Posts without a body.
    pub async fn post_nothing(&self, path: &str) -> Answer {
        Answer::to(self.request("POST", path)).await
    }

    pub async fn send_to_person(&self, peer: &str, text: &str) -> Answer {
        self.post(
            "/message/send",
            &json!({"channelId": peer, "channelType": 1, "payload": payload(text)}),
        )
        .await
    }

    pub async fn send_to_group(&self, group: &str, text: &str) -> Answer {
        self.post(
            "/message/send",
            &json!({"channelId": group, "channelType": 2, "payload": payload(text)}),
        )
        .await
    }

    /// The newest messages of a channel; `more` is appended to the query.
    pub async fn sync(&self, channel_type: u8, id: &str, more: &str) -> Answer {
        self.get(&format!(
            "/message/sync?channelId={id}&channelType={channel_type}{more}"
        ))
        .await
    }

    pub async fn create_group(&self, id: &str) -> Answer {
        self.post(
            "/channel/create",
            &json!({"channelId": id, "channelType": 2}),
        )
        .await
    }

    pub async fn delete_group(&self, id: &str) -> Answer {
        self.post(
            "/channel/delete",
            &json!({"channelId": id, "channelType": 2}),
        )
        .await
    }

    pub async fn add(&self, group: &str, uids: &[&str]) -> Answer {
        let body = json!({"channelId": group, "channelType": 2, "subscribers": uids});
        self.post("/channel/subscriber/add", &body).await
    }

    pub async fn info(&self, group: &str) -> Answer {
        self.get(&format!("/channel/info?channelId={group}&channelType=2"))
            .await
    }

    /// A page of the caller's conversations; `query` without its `?`.
    pub async fn conversations(&self, query: &str) -> Answer {
        self.get(&format!("/conversation/list?{query}")).await
    }

    /// Marks a conversation as read, up to a seq or to the newest message.
    pub async fn read(&self, channel_type: u8, id: &str, seq: Option<u64>) -> Answer {
        let body = json!({"channelId": id, "channelType": channel_type, "messageSeq": seq});
        self.post("/conversation/read", &body).await
    }

    /// Deletes a conversation from the caller's list.
    pub async fn hide(&self, channel_type: u8, id: &str) -> Answer {
        let body = json!({"channelId": id, "channelType": channel_type});
        self.post("/conversation/delete", &body).await
    }

    /// A page of a group's subscribers; `more` is appended to the query.
    pub async fn members(&self, group: &str, more: &str) -> Answer {
        self.get(&format!(
            "/channel/subscribers?channelId={group}&channelType=2{more}"
        ))
        .await
    }

    /// `verb` is `add` or `remove`.
    pub async fn manager(&self, verb: &str, group: &str, uids: &[&str]) -> Answer {
        let body = json!({"channelId": group, "channelType": 2, "uids": uids});
        self.post(&format!("/channel/manager/{verb}"), &body).await
    }

    pub async fn transfer_ownership(&self, group: &str, uid: &str) -> Answer {
        let body = json!({"channelId": group, "channelType": 2, "uid": uid});
        self.post("/channel/owner", &body).await
    }

    pub async fn remove(&self, group: &str, uids: &[&str]) -> Answer {
        let body = json!({"channelId": group, "channelType": 2, "subscribers": uids});
        self.post("/channel/subscriber/remove", &body).await
    }
}
