//! Sending: bodies, and what the upstream got of them.

use std::time::Duration;

use dev_upstream::{Call, StoredMessage};
use serde_json::{Value, json};

use super::actors::{Actor, payload};
use super::answer::Answer;
use super::app::TestApp;

/// A message for `/message/send`, without a number.
pub fn message(channel_type: u8, id: &str, text: &str) -> Value {
    json!({"channelId": id, "channelType": channel_type, "payload": payload(text)})
}

/// A message with the client's own number.
pub fn numbered(channel_type: u8, id: &str, text: &str, number: &str) -> Value {
    let mut body = message(channel_type, id, text);
    body["clientMsgNo"] = json!(number);
    body
}

/// An object with these members set in it; `null` takes one away.
pub fn with(mut body: Value, changes: &Value) -> Value {
    let members = body.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("changes") {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    body
}

/// The same in the name of another user.
pub fn as_user(uid: &str, mut body: Value) -> Value {
    body["fromUid"] = json!(uid);
    body
}

/// So many messages to the group `g`, numbered `n-0` and so on.
pub fn series(count: usize) -> Vec<Value> {
    let body = |n| numbered(2, "g", "hi", &format!("n-{n}"));
    (0..count).map(body).collect()
}

/// The seqs of a list of messages.
#[track_caller]
pub fn seqs(messages: &Value) -> Vec<u64> {
    let messages = messages.as_array().expect("a list").iter();
    let seq = |message: &Value| message["messageSeq"].as_u64().expect("a seq");
    messages.map(seq).collect()
}

/// A message of a group to be stored behind the gateway's back; its payload is the one `message` makes of the same text.
pub fn stored(group: &str, from: &str, number: &str, text: &str) -> StoredMessage {
    StoredMessage {
        channel_id: group.into(),
        channel_type: 2,
        from_uid: from.into(),
        client_msg_no: number.into(),
        payload: json!({"type": 1, "content": text}).to_string().into(),
        ..StoredMessage::default()
    }
}

impl Actor<'_> {
    pub async fn send(&self, body: &Value) -> Answer {
        self.post("/message/send", body).await
    }

    pub async fn send_batch(&self, bodies: &[Value]) -> Answer {
        self.post("/message/sendbatch", &json!(bodies)).await
    }

    /// Sends and hangs up as soon as `gone` is over.
    pub async fn send_and_hang_up(&self, body: &Value, gone: impl Future<Output = ()>) {
        let request = self.posting("/message/send", body.to_string());
        tokio::select! {
            answer = request.send() => panic!("answered before the client was gone: {answer:?}"),
            () = gone => {}
        }
    }
}

impl TestApp {
    /// The messages handed to the upstream, in order; v3's probes for a group are none.
    pub fn sends(&self) -> Vec<Call> {
        let mut calls = self.calls_to("/message/send");
        calls.retain(|call| call.body["from_uid"] != "____gateway");
        calls
    }

    /// How many pages of messages the upstream was asked for.
    pub fn looks(&self) -> usize {
        self.calls_to("/channel/messagesync").len()
    }

    /// Sender, number and seq of each message stored in a group.
    pub fn stored_in(&self, group: &str) -> Vec<(String, String, u64)> {
        let messages = self.upstream.state().messages(2, group);
        let parts = messages.iter().map(|message| {
            (
                message.from_uid.to_string(),
                message.client_msg_no.to_string(),
                message.message_seq,
            )
        });
        parts.collect()
    }

    /// Stores `count` messages of somebody else in a group, and gives the last one's seq.
    pub fn chatter(&self, group: &str, count: usize) -> u64 {
        let store = |_| {
            self.upstream
                .state()
                .store_message(stored(group, "carol", "", "x"))
        };
        (0..count).map(store).last().map_or(0, |(_, seq)| seq)
    }
}

/// Waits until `done`; fails loudly after ten seconds.
#[track_caller]
pub fn until(mut done: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for _ in 0..2000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never came true: {caller}");
    }
}
