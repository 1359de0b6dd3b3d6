//! Several workers act as one gateway: they share idempotency store, limits and memberships.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dev_upstream::{DevUpstream, Dialect, Fault, Options};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::process::{Gateway, TIMEOUT_BOUND, answer, becomes, token};

const CORES: &str = "4";
/// Shared out over the cores when they are opened, no core has more than three more than another.
const CONNECTIONS: usize = 12;

struct Fixture {
    upstream: DevUpstream,
    gateway: Gateway,
    /// One connection each.
    clients: Vec<reqwest::Client>,
}

impl Fixture {
    async fn start(env: &[(&str, &str)]) -> Self {
        let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
        let cores = [("GATEWAY__SERVER__WORKER_THREADS", CORES)];
        let gateway = Gateway::before(&upstream, &[&cores, env].concat());
        let client = || {
            wukongim_gateway::http_client::client()
                .timeout(TIMEOUT_BOUND)
                .build()
        };
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| client().unwrap()).collect();
        let fixture = Self {
            upstream,
            gateway,
            clients,
        };
        // Connections are opened here, one by one, and stay.
        for index in 0..CONNECTIONS {
            let url = format!("{}/api/v1/im/health", fixture.gateway.api);
            becomes(200, || fixture.clients[index].get(&url)).await;
        }
        fixture
    }

    async fn post(&self, index: usize, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1/im{path}", self.gateway.api);
        let client = &self.clients[index % CONNECTIONS];
        let request = client.post(url).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        answer(request.body(body.to_string())).await
    }

    async fn send(&self, index: usize, token: &str, number: &str) -> (u16, Value) {
        let body =
            json!({"channelId": "g", "channelType": 2, "payload": "eA==", "clientMsgNo": number});
        self.post(index, token, "/message/send", &body).await
    }

    async fn create(&self, token: &str) {
        let body = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob"]});
        let (status, body) = self.post(0, token, "/channel/create", &body).await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_msg_no_sent_over_all_workers_at_once_is_sent_once() {
    let fixture = Fixture::start(&[]).await;
    let alice = token("alice");
    fixture.create(&alice).await;
    // While the first one is under way all others come.
    let held = Fault::Hold("held".into());
    fixture.upstream.faults().always("/message/send", held);
    let sends = (0..CONNECTIONS).map(|index| fixture.send(index, &alice, "n-1"));
    let release = async {
        fixture.upstream.faults().wait_held("held", 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        fixture.upstream.faults().release("held");
    };
    let (answers, ()) = tokio::join!(join_all(sends), release);
    fixture.upstream.faults().clear();
    let again = join_all((0..CONNECTIONS).map(|index| fixture.send(index, &alice, "n-1"))).await;
    let told = answers.iter().chain(&again).map(|(status, body)| {
        assert_eq!(*status, 200, "{body}");
        body["data"].to_string()
    });
    let all: BTreeSet<_> = told.collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(fixture.upstream.calls_to("/message/send").len(), 1);
    // And each core numbers on from there.
    let others = (0..CONNECTIONS).map(|index| {
        let (fixture, alice) = (&fixture, &alice);
        async move { fixture.send(index, alice, &format!("m-{index}")).await }
    });
    let answers = join_all(others).await;
    let told = answers.iter().map(|(status, body)| {
        assert_eq!(*status, 200, "{body}");
        body["data"]["messageSeq"].as_u64()
    });
    let seqs: BTreeSet<_> = told.collect();
    assert_eq!(seqs.len(), CONNECTIONS);
    assert_eq!(seqs.last(), Some(&Some(CONNECTIONS as u64 + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_one_limit_over_all_cores() {
    const BURST: usize = 30;
    let burst = BURST.to_string();
    let fixture = Fixture::start(&[
        ("GATEWAY__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("GATEWAY__LIMITS__BURST", &burst),
    ])
    .await;
    let alice = token("alice");
    let began = Instant::now();
    let body = json!({"channelId": "bob", "channelType": 1, "payload": "eA=="});
    let calls =
        (0..5 * CONNECTIONS).map(|index| fixture.post(index, &alice, "/message/send", &body));
    let answers = join_all(calls).await;
    let regained = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let passed = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(
        (BURST..=BURST + regained).contains(&passed),
        "{passed} {regained}"
    );
    for (status, body) in answers {
        assert!(matches!(status, 200 | 429), "{status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_over_one_worker_applies_to_all() {
    // More calls than a user makes by himself.
    let fixture = Fixture::start(&[("GATEWAY__LIMITS__BURST", "1000")]).await;
    let (alice, bob) = (token("alice"), token("bob"));
    fixture.create(&alice).await;
    for round in 0..5 {
        let members = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob"]});
        let change = async |path: &str| {
            let (status, body) = fixture.post(round, &alice, path, &members).await;
            assert_eq!(status, 200, "{body}");
        };
        change("/channel/subscriber/add").await;
        // Known as a member on every core.
        for index in 0..CONNECTIONS {
            let (status, body) = fixture.send(index, &bob, &format!("{round}-{index}")).await;
            assert_eq!(status, 200, "{body}");
        }
        change("/channel/subscriber/remove").await;
        let denied = (0..CONNECTIONS).map(|index| fixture.send(index, &bob, "too late"));
        for (status, body) in join_all(denied).await {
            assert_eq!(status, 403, "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_all_cores_are_counted_until_they_end() {
    let fixture = Fixture::start(&[]).await;
    let tasks = async || {
        let (_, text) = answer(fixture.gateway.ops("/metrics")).await;
        let mut lines = text.as_str().unwrap().lines();
        let count = lines.find_map(|line| line.strip_prefix("gateway_tasks "));
        count.unwrap().parse::<usize>().unwrap()
    };
    let until = async |is_so: &dyn Fn(usize) -> bool| {
        let deadline = Instant::now() + TIMEOUT_BOUND;
        loop {
            let now = tasks().await;
            if is_so(now) {
                return;
            }
            assert!(Instant::now() < deadline, "{now}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Each open connection is one.
    until(&|now| now >= CONNECTIONS).await;
    let before = tasks().await;
    let address = fixture.gateway.api.strip_prefix("http://").unwrap();
    let more: Vec<_> = (0..10 * CONNECTIONS)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    until(&|now| now >= before + more.len()).await;
    drop(more);
    until(&|now| now <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_the_process_takes() {
    let gateway = Gateway::embedded(&[]);
    let text = gateway.ops("/metrics").send();
    let text = text.await.unwrap().text().await.unwrap();
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}"))
            .parse::<f64>()
            .unwrap()
    };
    // The operations port's own connection, and what runs by the clock.
    assert!(value("gateway_tasks") >= 2.0);
    assert!(value("gateway_process_cpu_seconds_total") > 0.0);
    assert!(value("gateway_process_start_time_seconds") > 1.7e9);
    if cfg!(target_os = "linux") {
        // Three standard streams and two listeners.
        assert!(value("gateway_process_open_fds") >= 5.0);
        let told = value("gateway_process_resident_memory_bytes");
        assert!(told > 1024.0 * 1024.0, "{told}");
    }
}
