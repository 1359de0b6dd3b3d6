//! 50 messages a second to 20 channels, through the gateway or past it, and what the channels have in the end. Knows nothing of what
//! happens to the cluster meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::actors::payload;
use crate::support::real::{Server, TestApp, people, unique};

const GROUPS: usize = 10;
const PAIRS: usize = 10;
const EVERY: Duration = Duration::from_millis(20);
/// How long a cluster may take until all of its channels can be read again.
const READABLE: Duration = Duration::from_mins(2);

/// A message and what became of it.
pub struct Sent {
    /// The channel's place.
    pub channel: usize,
    pub number: String,
    /// When it was first sent, since the traffic began, and how long the answer took.
    pub at: Duration,
    pub took: Duration,
    /// Each answer; the last one counts.
    pub answers: Vec<Answer>,
}

/// What was said of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 where the connection broke.
    pub status: u16,
    pub id: String,
    /// 0 where none was told, as WuKongIM itself does.
    pub seq: u64,
}

/// Who is told to send.
#[derive(Clone)]
pub enum Way {
    Gateway,
    /// WuKongIM's nodes in turn, as a proxy would ask them: one that refuses the connection is passed over.
    Past(reqwest::Client, Vec<String>),
}

impl Way {
    pub fn past(server: &Server) -> Self {
        let http = wukongim_gateway::http_client::client();
        let http = http.no_proxy().timeout(Duration::from_secs(10));
        Self::Past(http.build().unwrap(), server.urls.clone())
    }
}

#[derive(Clone)]
pub struct Channel {
    kind: u8,
    id: String,
    sender: String,
}

/// Groups with two subscribers, and pairs; each channel has one sender.
pub async fn channels(app: &TestApp) -> Vec<Channel> {
    let mut channels = Vec::new();
    for index in 0..GROUPS + PAIRS {
        let [sender, other] = people(["from", "to"]);
        let (kind, id) = if index < GROUPS {
            (2, app.group(&sender, &[&other]).await)
        } else {
            (1, other)
        };
        channels.push(Channel { kind, id, sender });
    }
    channels
}

/// 50 messages a second, whatever becomes of those before.
pub async fn send_all(
    app: Arc<TestApp>,
    way: Way,
    channels: Vec<Channel>,
    stopped: watch::Receiver<bool>,
) -> Vec<Sent> {
    let began = Instant::now();
    let mut sends = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    let mut index = 0;
    while !*stopped.borrow() {
        ticks.tick().await;
        let turn = index;
        index += 1;
        let channel = turn % channels.len();
        let (app, way, to) = (app.clone(), way.clone(), channels[channel].clone());
        sends.spawn(async move {
            let number = unique("n");
            let left = Instant::now();
            let answer = match &way {
                Way::Gateway => send(&app, &to, &number).await,
                Way::Past(http, nodes) => send_past(http, nodes, turn, &to, &number).await,
            };
            Sent {
                channel,
                number,
                at: left - began,
                took: left.elapsed(),
                answers: vec![answer],
            }
        });
    }
    sends.join_all().await
}

/// Sends one through the gateway.
pub async fn send(app: &TestApp, channel: &Channel, number: &str) -> Answer {
    let body = json!({
        "channelId": channel.id, "channelType": channel.kind, "payload": payload(number), "clientMsgNo": number,
    });
    let answer = app.user(&channel.sender).post("/message/send", &body).await;
    let data = &answer.body["data"];
    Answer {
        status: answer.status,
        id: data["messageId"].as_str().unwrap_or_default().to_owned(),
        seq: data["messageSeq"].as_u64().unwrap_or(0),
    }
}

async fn send_past(
    http: &reqwest::Client,
    nodes: &[String],
    turn: usize,
    channel: &Channel,
    number: &str,
) -> Answer {
    let body = json!({
        "header": {"red_dot": 1}, "from_uid": channel.sender, "channel_id": channel.id, "channel_type": channel.kind,
        "client_msg_no": number, "payload": payload(number),
    });
    let none = |status| Answer {
        status,
        id: String::new(),
        seq: 0,
    };
    for node in nodes.iter().cycle().skip(turn).take(nodes.len()) {
        let request = http.post(format!("{node}/message/send"));
        let request = request.header("content-type", "application/json");
        let answer = match request.body(body.to_string()).send().await {
            Err(error) if error.is_connect() => continue,
            Err(_) => return none(0),
            Ok(answer) => answer,
        };
        let status = answer.status().as_u16();
        let said: Value = match answer.bytes().await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
            Err(_) => return none(0),
        };
        return match said["data"]["message_id"].as_u64() {
            Some(id) if status == 200 && said["status"] == 200 => Answer {
                id: id.to_string(),
                ..none(200)
            },
            _ => none(if status == 200 { 500 } else { status }),
        };
    }
    none(0)
}

/// A stored message: the place of its channel, its id, its seq.
pub type Stored = (usize, String, u64);

/// All that the channels have in the end, by number.
pub async fn stored(app: &TestApp, channels: &[Channel]) -> HashMap<String, Vec<Stored>> {
    let until = Instant::now() + READABLE;
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (index, channel) in channels.iter().enumerate() {
        let mut last = 0;
        loop {
            // Without a seq it would be the newest page.
            let more = match last {
                0 => "&limit=200&beforeMessageSeq=201".to_owned(),
                last => format!("&limit=200&lastMessageSeq={last}"),
            };
            let reader = app.user(&channel.sender);
            let page = reader.sync(channel.kind, &channel.id, &more).await;
            if page.status != 200 && Instant::now() < until {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let page = page.ok();
            let page: &Vec<Value> = page.as_array().unwrap();
            let Some(newest) = page.last() else { break };
            last = newest["messageSeq"].as_u64().unwrap();
            for message in page {
                let number = message["clientMsgNo"].as_str().unwrap().to_owned();
                let id = message["messageId"].as_str().unwrap().to_owned();
                let seq = message["messageSeq"].as_u64().unwrap();
                all.entry(number).or_default().push((index, id, seq));
            }
        }
    }
    all
}
