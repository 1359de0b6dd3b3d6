//! The documents' examples: each `curl` line and each JSON-RPC message is sent to a gateway with `--embedded`, and answers what stands below
//! it.

use std::process::Command;

use serde_json::{Map, Value};

use crate::support::process::{Gateway, say, token};
use crate::support::socket::{Client, Next};

/// Members with another value each time, of the same type.
const VARYING: [&str; 12] = [
    "clientMsgNo",
    "connections",
    "createdAt",
    "cursor",
    "messageId",
    "nodeId",
    "requestId",
    "timeDiff",
    "timestamp",
    "token",
    "uptime",
    "wsUrl",
];

/// The code blocks of a Markdown file: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("\n```").skip(1).step_by(2);
    let blocks = parts.map(|part| part.split_once('\n').unwrap());
    blocks
        .map(|(language, text)| (language.to_owned(), text.to_owned()))
        .collect()
}

/// Panics unless `got` is `told`, but for what varies.
#[track_caller]
fn is_as_told(told: &Value, got: &Value, place: &str) {
    match (told, got) {
        (Value::Object(told), Value::Object(got)) => {
            let keys = |members: &Map<String, Value>| members.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(told), keys(got), "{place}");
            for (key, told) in told {
                let is_generated = key == "channelId" && told.as_str().unwrap().starts_with("g_");
                if VARYING.contains(&key.as_str()) || is_generated {
                    let kind = std::mem::discriminant::<Value>;
                    assert_eq!(kind(told), kind(&got[key]), "{place}.{key}");
                } else {
                    is_as_told(told, &got[key], &format!("{place}.{key}"));
                }
            }
        }
        (Value::Array(told), Value::Array(got)) => {
            assert_eq!(told.len(), got.len(), "{place}: {got:?}");
            for (told, got) in told.iter().zip(got) {
                is_as_told(told, got, place);
            }
        }
        _ => assert_eq!(told, got, "{place}"),
    }
}

/// Sends what follows a `→`, with alice's connect token, and expects what follows a `←`.
async fn exchange(
    gateway: &Gateway,
    client: &mut Option<Client>,
    lines: &str,
    connect_token: &str,
) {
    if client.is_none() {
        *client = Some(Client::at(&gateway.api, &[]).await.unwrap());
    }
    let client = client.as_mut().unwrap();
    for line in lines.lines() {
        let (direction, text) = line.split_once(' ').unwrap();
        let mut message: Value = serde_json::from_str(text).unwrap();
        if direction == "→" {
            if let Some(token) = message["params"].get_mut("token") {
                *token = connect_token.into();
            }
            client.text(&message.to_string()).await;
        } else {
            match client.next().await {
                Next::Text(got) => is_as_told(&message, &got, line),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_answers_what_stands_below_it() {
    let found = Command::new("curl").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        say("\n!!! SKIPPED: NO EXAMPLE OF THE DOCUMENTS RUN: there is no curl !!!");
        return;
    }
    for (page, least) in [
        ("README.md", 20),
        ("docs/zh/quickstart.md", 4),
        ("docs/zh/api.md", 30),
    ] {
        let gateway = Gateway::embedded(&[]);
        let (alice, bob) = (token("alice"), token("bob"));
        let shell = |line: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", line]).env("no_proxy", "*");
            bash.env("API", format!("{}/api/v1/im", gateway.api));
            bash.env("TOKEN", &alice).env("BOB", &bob);
            let output = bash.output().unwrap();
            assert!(output.status.success(), "{page}: {line}: {output:?}");
            String::from_utf8(output.stdout).unwrap().replace('\r', "")
        };
        let connect_token =
            shell(r#"curl -sS -X POST "$API/token" -H "Authorization: Bearer $TOKEN""#);
        let connect_token: Value = serde_json::from_str(&connect_token).unwrap();
        let connect_token = connect_token["data"]["token"].as_str().unwrap();
        let (mut examples, mut socket) = (0, None);
        let blocks = blocks(page);
        let mut blocks = blocks.iter().peekable();
        while let Some((language, text)) = blocks.next() {
            let place = format!("{page}: {text}");
            if language == "jsonrpc" {
                exchange(&gateway, &mut socket, text, connect_token).await;
            } else if language == "sh" && text.starts_with("curl ") && !text.contains("http://") {
                let answer = shell(text);
                match blocks.next_if(|(language, _)| ["json", "text"].contains(&&**language)) {
                    Some((language, told)) if language == "json" => {
                        let answer = serde_json::from_str(&answer).expect(&answer);
                        is_as_told(&serde_json::from_str(told).unwrap(), &answer, &place);
                    }
                    Some((_, told)) => assert_eq!(answer.trim_end(), told.trim_end(), "{place}"),
                    None => {}
                }
            } else {
                continue;
            }
            examples += 1;
        }
        assert!(examples >= least, "{page}: {examples} examples");
    }
}
