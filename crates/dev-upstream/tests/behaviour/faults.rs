//! Each kind of fault does what it says, and as often as it says.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use dev_upstream::{Fault, GROUP, Rule};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Upstream, client, message};

const SEND: &str = "/message/send";

#[tokio::test]
async fn a_status_fault_answers_without_processing_and_only_as_often_as_scripted() {
    let upstream = Upstream::v2().await;
    let fault = Fault::Status(503, r#"{"error":"retry required"}"#.to_owned());
    upstream
        .server
        .faults()
        .add(Rule::new(SEND, fault).times(2).skip(1));
    let mut statuses = Vec::new();
    for text in ["passes", "fails", "fails too", "passes again"] {
        statuses.push(upstream.send("a", "g", 2, text).await.status);
    }
    assert_eq!(statuses, [200, 503, 503, 200]);
    assert_eq!(
        upstream.texts("a", "g", 2).await,
        ["passes", "passes again"]
    );
    assert_eq!(upstream.server.faults().remaining(), 0);
}

#[tokio::test]
async fn a_reset_call_is_recorded_and_not_processed() {
    let upstream = Upstream::v2().await;
    upstream.server.faults().once(SEND, Fault::Reset);
    let body = message("a", "g", 2, "lost");
    upstream.try_post(SEND, &body).await.expect_err("no answer");
    let calls = upstream.server.calls_to(SEND);
    // The client may try once more on a fresh connection when a kept one is closed under it.
    assert!(calls.iter().all(|call| call.body == body), "{calls:?}");
    assert_eq!(
        upstream.server.state().messages(GROUP, "g").len(),
        calls.len() - 1
    );
}

#[tokio::test]
async fn a_lost_answer_belongs_to_a_message_that_is_stored() {
    for fault in [Fault::ResetAfter, Fault::HalfAnswer] {
        let upstream = Upstream::v2().await;
        upstream.server.faults().always(SEND, fault.clone());
        let body = message("a", "g", 2, "stored");
        upstream
            .try_post(SEND, &body)
            .await
            .expect_err("no whole answer");
        assert!(!upstream.texts("a", "g", 2).await.is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn half_an_answer_has_its_status_and_not_its_end() {
    let upstream = Upstream::v2().await;
    upstream.server.faults().once("/health", Fault::HalfAnswer);
    let url = format!("{}/health", upstream.server.url());
    let response = client().get(url).send().await.expect("the head arrives");
    assert_eq!(response.status(), 200);
    response.text().await.expect_err("the body breaks off");
}

#[tokio::test]
async fn a_stalled_answer_has_its_status_and_neither_its_end_nor_that_of_its_connection() {
    let upstream = Upstream::v2().await;
    upstream
        .server
        .faults()
        .once("/health", Fault::StalledAnswer);
    let url = format!("{}/health", upstream.server.url());
    let mut response = client().get(url).send().await.expect("the head arrives");
    assert_eq!(response.status(), 200);
    let half = response.chunk().await.expect("half the body arrives");
    assert!(half.is_some_and(|half| br#"{"status":"ok"}"#.starts_with(&half)));
    let rest = tokio::time::timeout(Duration::from_millis(50), response.chunk());
    rest.await.expect_err("nothing more");
}

#[tokio::test]
async fn a_reset_is_one_and_raw_bytes_are_all_that_comes() {
    let upstream = Upstream::v2().await;
    let ask = async || {
        let address = upstream.server.url().replace("http://", "");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.expect("is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map(|_| answer)
    };
    for fault in [Fault::Reset, Fault::ResetAfter] {
        upstream.server.faults().once("/health", fault);
        let error = ask().await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let bytes = b"\x16\x03no http";
    let raw = Fault::Raw(bytes[..].into());
    upstream.server.faults().once("/health", raw);
    assert_eq!(ask().await.expect("an end"), bytes);
}

#[tokio::test]
async fn faults_in_turn_are_one_for_each_call() {
    let upstream = Upstream::v2().await;
    let status = |status| Fault::Status(status, "{}".to_owned());
    let faults = Fault::InTurn(vec![status(503), status(418)]);
    upstream.server.faults().always("/health", faults);
    for expected in [503, 418, 503] {
        assert_eq!(upstream.get("/health").await.status, expected);
    }
}

#[tokio::test]
async fn garbage_is_no_json() {
    let upstream = Upstream::v2().await;
    upstream.server.faults().once(SEND, Fault::Garbage);
    let answer = upstream.send("a", "g", 2, "x").await;
    assert_eq!(answer.status, 200);
    serde_json::from_str::<serde_json::Value>(&answer.body).expect_err("garbage");
    assert!(upstream.server.state().messages(GROUP, "g").is_empty());
}

#[tokio::test]
async fn a_delay_comes_before_the_answer() {
    let upstream = Upstream::v2().await;
    let delay = Duration::from_millis(40);
    upstream
        .server
        .faults()
        .once("/health", Fault::Delay(delay));
    let before = Instant::now();
    upstream.get("/health").await.ok();
    assert!(before.elapsed() >= delay);
}

#[tokio::test]
async fn a_hanging_call_never_ends_until_the_server_does() {
    let upstream = Upstream::v2().await;
    upstream.server.faults().once("/health", Fault::Hang);
    let hanging = upstream.try_get("/health");
    let stopped = async {
        while upstream.server.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        upstream.server.stop().await;
    };
    let (answer, ()) = tokio::join!(hanging, stopped);
    answer.expect_err("no answer");
}

#[tokio::test]
async fn a_dropped_message_gets_an_id_and_no_seq() {
    let upstream = Upstream::v2().await;
    upstream.server.faults().once(SEND, Fault::DropMessage);
    let sent = upstream.send("a", "g", 2, "dropped").await.ok();
    assert!(sent["data"]["message_id"].as_i64().is_some_and(|id| id > 0));
    upstream.send("a", "g", 2, "kept").await.ok();
    assert_eq!(upstream.texts("a", "g", 2).await, ["kept"]);
}

#[tokio::test]
async fn a_late_message_gets_its_seq_when_it_is_stored() {
    let upstream = Upstream::v2().await;
    let late = Fault::StoreLate(Duration::from_millis(60));
    upstream.server.faults().add(Rule::new(SEND, late).times(1));
    let sent = Instant::now();
    upstream.send("a", "g", 2, "late").await.ok();
    upstream.send("a", "g", 2, "in time").await.ok();
    let first = upstream.texts("a", "g", 2).await;
    // A machine that stood still meanwhile proves nothing about the order.
    if sent.elapsed() < Duration::from_millis(60) {
        assert_eq!(first, ["in time"]);
        tokio::time::sleep(Duration::from_millis(70)).await;
        assert_eq!(upstream.texts("a", "g", 2).await, ["in time", "late"]);
    }
}

#[tokio::test]
async fn a_held_call_waits_unprocessed_for_its_release() {
    let upstream = Upstream::v2().await;
    let faults = upstream.server.faults();
    faults.always(SEND, Fault::Hold("gate".to_owned()));
    let sends = async {
        tokio::join!(
            upstream.send("a", "g", 2, "one"),
            upstream.send("b", "g", 2, "two")
        )
    };
    let gate = async {
        faults.wait_held("gate", 2).await;
        assert!(upstream.server.state().messages(GROUP, "g").is_empty());
        faults.release("gate");
    };
    let ((one, two), ()) = tokio::join!(sends, gate);
    one.ok();
    two.ok();
    upstream.send("c", "g", 2, "passes").await.ok();
    assert_eq!(upstream.server.state().messages(GROUP, "g").len(), 3);
}

#[tokio::test]
async fn a_held_answer_tells_what_was_true_when_the_call_came() {
    let upstream = Upstream::v2().await;
    upstream.create("g", &["a"]).await;
    let faults = upstream.server.faults();
    let members = "/cluster/channels/g/2/subscribers";
    faults.once(members, Fault::HoldAnswer("look".to_owned()));
    let change = async {
        faults.wait_held("look", 1).await;
        upstream.server.state().join("g", "b");
        faults.release("look");
    };
    let (stale, ()) = tokio::join!(upstream.get(members), change);
    assert_eq!(stale.ok(), json!(["a"]));
    assert_eq!(
        upstream.get(members).await.ok().as_array().map(Vec::len),
        Some(2)
    );
}

#[tokio::test]
async fn rules_choose_by_method_path_and_text_and_work_together() {
    let upstream = Upstream::v2().await;
    let faults = upstream.server.faults();
    let teapot = || Fault::Status(418, "{}".to_owned());
    faults.add(
        Rule::exact("/channel", teapot())
            .method("POST")
            .containing("\"g\""),
    );
    let body = |group: &str| json!({ "channel_id": group, "channel_type": 2, "uids": ["u"] });
    assert_eq!(upstream.post("/channel", body("g")).await.status, 418);
    assert_eq!(upstream.post("/channel", body("h")).await.status, 200);
    assert_eq!(upstream.post("/channel/info", body("g")).await.status, 200);
    assert_eq!(upstream.get("/channel").await.status, 404);

    faults.clear();
    faults.once(SEND, Fault::DropMessage);
    faults.once(SEND, Fault::ResetAfter);
    let body = message("a", "both", 2, "x");
    // Nobody hears of it and it is not stored either; a client's own second try is another message.
    let first = upstream.try_post(SEND, &body).await;
    let stored = upstream.server.state().messages(GROUP, "both").len();
    assert_eq!(stored, upstream.server.calls_to(SEND).len() - 1);
    assert_eq!(first.is_err(), stored == 0);
}

#[tokio::test]
async fn clearing_lets_everything_go() {
    let upstream = Upstream::v2().await;
    let faults = upstream.server.faults();
    faults.always("/", Fault::Hold("all".to_owned()));
    let clear = async {
        faults.wait_held("all", 1).await;
        faults.clear();
    };
    let (answer, ()) = tokio::join!(upstream.get("/health"), clear);
    answer.ok();
    assert_eq!(faults.remaining(), 0);
}
