//! What kills a WuKongIM node never reaches one, however the gateway is configured; the largest that is allowed works.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wukongim_gateway::config::Limits;

use super::{CLIENT_MSG_NOS, IDS, PAYLOADS, fields, in_group, message, names, untouched};
use crate::support::prelude::*;

const KIB: usize = 1024;

/// A gateway with these limits for ids, numbers and payloads; more than the hard caps must mean the caps.
#[derive(Clone, Copy, Debug)]
struct Deployment {
    ids: usize,
    payload: usize,
    body: usize,
}

const BY_DEFAULT: Deployment = Deployment {
    ids: 128,
    payload: 64 * KIB,
    body: KIB * KIB,
};
const AT_THE_CAPS: Deployment = Deployment {
    ids: 255,
    payload: 512 * KIB,
    body: 64 * KIB * KIB,
};
/// The configuration's own check refuses this; whatever gets past it, the types do not.
const BEYOND_THE_CAPS: Deployment = Deployment {
    ids: 1_000_000,
    payload: 64 * KIB * KIB,
    ..AT_THE_CAPS
};

async fn start(dialect: Dialect, deployment: Deployment) -> TestApp {
    let app = TestApp::builder().upstream(dialect);
    app.config(move |settings| {
        settings.server.body_limit = deployment.body;
        settings.limits = Limits {
            id_bytes: deployment.ids,
            client_msg_no_bytes: deployment.ids,
            payload: deployment.payload,
            ..settings.limits.clone()
        };
    })
    .start()
    .await
}

fn every_deployment() -> impl Iterator<Item = (Dialect, Deployment)> {
    let deployments = [BY_DEFAULT, AT_THE_CAPS, BEYOND_THE_CAPS];
    [V2, V3]
        .into_iter()
        .flat_map(move |dialect| deployments.map(|deployment| (dialect, deployment)))
}

#[tokio::test]
async fn ids_and_client_msg_nos_of_tens_of_kilobytes_are_refused() {
    for (dialect, deployment) in every_deployment() {
        let app = start(dialect, deployment).await;
        let texts = [
            "x".repeat(256),
            "x".repeat(33_000),
            "x".repeat(40 * KIB),
            "群".repeat(40 * KIB / 3),
            "x".repeat(64 * KIB),
            "x".repeat(100_000),
        ];
        for text in &texts {
            for field in fields(IDS).chain(fields(CLIENT_MSG_NOS)) {
                field.refuses(&app, &json!(text)).await;
            }
            // What is longer, or would be when encoded, fits into no URI and no header.
            if text.len() <= 40 * KIB && text.is_ascii() {
                let answer = app.user("alice").sync(GROUP, text, "").await;
                names(answer, &["channelId"]);
                let actor =
                    Actor::with_claims(&app, &json!({"sub": text, "exp": 4_000_000_000_u64}));
                let (status, code) = if text.len() < KIB {
                    (401, "token_invalid")
                } else {
                    (431, "headers_too_large")
                };
                actor.post_nothing("/token").await.fails(status, code);
                let sent = actor.send_to_person("bob", "x").await;
                sent.fails(status, code);
            }
        }
        untouched(&app);
    }
}

#[tokio::test]
async fn payloads_of_a_megabyte_are_refused() {
    for (dialect, deployment) in every_deployment() {
        let app = start(dialect, deployment).await;
        let limit = deployment.payload.min(512 * KIB);
        for size in [limit + 1, 700 * KIB] {
            let text = json!(STANDARD.encode(vec![7_u8; size]));
            for field in fields(PAYLOADS) {
                field.refuses(&app, &text).await;
            }
        }
        if deployment.body > 4 * KIB * KIB {
            // By default the body's own limit comes first.
            for size in [1_024_000, KIB * KIB, 2 * KIB * KIB] {
                let text = json!(STANDARD.encode(vec![7_u8; size]));
                for field in fields(PAYLOADS) {
                    field.refuses(&app, &text).await;
                }
            }
        }
        untouched(&app);
    }
}

#[tokio::test]
async fn the_largest_allowed_inputs_work_and_crash_no_node() {
    for (dialect, deployment) in every_deployment() {
        let app = start(dialect, deployment).await;
        let ids = deployment.ids.min(255);
        let id = |letter: &str| letter.repeat(ids);
        let (owner, member, group) = (id("o"), id("m"), id("g"));
        let payload = STANDARD.encode(vec![7_u8; deployment.payload.min(512 * KIB)]);
        app.user(&owner).create_group(&group).await.ok();
        app.user(&owner).add(&group, &[&member]).await.ok();
        let sender = app.user(&member);
        for (channel_type, channel) in [(1, &owner), (2, &group)] {
            let body = json!({
                "channelId": channel, "channelType": channel_type, "payload": payload, "clientMsgNo": id("n"),
            });
            let sent = sender.post("/message/send", &body).await.ok();
            assert_eq!(sent["messageSeq"], 1, "{dialect:?}");
            let read = sender.sync(channel_type, channel, "").await.ok();
            assert_eq!(read[0]["messageId"], sent["messageId"], "{dialect:?}");
            assert_eq!(read[0]["payload"], payload, "{dialect:?}");
            assert_eq!(read[0]["clientMsgNo"], id("n"), "{dialect:?}");
        }
        sender.post_nothing("/token").await.ok();
        app.user(&owner).remove(&group, &[&member]).await.ok();
        app.user(&owner).delete_group(&group).await.ok();
        assert!(!app.upstream.killed(), "{dialect:?} {deployment:?}");
    }
}

#[tokio::test]
async fn more_uids_or_messages_than_allowed_are_refused() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let uids: Vec<String> = (0..501).map(|n| format!("u{n}")).collect();
        for path in ["/channel/subscriber/add", "/channel/subscriber/remove"] {
            let answer = app
                .admin()
                .post(path, &in_group("subscribers", json!(uids)))
                .await;
            names(answer, &["subscribers"]);
            // The limit counts what was sent.
            let same = json!(vec!["u"; 501]);
            names(
                app.admin().post(path, &in_group("subscribers", same)).await,
                &["subscribers"],
            );
        }
        let batch: Vec<Value> = (0..101)
            .map(|n| message("clientMsgNo", json!(format!("n{n}"))))
            .collect();
        let answer = alice.post("/message/sendbatch", &json!(batch)).await;
        names(answer, &["body"]);
        let nothing = alice.post("/message/sendbatch", &json!([])).await;
        names(nothing, &["body"]);
        untouched(&app);

        let sent = alice.post("/message/sendbatch", &json!(batch[..100])).await;
        let sent = sent.ok();
        assert_eq!(sent.as_array().map(Vec::len), Some(100));
        app.group("g", "alice", &[]).await;
        let body = in_group("subscribers", json!(uids[..500]));
        let added = alice.post("/channel/subscriber/add", &body).await.ok();
        assert_eq!(added["added"], 500);
    }
}
