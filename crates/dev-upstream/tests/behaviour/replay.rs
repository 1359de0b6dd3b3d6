//! Every recorded call of the real servers, replayed in order: same status, content type, keys, types and values.
//!
//! What a second run of the same server would not repeat is mapped (message ids, generated numbers), bounded (times) or
//! only typed ([`VOLATILE`]). Steps the gateway never makes and the stand-in does not speak are left out. A line without a response is a
//! call that the recorder made and kept no answer of: it is made and not compared.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dev_upstream::{Dialect, Options, V2Release};
use serde_json::Value;

use crate::support::{Answer, Upstream};

const MANAGER_TOKEN: &str = "a manager token";
const BIG: &str = "<base64 of 65536 bytes 'x'>";

/// Keys whose values belong to that process and moment: counters, sizes, times and addresses. Their types must agree.
const VOLATILE: &[&str] = &[
    "uptime",
    "goroutine",
    "mem",
    "cpu",
    "in_msgs",
    "out_msgs",
    "in_bytes",
    "out_bytes",
    "user_handler_count",
    "tcp_addr",
    "ws_addr",
    "manager_addr",
    "api_url",
    "clusterAddr",
    "createdAt",
    "timestamp_format",
    "created_at_format",
    "updated_at_format",
    "now",
    "generated_at",
    "window_seconds",
    "state_revision",
    "cpu_percent",
    "memory_rss_bytes",
    "memory_vms_bytes",
    "goroutines",
    "created_at",
    "updated_at",
    "conf_version",
    "replicas",
    "replica_id",
    "leader_id",
    "learder_id",
    "threads",
    "sample_count",
];

#[tokio::test]
async fn v2_answers_as_recorded() {
    replay("v2.2.5.jsonl", v2(None), &[]).await;
}

#[tokio::test]
async fn v2_with_a_manager_token_answers_as_recorded() {
    replay("v2.2.5-manager-token.jsonl", v2(Some(MANAGER_TOKEN)), &[]).await;
}

#[tokio::test]
async fn v2_answers_about_conversations_as_recorded() {
    replay("v2.2.5-conversations.jsonl", v2(None), &[]).await;
}

#[tokio::test]
async fn v3_answers_about_conversations_as_recorded() {
    let options = Options::new(Dialect::V3);
    replay("v3-beta-conversations.jsonl", options, &[]).await;
}

#[tokio::test]
async fn v2_reports_which_node_has_a_message_as_recorded() {
    replay("v2.2.5-copies.jsonl", v2(None), &[]).await;
}

#[tokio::test]
async fn each_v2_assigns_and_reports_log_owners_as_recorded() {
    // Messages of v2.2.0 have fields of streams, which are no part of the gateway's contract.
    let of_streams: &[&str] = &["read one own"];
    for (version, release, skipped) in [
        ("v2.0.10", V2Release::V2_0_10, &[][..]),
        ("v2.2.0", V2Release::V2_2_0, of_streams),
        ("v2.2.5", V2Release::V2_2_5, &[]),
    ] {
        let options = Options {
            release,
            ..v2(None)
        };
        replay(&format!("{version}-log-owner.jsonl"), options, skipped).await;
    }
}

#[tokio::test]
async fn v3_answers_as_recorded() {
    replay("v3-beta.jsonl", Options::new(Dialect::V3), &[]).await;
}

fn v2(manager_token: Option<&str>) -> Options {
    Options {
        manager_token: manager_token.map(str::to_owned),
        // The recorder waited for its messages; the replay need not.
        visible_after: Duration::ZERO,
        ..Options::new(Dialect::V2)
    }
}

async fn replay(file: &str, options: Options, skipped: &[&str]) {
    let upstream = Upstream::start(options).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recordings")
        .join(file);
    let recording = std::fs::read_to_string(&path).expect("recording");
    let mut comparison = Comparison::default();
    let (mut replayed, mut left_out) = (0, Vec::new());
    for line in recording.lines() {
        let call: Value = serde_json::from_str(line).expect("a recorded call");
        let step = call["step"].as_str().expect("step");
        if skipped.contains(&step) {
            left_out.push(step.to_owned());
            continue;
        }
        if upstream.server.dialect() == Dialect::V2 && step == "I after kill -9 and restart" {
            upstream.server.state().lose_unsaved_conversations();
        }
        let answer = perform(&upstream, step, &call["request"], &comparison.ids).await;
        match call.get("response") {
            Some(response) => comparison.step(step, response, &answer),
            None => drop(answer.ok()),
        }
        replayed += 1;
    }
    assert_eq!(left_out, skipped, "a skipped step that does not exist");
    assert!(replayed > 0, "no steps in {file}");
    assert!(
        comparison.divergences.is_empty(),
        "{file}:\n{}",
        comparison.divergences.join("\n")
    );
}

async fn perform(upstream: &Upstream, step: &str, request: &Value, ids: &Mapping) -> Answer {
    let text = |key: &str| request[key].as_str().expect("text");
    let path = ids
        .there
        .iter()
        .fold(text("path").to_owned(), |path, (recorded, actual)| {
            path.replace(recorded, actual)
        });
    let url = format!("{}{path}", upstream.server.url());
    let headers: &[(&str, &str)] = match step {
        "no manager token" => &[],
        "wrong manager token" => &[("token", "another token")],
        _ => &[("token", MANAGER_TOKEN)],
    };
    let body = match &request["body"] {
        Value::Null => None,
        // A body that was no JSON is recorded as the text it was.
        Value::String(text) => Some(text.clone()),
        body => Some(body.to_string().replace(BIG, &big())),
    };
    let answer = upstream.call(text("method"), &url, headers, body).await;
    answer.unwrap_or_else(|error| panic!("{step}: {error:?}"))
}

fn big() -> String {
    STANDARD.encode(vec![b'x'; 65_536])
}

/// Collects what differs, and what stands for what.
#[derive(Default)]
struct Comparison {
    step: String,
    ids: Mapping,
    numbers: Mapping,
    divergences: Vec<String>,
}

/// A one-to-one correspondence, made by the first sight of either side.
#[derive(Default)]
struct Mapping {
    there: HashMap<String, String>,
    back: HashMap<String, String>,
}

impl Mapping {
    fn same(&mut self, recorded: &str, actual: &str) -> bool {
        let there = self.there.entry(recorded.to_owned());
        let back = self.back.entry(actual.to_owned());
        there.or_insert_with(|| actual.to_owned()) == actual
            && back.or_insert_with(|| recorded.to_owned()) == recorded
    }
}

impl Comparison {
    fn step(&mut self, step: &str, recorded: &Value, actual: &Answer) {
        step.clone_into(&mut self.step);
        if recorded["status"] != actual.status {
            self.differ("status", &recorded["status"], &actual.status.into());
        }
        let content_type = actual.content_type.as_str();
        if recorded["contentType"] != content_type {
            self.differ(
                "content type",
                &recorded["contentType"],
                &content_type.into(),
            );
        }
        let body = recorded["body"].as_str().expect("body");
        if step == "probe /metrics" && actual.status == 200 {
            // The recording is cut; what the gateway looks for must be there, in Prometheus' form.
            let found = actual
                .body
                .lines()
                .find_map(|line| line.strip_prefix("process_start_time_seconds "))
                .and_then(|value| value.parse::<f64>().ok());
            if !actual.body.starts_with("# HELP ") || found.is_none() {
                self.differ("metrics", &body.into(), &actual.body.as_str().into());
            }
            return;
        }
        match serde_json::from_str::<Value>(body) {
            Err(_) if body == actual.body => {}
            Err(_) => self.differ("body", &body.into(), &actual.body.as_str().into()),
            Ok(mut recorded) => {
                if let (true, Value::Object(config)) = (step.starts_with("owner "), &mut recorded) {
                    // There or not as v2's own cache has it.
                    config.remove("id");
                }
                let text = actual.body.replace(&big(), BIG);
                match serde_json::from_str(&text) {
                    Ok(actual) => self.value("", "", &recorded, &actual),
                    Err(_) => self.differ("body", &recorded, &text.into()),
                }
            }
        }
    }

    fn differ(&mut self, index: &str, recorded: &Value, actual: &Value) {
        let step = &self.step;
        self.divergences.push(format!(
            "{step}: {index}: recorded {recorded}, got {actual}"
        ));
    }

    fn value(&mut self, index: &str, key: &str, recorded: &Value, actual: &Value) {
        let same = match (recorded, actual) {
            (Value::Object(one), Value::Object(other)) => {
                let keys = |map: &serde_json::Map<String, Value>| {
                    map.keys()
                        .cloned()
                        .collect::<std::collections::BTreeSet<_>>()
                };
                if keys(one) == keys(other) {
                    for (key, recorded) in one {
                        self.value(&format!("{index}.{key}"), key, recorded, &other[key]);
                    }
                    return;
                }
                false
            }
            // How busy which pool is: every row must look like one of the recorded ones.
            (Value::Array(one), Value::Array(other)) if index == ".pressure.top" => {
                !other.is_empty()
                    && other
                        .iter()
                        .all(|row| one.iter().any(|r| same_shape(r, row)))
            }
            (Value::Array(one), Value::Array(other)) => {
                if one.len() == other.len() {
                    for (at, (recorded, actual)) in one.iter().zip(other).enumerate() {
                        self.value(&format!("{index}[{at}]"), key, recorded, actual);
                    }
                    return;
                }
                false
            }
            _ => self.scalar(key, recorded, actual),
        };
        if !same {
            self.differ(index, recorded, actual);
        }
    }

    fn scalar(&mut self, key: &str, recorded: &Value, actual: &Value) -> bool {
        if VOLATILE.contains(&key) {
            return same_kind(recorded, actual) && same_form(key, recorded, actual);
        }
        match (key, recorded, actual) {
            ("message_id", Value::Number(one), Value::Number(other)) if one.as_i64() != Some(0) => {
                let fresh = other.as_i64().is_some_and(|id| id > 1 << 60);
                fresh && self.ids.same(&one.to_string(), &other.to_string())
            }
            ("message_idstr" | "message_id", Value::String(one), Value::String(other)) => {
                self.ids.same(one, other)
            }
            ("id", Value::Number(one), Value::Number(other)) if one.as_i64() > Some(1 << 60) => {
                other.as_i64() > Some(1 << 60)
            }
            // The first 12 characters are the time of the activation.
            ("next_cursor", Value::String(one), Value::String(other)) => {
                one.len() == other.len() && one[12..] == other[12..]
            }
            (key, Value::Number(one), Value::Number(other)) if one.as_i64() > Some(0) => {
                let is_nanos = one.as_i64() > Some(1 << 60);
                match key {
                    "version" | "coverage" | "active_at" if is_nanos => other
                        .as_u64()
                        .is_some_and(|nanos| is_now(nanos / 1_000_000_000)),
                    "server_timestamp_ms" => other.as_u64().is_some_and(|ms| is_now(ms / 1_000)),
                    "timestamp" => other.as_u64().is_some_and(is_now),
                    _ => recorded == actual,
                }
            }
            ("client_msg_no" | "last_client_msg_no", Value::String(one), Value::String(other))
                if is_generated(one) =>
            {
                is_generated(other) && self.numbers.same(one, other)
            }
            _ => recorded == actual,
        }
    }
}

/// What v2 makes up when the sender gives no number: a UUID's 32 digits and a 0.
fn is_generated(number: &str) -> bool {
    number.len() == 33
        && number.ends_with('0')
        && number.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_now(seconds: u64) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    now.abs_diff(seconds) < 60
}

fn same_kind(one: &Value, other: &Value) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Addresses keep their scheme and their emptiness, the uptime its units.
fn same_form(key: &str, recorded: &Value, actual: &Value) -> bool {
    let (Value::String(recorded), Value::String(actual)) = (recorded, actual) else {
        return true;
    };
    let scheme = |text: &str| text.split_once("://").map(|(scheme, _)| scheme.to_owned());
    if key == "uptime" {
        return actual.ends_with('s') && actual.starts_with(|c: char| c.is_ascii_digit());
    }
    recorded.is_empty() == actual.is_empty() && scheme(recorded) == scheme(actual)
}

fn same_shape(recorded: &Value, actual: &Value) -> bool {
    match (recorded, actual) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|o| same_shape(value, o)))
        }
        _ => same_kind(recorded, actual),
    }
}
