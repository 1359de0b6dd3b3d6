//! What a gateway's memory of sent clientMsgNo takes when it is full, and that it takes no more then.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Connection;
use crate::gateway::{Gateway, Stage};
use crate::upstream::Upstream;

/// Clients that send at the same time.
const CLIENTS: usize = 8;
/// Messages of one batch: as many as are allowed by default.
const BATCH: usize = 100;
const GROUPS: usize = 50;
/// `wukongim.idempotency_entries` by default.
const ENTRIES: usize = 200_000;
/// How often as many are sent as there is room for.
const ROUNDS: usize = 5;
/// Longer than between two of the gateway's own clean-ups.
const CLEAN_UP: Duration = Duration::from_secs(7);

/// Fills it with `wukongim.idempotency_entries` numbers of as many users, goes on for as many again and again, and prints the memory.
///
/// # Errors
/// Where a message was not sent, or the gateway forgot another number of them than expected.
pub async fn run(stage: &Stage, quick: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let entries = if quick { ENTRIES / 10 } else { ENTRIES };
    let upstream = Upstream::start(stage, false, 40, 1, Duration::ZERO).await?;
    let size = entries.to_string();
    // Nobody needs to be a member, so that nothing but numbers is remembered of the senders.
    let settings = [
        ("GATEWAY__AUTHORIZATION__MODE", "open"),
        ("GATEWAY__WUKONGIM__IDEMPOTENCY_ENTRIES", &size),
    ];
    let gateway = stage.start(50, &upstream.nodes, &settings).await?;
    let token: Rc<str> = stage.token(&["--uid", "root", "--admin"])?.into();
    let sender = Rc::new(Sender {
        api: gateway.api.clone(),
        token,
        next: Cell::new(0),
    });
    // What sending itself needs is there before anything is measured; without a number nothing is remembered.
    sender.send(entries / 10, false).await?;
    let mut rows = vec![(0, memory(&gateway).await?)];
    for round in 1..=ROUNDS {
        sender.send(entries, true).await?;
        let forgotten = gateway
            .metric("gateway_idempotency_forgotten_total")
            .await?;
        if forgotten != ((round - 1) * entries) as u64 {
            return Err(format!("{forgotten} numbers were forgotten in round {round}").into());
        }
        rows.push((round * entries, memory(&gateway).await?));
    }
    println!(
        "\n| clientMsgNo sent, each by another user | remembered | memory, MB |\n|---|---|---|"
    );
    for (sent, memory) in &rows {
        let tenths = memory / 100_000;
        println!(
            "| {sent} | {} | {}.{} |",
            sent.min(&entries),
            tenths / 10,
            tenths % 10
        );
    }
    // Its tables grow once more after it is full, since places that were given up are not all used again; then no more.
    let [(_, empty), .., (_, before), (_, last)] = rows[..] else {
        return Ok(false);
    };
    Ok(last.saturating_sub(before) <= before.saturating_sub(empty) / 20)
}

async fn memory(gateway: &Gateway) -> io::Result<u64> {
    sleep(CLEAN_UP).await;
    gateway.memory()
}

/// An admin who sends as ever new users.
struct Sender {
    api: String,
    token: Rc<str>,
    next: Cell<usize>,
}

impl Sender {
    /// Sends so many messages, each of a user of its own.
    async fn send(
        self: &Rc<Self>,
        count: usize,
        numbered: bool,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let end = self.next.get() + count;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let this = self.clone();
            clients.spawn_local(async move {
                let mut connection = Connection::open(&this.api).await?;
                while this.next.get() < end {
                    let first = this.next.get();
                    this.next.set(first + BATCH);
                    let answer = connection.ask(&this.batch(first, numbered)).await?;
                    let body: Value = serde_json::from_slice(&answer.body)?;
                    if answer.status != 200 || body["success"] != true {
                        return Err(io::Error::other(answer.sample()));
                    }
                }
                Ok(())
            });
        }
        for outcome in clients.join_all().await {
            outcome?;
        }
        Ok(())
    }

    fn batch(&self, first: usize, numbered: bool) -> Vec<u8> {
        let messages = (first..first + BATCH).map(|index| {
            let mut message = json!({
                "fromUid": format!("sender-{index}"),
                "channelId": format!("bench-group{:03}", index % GROUPS),
                "channelType": 2,
                "payload": "eyJ0eXBlIjoxfQ==",
            });
            if numbered {
                message["clientMsgNo"] = json!(format!("number-{index}"));
            }
            message
        });
        let body = messages.collect::<Value>().to_string();
        let mut request = format!(
            "POST /api/v1/im/message/sendbatch HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        request.push_str(&body);
        request.into_bytes()
    }
}
