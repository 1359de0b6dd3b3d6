//! `POST /message/send`.

use serde_json::json;

use crate::support::actors::payload;
use crate::support::{TestApp, V2, V3};

#[tokio::test]
async fn a_sent_message_is_answered_with_its_real_seq_and_can_be_read() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let alice = app.user("alice");
        let mut body = json!({"channelId": "bob", "channelType": 1, "payload": payload("hi"), "clientMsgNo": "n-1"});
        for seq in 1..=3 {
            body["clientMsgNo"] = json!(format!("n-{seq}"));
            let sent = alice.post("/message/send", &body).await.ok();
            assert_eq!(sent["messageSeq"], seq, "{sent}");
            assert!(
                sent["messageId"]
                    .as_str()
                    .unwrap()
                    .bytes()
                    .all(|byte| byte.is_ascii_digit()),
                "{sent}"
            );
            assert_eq!(sent["clientMsgNo"], body["clientMsgNo"]);
        }
        let read = app.user("bob").sync(1, "alice", "").await.ok();
        let seqs: Vec<_> = read
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["messageSeq"].as_u64())
            .collect();
        assert_eq!(seqs, [Some(1), Some(2), Some(3)]);
        assert_eq!(read[0]["channelId"], "alice");
        assert_eq!(read[0]["fromUid"], "alice");
    }
}
