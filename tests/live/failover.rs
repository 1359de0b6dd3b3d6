//! A three-node v2 cluster loses one node after the other, and no acknowledged message.
//!
//! Runs where `WUKONGIM_V2_URL` names three nodes and `WUKONGIM_V2_NODE` a program that is called with `kill N` and `revive N`, N from 1 (a
//! revived node has answered when the program ends):
//! `cargo test --locked --test live -- failover --nocapture`. It takes three minutes, and writes to the servers.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::actors::payload;
use crate::support::app::{people, unique};
use crate::support::server::{Server, variable};
use crate::support::{TestApp, each_server};

const GROUPS: usize = 10;
const PAIRS: usize = 10;
const EVERY: Duration = Duration::from_millis(20);
/// How long the cluster is left as it is before the next thing happens to it.
const PHASE: Duration = Duration::from_secs(15);
/// Retries under way at the same time.
const TOGETHER: usize = 64;
/// How long retries go on after the last node came back.
const RETRIES: Duration = Duration::from_mins(5);

/// A message and what became of it.
struct Sent {
    channel: usize,
    number: String,
    /// Status, id and seq of each answer; 0 where the connection broke.
    answers: Vec<(u16, String, u64)>,
}

#[derive(Clone)]
struct Channel {
    kind: u8,
    id: String,
    sender: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_message_is_lost_while_nodes_die() {
    let Some(program) = variable("WUKONGIM_V2_NODE") else {
        return;
    };
    let server = each_server().into_iter().find(Server::is_v2);
    let server = server.expect("WUKONGIM_V2_URL");
    assert_eq!(server.urls.len(), 3, "three nodes");
    let app = Arc::new(TestApp::start(&server).await);
    let channels = channels(&app).await;

    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let sending = tokio::spawn(send_all(app.clone(), channels.clone(), stopped));
    for node in ["1", "2"] {
        tokio::time::sleep(PHASE).await;
        node_is(&program, "kill", node).await;
        println!("{:>6.1?} node {node} killed", began.elapsed());
        tokio::time::sleep(PHASE).await;
        node_is(&program, "revive", node).await;
        println!("{:>6.1?} node {node} back", began.elapsed());
    }
    tokio::time::sleep(PHASE).await;
    stop.send(true).unwrap();
    let mut sent = sending.await.unwrap();

    // What was told as not stored, or as not known, is sent again with its number until it is acknowledged.
    let first: BTreeMap<u16, usize> = sent.iter().fold(BTreeMap::new(), |mut all, message| {
        *all.entry(message.answers[0].0).or_default() += 1;
        all
    });
    println!("{} sent, first answers by status: {first:?}", sent.len());
    assert!(
        first.keys().all(|status| [200, 503, 504].contains(status)),
        "{first:?}"
    );
    let until = Instant::now() + RETRIES;
    stream::iter(&mut sent)
        .for_each_concurrent(TOGETHER, |message| {
            let (app, channel) = (&app, &channels[message.channel]);
            async move {
                while message.answers.last().is_none_or(|last| last.0 != 200) {
                    assert!(
                        Instant::now() < until,
                        "{} is never acknowledged",
                        message.number
                    );
                    message
                        .answers
                        .push(send(app, channel, &message.number).await);
                }
            }
        })
        .await;
    println!("{:>6.1?} all acknowledged", began.elapsed());

    let stored = stored(&app, &channels).await;
    let (mut timeouts, mut duplicates) = (0, 0);
    for message in &sent {
        let found = stored.get(&message.number).map_or(&[][..], Vec::as_slice);
        let (_, id, seq) = message.answers.last().unwrap();
        assert!(
            found.contains(&(message.channel, id.clone(), *seq)),
            "acknowledged and lost: {} {:?}, stored {found:?}",
            message.number,
            message.answers
        );
        if message.answers.len() == 1 {
            assert_eq!(found.len(), 1, "stored more than once: {}", message.number);
        }
        duplicates += found.len() - 1;
        timeouts += message
            .answers
            .iter()
            .filter(|answer| answer.0 == 504)
            .count();
    }
    let retried = sent
        .iter()
        .filter(|message| message.answers.len() > 1)
        .count();
    println!(
        "{} acknowledged at once, {retried} after retries; {timeouts} answers of 504, {duplicates} duplicates in the store; 0 lost",
        sent.len() - retried
    );
    assert!(duplicates <= timeouts);
    let all: usize = stored.values().map(Vec::len).sum();
    assert_eq!(all, sent.len() + duplicates, "nothing else was stored");
}

/// Groups with two subscribers, and pairs; each channel has one sender.
async fn channels(app: &TestApp) -> Vec<Channel> {
    let mut channels = Vec::new();
    for place in 0..GROUPS + PAIRS {
        let [sender, other] = people(["from", "to"]);
        let (kind, id) = if place < GROUPS {
            (2, app.group(&sender, &[&other]).await)
        } else {
            (1, other)
        };
        channels.push(Channel { kind, id, sender });
    }
    channels
}

/// 50 messages a second, whatever becomes of those before.
async fn send_all(
    app: Arc<TestApp>,
    channels: Vec<Channel>,
    stopped: watch::Receiver<bool>,
) -> Vec<Sent> {
    let mut sends = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    let mut place = 0;
    while !*stopped.borrow() {
        ticks.tick().await;
        let channel = place % channels.len();
        place += 1;
        let (app, to) = (app.clone(), channels[channel].clone());
        sends.spawn(async move {
            let number = unique("n");
            let answers = vec![send(&app, &to, &number).await];
            Sent {
                channel,
                number,
                answers,
            }
        });
    }
    sends.join_all().await
}

/// Status, id and seq of one answer.
async fn send(app: &TestApp, channel: &Channel, number: &str) -> (u16, String, u64) {
    let body = json!({
        "channelId": channel.id, "channelType": channel.kind, "payload": payload(number), "clientMsgNo": number,
    });
    let answer = app.user(&channel.sender).post("/message/send", &body).await;
    let data = &answer.body["data"];
    let id = data["messageId"].as_str().unwrap_or_default();
    (
        answer.status,
        id.to_owned(),
        data["messageSeq"].as_u64().unwrap_or(0),
    )
}

/// All that the channels have in the end: by number, in which channel, with which id and seq.
async fn stored(app: &TestApp, channels: &[Channel]) -> HashMap<String, Vec<(usize, String, u64)>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (place, channel) in channels.iter().enumerate() {
        let mut last = 0;
        loop {
            // Without a seq it would be the newest page.
            let more = match last {
                0 => "&limit=200&beforeMessageSeq=201".to_owned(),
                last => format!("&limit=200&lastMessageSeq={last}"),
            };
            let page = app
                .user(&channel.sender)
                .sync(channel.kind, &channel.id, &more)
                .await
                .ok();
            let page: &Vec<Value> = page.as_array().unwrap();
            let Some(newest) = page.last() else { break };
            last = newest["messageSeq"].as_u64().unwrap();
            for message in page {
                let number = message["clientMsgNo"].as_str().unwrap().to_owned();
                let id = message["messageId"].as_str().unwrap().to_owned();
                all.entry(number).or_default().push((
                    place,
                    id,
                    message["messageSeq"].as_u64().unwrap(),
                ));
            }
        }
    }
    all
}

async fn node_is(program: &str, what: &'static str, node: &'static str) {
    let mut command = Command::new(program);
    command.args([what, node]);
    let done = tokio::task::spawn_blocking(move || command.status()).await;
    assert!(done.unwrap().unwrap().success(), "{what} {node}");
}
