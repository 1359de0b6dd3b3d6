//! A full disk, simulated by the process's limit on file sizes: every write beyond it fails, as if no space was left, and what it reads
//! does not. It needs neither root nor a disk.

use std::time::Instant;

use dev_upstream::{DevUpstream, Dialect, Options};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::support::process::{Gateway, TIMEOUT_BOUND, answer, token, usual};

/// Whether there is room for more than this many bytes a file.
fn limit_files(gateway: &Gateway, bytes: Option<u64>) {
    let pid = Pid::from_raw(gateway.id().try_into().unwrap());
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

async fn readiness_becomes(gateway: &Gateway, expected: &Value) {
    let started = Instant::now();
    loop {
        let told = answer(gateway.ops("/readyz")).await;
        if told == (200, expected.clone()) {
            return;
        }
        assert!(
            started.elapsed() < TIMEOUT_BOUND,
            "{told:?}, not {expected}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_changes_are_503_messages_flow_and_room_mends_it() {
    for dialect in [Dialect::V2, Dialect::V3] {
        let upstream = DevUpstream::start(Options::new(dialect)).await.unwrap();
        let url = upstream.url();
        let mut env = usual();
        env.push(("WUKONGIM_API_URL", &url));
        // It lives on when it is told that a file may get no larger.
        let gateway = Gateway::ignoring("XFSZ", &env);
        let alice = token("alice");
        let post =
            async |path: &str, body: &Value| answer(gateway.post_json(&alice, path, body)).await;
        let group = |id: &str| json!({"channelId": id, "channelType": 2});
        let with = |name: &str, value: Value| {
            let mut body = group("g");
            body[name] = value;
            body
        };
        let (subscribers, uids) = (
            with("subscribers", json!(["bob"])),
            with("uids", json!(["bob"])),
        );
        let owner = with("uid", json!("bob"));
        for (path, body) in [
            ("/channel/create", &group("g")),
            ("/channel/subscriber/add", &subscribers),
        ] {
            let (status, told) = post(path, body).await;
            assert_eq!(status, 200, "{told}");
        }
        readiness_becomes(&gateway, &json!({"ready": true})).await;

        limit_files(&gateway, Some(0));
        for (path, body) in [
            ("/channel/create", &group("new")),
            ("/channel/delete", &group("g")),
            ("/channel/manager/add", &uids),
            ("/channel/owner", &owner),
            ("/token/revoke", &json!({})),
        ] {
            let (status, told) = post(path, body).await;
            assert_eq!(status, 503, "{path}: {told}");
            assert_eq!(told["code"], "store_unavailable", "{path}: {told}");
        }
        let message = with("payload", json!("eA=="));
        let (status, sent) = post("/message/send", &message).await;
        assert_eq!(status, 200, "{sent}");
        let (status, sent) = answer(gateway.send(&alice, "on a full disk")).await;
        assert_eq!(status, 200, "{sent}");
        let history = gateway.get("/message/sync?channelId=g&channelType=2");
        let (status, read) = answer(history.bearer_auth(&alice)).await;
        assert_eq!(status, 200, "{read}");
        assert_eq!(read["data"].as_array().unwrap().len(), 1, "{read}");
        readiness_becomes(&gateway, &json!({"ready": true, "degraded": ["store"]})).await;

        limit_files(&gateway, None);
        for (path, body) in [
            ("/channel/create", &group("new")),
            ("/channel/manager/add", &uids),
            ("/token/revoke", &json!({})),
            ("/channel/delete", &group("g")),
        ] {
            let (status, told) = post(path, body).await;
            assert_eq!(status, 200, "{path}: {told}");
        }
        readiness_becomes(&gateway, &json!({"ready": true})).await;
    }
}
