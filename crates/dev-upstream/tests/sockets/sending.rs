//! What a SEND is answered with.

use dev_upstream::{Dialect, GROUP, PERSON};
use serde_json::json;
use wkproto::{Reason, Send, flags};

use crate::{
    client::{Client, NOTHING, Transport, Who},
    server::{DIALECTS, create, post, start},
};

#[tokio::test]
async fn refusals_have_the_reasons_of_the_generation() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let state = server.state();
        for group in ["others", "banned", "gone", "denying", "allowing"] {
            let members: &[&str] = if group == "others" {
                &["bob"]
            } else {
                &["alice", "bob"]
            };
            create(&server, group, members).await;
        }
        state.ban_group("banned", true);
        state.disband("gone");
        state.deny(GROUP, "denying", "alice");
        state.allow("allowing", "bob");
        state.deny(PERSON, "carol", "alice");
        let is_v2 = dialect == Dialect::V2;
        let unknown = if is_v2 {
            Reason::SUBSCRIBER_NOT_EXIST
        } else {
            Reason::CHANNEL_NOT_EXIST
        };
        let mut alice = Client::of(&server, "alice").await;
        for (to, channel_type, reason) in [
            ("others", GROUP, Reason::SUBSCRIBER_NOT_EXIST),
            ("unknown", GROUP, unknown),
            ("banned", GROUP, Reason::BAN),
            ("gone", GROUP, Reason::DISBAND),
            ("denying", GROUP, Reason::IN_BLACKLIST),
            ("allowing", GROUP, Reason::NOT_IN_WHITELIST),
            ("carol", PERSON, Reason::IN_BLACKLIST),
            ("alice", PERSON, Reason::SUCCESS),
            ("anything", 6, Reason::SUCCESS),
            (
                "anything",
                4,
                if is_v2 {
                    Reason::SUBSCRIBER_NOT_EXIST
                } else {
                    Reason::SUCCESS
                },
            ),
            (
                "bob@carol",
                PERSON,
                if is_v2 {
                    Reason::SUCCESS
                } else {
                    Reason::SYSTEM_ERROR
                },
            ),
        ] {
            let ack = alice.send(to, channel_type, "hi").await;
            assert_eq!(ack.reason, reason, "{dialect:?} {to}");
            let refused = reason != Reason::SUCCESS;
            assert_eq!(ack.seq == 0, refused, "{to}");
            // Seen: v2 has an id for what it refuses.
            assert_eq!(ack.id == 0, refused && !is_v2, "{to}");
        }
        assert!(state.messages(GROUP, "others").is_empty());
        let flags = json!({ "channel_id": "alice", "channel_type": 1, "send_ban": 1 });
        post(&server, "/channel/info", flags).await;
        let ack = alice.send("bob", PERSON, "hi").await;
        assert_eq!(ack.reason, Reason::SEND_BAN, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_sendack_has_the_shape_of_its_generation_in_every_version() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        for version in 2..=6 {
            let uid = format!("alice{version}");
            let who = Who {
                version,
                ..Who::new(&uid)
            };
            let mut alice = Client::connect(&server, Transport::WebSocket, who).await;
            let is_v2 = dialect == Dialect::V2;
            assert_eq!(alice.version, if is_v2 { version.min(5) } else { version });
            let ack = alice.send("bob", PERSON, "hi").await;
            assert_eq!((ack.reason, ack.seq), (Reason::SUCCESS, 1));
            assert_eq!(ack.flags, if is_v2 { flags::RED_DOT } else { 0 });
            let number = (!is_v2).then(|| "no-1".to_owned());
            assert_eq!(ack.client_msg_no, number);
        }
    }
}

#[tokio::test]
async fn a_wrong_msg_key_or_seal_is_reason_9() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let bad = Send {
            channel_id: b"bob",
            channel_type: PERSON,
            msg_key: "00000000000000000000000000000000",
            payload: b"aGk=",
            ..NOTHING
        };
        alice.write_send(bad, 0).await;
        assert_eq!(alice.ack().await.reason, Reason::PAYLOAD_DECODE_ERROR);
        assert!(server.state().messages_between("alice", "bob").is_empty());
    }
}

#[tokio::test]
async fn the_same_number_again_is_stored_twice_by_v2_and_once_by_v3() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let rest = Send {
            client_msg_no: "once",
            ..NOTHING
        };
        let mut acks = Vec::new();
        for _ in 0..2 {
            alice.say("bob", PERSON, "hi", rest, 0).await;
            acks.push(alice.ack().await);
        }
        let is_same = acks[0].id == acks[1].id;
        assert_eq!(is_same, dialect == Dialect::V3);
        let stored = server.state().messages_between("alice", "bob").len();
        assert_eq!(stored, if is_same { 1 } else { 2 });
    }
}

#[tokio::test]
async fn the_system_device_passes_membership_and_v2_does_not_answer_it() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        create(&server, "others", &["bob"]).await;
        let mut bob = Client::of(&server, "bob").await;
        let who = Who {
            device_id: "____device",
            ..Who::new("mallory")
        };
        let mut mallory = Client::connect(&server, Transport::Tcp, who).await;
        mallory.say("others", GROUP, "hi", NOTHING, 0).await;
        assert_eq!(bob.receive().await.from, "mallory");
        if dialect == Dialect::V3 {
            assert_eq!(mallory.ack().await.reason, Reason::SUCCESS);
        }
        mallory.is_quiet().await;
    }
}

#[tokio::test]
async fn the_system_sends_to_any_group_and_v2_leaves_it_out_as_the_sender() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        create(&server, "others", &["bob"]).await;
        let mut bob = Client::of(&server, "bob").await;
        let mut system = Client::of(&server, "____system").await;
        let ack = system.send("others", GROUP, "hi").await;
        assert_eq!(ack.reason, Reason::SUCCESS);
        let from = if dialect == Dialect::V2 {
            ""
        } else {
            "____system"
        };
        assert_eq!(bob.receive().await.from, from);
    }
}
