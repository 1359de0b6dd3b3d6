//! What would kill a node never reaches one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::actors::payload;
use crate::support::answer::failure;
use crate::support::real::{TestApp, each_server, people};
use wukongim_gateway::domain::caps;

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn input_that_crashes_a_node_is_refused() {
    for server in each_server() {
        for at_the_caps in [false, true] {
            let app = TestApp::start_with(&server, |settings| {
                if at_the_caps {
                    settings.limits.id_bytes = caps::ID_BYTES;
                    settings.limits.client_msg_no_bytes = caps::CLIENT_MSG_NO_BYTES;
                    settings.limits.payload = caps::PAYLOAD_BYTES;
                    settings.server.body_limit = 64 << 20;
                }
            })
            .await;
            let [alice, bob] = people(["alice", "bob"]);
            let long = "x".repeat(40 * 1024);
            let mebibyte = payload(&"x".repeat(1 << 20));
            let message = json!({"channelId": bob, "channelType": 1, "payload": payload("hi")});
            let user = app.user(&alice);
            for (field, value) in [
                ("channelId", &long),
                ("clientMsgNo", &long),
                ("payload", &mebibyte),
            ] {
                let mut bad = message.clone();
                bad[field] = json!(value);
                let answer = user.send(&bad).await;
                if answer.status == 413 {
                    assert!(field == "payload" && !at_the_caps);
                    continue;
                }
                assert_eq!(answer.fails(400, "invalid_request").bad_fields(), [field]);
            }
            user.create_group(&long).await.fails(400, "invalid_request");
            user.add(&bob, &[&long]).await.fails(400, "invalid_request");
            failure(400, "invalid_request").is(user.sync(2, &long[..4000], "").await);
            // Its token is below the 16 KiB that are read.
            let impostor = app.user(&long[..10_000]);
            impostor.send(&message).await.fails(401, "token_invalid");
            server.is_alive().await;
            user.send(&message).await.ok();

            // The largest that is let through is taken, and not more, beside the longest number.
            if at_the_caps && !server.is_cluster() {
                let config = user.get("/config").await.ok();
                let bytes = config["limits"]["payloadBytes"].as_u64().unwrap();
                let number = "n".repeat(255);
                let body = |bytes: usize| {
                    let large = STANDARD.encode("x".repeat(bytes));
                    json!({"channelId": bob, "channelType": 1, "payload": large, "clientMsgNo": number})
                };
                let bytes = usize::try_from(bytes).unwrap();
                let refused = user.send(&body(bytes + 1)).await;
                refused.names(&["payload"]);
                let body = body(bytes);
                let large = &body["payload"];
                user.send(&body).await.ok();
                let read = user.sync(1, &bob, "&limit=1").await.ok();
                assert_eq!(read[0]["payload"], *large);
                server.is_alive().await;
            }
        }
    }
}
