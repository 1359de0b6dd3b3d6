//! `--embedded`: no WuKongIM, no configuration, no disk; and the lines and addresses it prints work.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::answer::shows;
use crate::support::process::{Gateway, TIMEOUT_BOUND, answer, becomes, client, say, token, usual};

/// Free ports, and no secret.
const PORTS: [(&str, &str); 2] = [
    ("GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
    ("GATEWAY__SERVER__OPS_LISTEN", "127.0.0.1:0"),
];

/// The words of a shell line; only single quotes are known.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.trim().chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    assert!(!quoted, "{line}");
    words.push(word);
    words
}

/// Does what a printed `curl` line says.
async fn paste(line: &str) -> (u16, Value) {
    let mut words = words(line).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"), "{line}");
    let (mut url, mut headers, mut body) = (None, Vec::new(), None);
    while let Some(word) = words.next() {
        match &*word {
            "-sS" => {}
            "-H" => headers.push(words.next().unwrap()),
            "-d" => body = words.next(),
            _ => assert!(url.replace(word).is_none(), "{line}"),
        }
    }
    let url = url.unwrap();
    let mut request = match body {
        None => client().get(url),
        Some(body) => client().post(url).body(body),
    };
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    answer(request).await
}

/// The banner's two lines with this in them.
fn printed(gateway: &Gateway, part: &str) -> Vec<String> {
    // Standard output is read by another thread than the log, which already says "serving".
    let deadline = Instant::now() + TIMEOUT_BOUND;
    loop {
        let lines: Vec<_> = gateway
            .stdout()
            .lines()
            .map(str::trim)
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect();
        if lines.len() >= 2 {
            return lines;
        }
        assert!(Instant::now() < deadline, "{}", gateway.stdout());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[tokio::test]
async fn the_printed_lines_send_a_message_and_read_it() {
    for args in [
        &["--embedded"][..],
        &["--embedded=v2"],
        &["--embedded=v3"],
        &["serve", "--embedded=v3"],
    ] {
        let gateway = Gateway::start(args, &PORTS);
        let lines = printed(&gateway, "curl -sS");
        let [send, read] = &lines[..] else {
            panic!("{lines:?}")
        };
        shows(&gateway.stdout(), "development");
        let (status, sent) = paste(send).await;
        assert_eq!(status, 200, "{sent}");
        assert_eq!(sent["data"]["messageSeq"], 1, "{sent}");
        let (status, read) = paste(read).await;
        assert_eq!(status, 200, "{read}");
        let messages = read["data"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "{read}");
        assert_eq!(messages[0]["messageId"], sent["data"]["messageId"]);
        let hello = "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==";
        assert_eq!(messages[0]["payload"], hello);
        becomes(200, || gateway.ops("/readyz")).await;
        // And without quotes of any shell in the token.
        let token = words(send)[4]
            .strip_prefix("Authorization: Bearer ")
            .unwrap()
            .to_owned();
        assert!(gateway.stdout().contains(&format!("  {token}\n")));
    }
}

#[tokio::test]
async fn the_printed_chats_are_of_alice_and_of_bob() {
    let gateway = Gateway::start(&["--embedded"], &usual());
    let chats = printed(&gateway, "/chat#");
    for (chat, uid) in chats.iter().zip(["alice", "bob"]) {
        let (page, token) = chat.split_once('#').unwrap();
        assert_eq!(page, format!("{}/api/v1/im/chat", gateway.api));
        let (status, page) = answer(client().get(page)).await;
        assert_eq!(status, 200);
        assert!(page.as_str().unwrap().starts_with("<!doctype html>"));
        let (_, config) = answer(gateway.get("/config").bearer_auth(token)).await;
        assert_eq!(config["data"]["uid"], uid);
        let address = gateway.api.replace("http://", "ws://");
        assert_eq!(config["data"]["wsUrl"], format!("{address}/api/v1/im/ws"));
    }
}

#[tokio::test]
async fn there_is_no_chat_without_embedded_or_without_sockets() {
    let mut real = usual();
    real.push(("GATEWAY__WUKONGIM__API_URLS", "http://127.0.0.1:9"));
    real.push(("GATEWAY__STORE__URL", "sqlite::memory:"));
    let mut deaf = usual();
    deaf.push(("GATEWAY__SOCKET__ENABLED", "false"));
    for (args, env) in [(&[][..], real), (&["--embedded"], deaf)] {
        let gateway = Gateway::start(args, &env);
        let (status, page) = answer(gateway.get("/chat")).await;
        assert_eq!(
            (status, &page["code"]),
            (404, &"not_found".into()),
            "{page}"
        );
        assert!(!gateway.stdout().contains("/chat"));
    }
}

#[tokio::test]
async fn counts_of_members_are_true_on_both_generations() {
    for args in [&["--embedded=v2"][..], &["--embedded=v3"]] {
        let gateway = Gateway::start(args, &usual());
        let alice = token("alice");
        let post = |path: &str, body: &Value| answer(gateway.post_json(&alice, path, body));
        let group = json!({"channelId": "g", "channelType": 2});
        assert_eq!(post("/channel/create", &group).await.0, 200);
        let bob = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob", "alice"]});
        for added in [1, 0] {
            let (status, told) = post("/channel/subscriber/add", &bob).await;
            assert_eq!(status, 200, "{told}");
            assert_eq!(told["data"]["added"], added, "{told}");
        }
    }
}

#[tokio::test]
async fn curl_itself_takes_the_printed_lines() {
    let found = std::process::Command::new("curl").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        say(
            "\n!!! SKIPPED: CURL NOT TRIED: there is none; the lines were read by another test !!!",
        );
        return;
    }
    let gateway = Gateway::start(&["--embedded"], &PORTS);
    for line in printed(&gateway, "curl -sS") {
        let line = format!("{line} --noproxy '*'");
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["success"], true, "{line}: {told}");
    }
}
