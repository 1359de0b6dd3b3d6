//! Who gets what, over which connection, as which channel.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dev_upstream::{Dialect, GROUP, PERSON, fnv1a64};
use serde_json::json;
use wkproto::{Reason, Send, flags, setting};

use crate::{
    client::{Client, NOTHING, TRANSPORTS, Who},
    server::{DIALECTS, api_send, create, post, start},
};

#[tokio::test]
async fn a_message_reaches_the_peer_and_the_senders_other_connections() {
    for dialect in DIALECTS {
        for transport in TRANSPORTS {
            let server = start(dialect).await;
            let other = Who {
                device_id: "other",
                version: 2,
                ..Who::new("alice")
            };
            let mut alice = Client::connect(&server, transport, Who::new("alice")).await;
            let mut other = Client::connect(&server, transport, other).await;
            let mut bob = Client::connect(&server, transport, Who::new("bob")).await;
            let mut carol = Client::of(&server, "carol").await;

            let ack = alice.send("bob", PERSON, "hi").await;
            assert_eq!((ack.reason, ack.seq), (Reason::SUCCESS, 1));
            let to_bob = bob.receive().await;
            assert_eq!((&*to_bob.from, &*to_bob.channel), ("alice", "alice"));
            assert_eq!((&*to_bob.text, to_bob.seq, to_bob.id), ("hi", 1, ack.id));
            assert_eq!(to_bob.flags, flags::RED_DOT);
            let to_other = other.receive().await;
            assert_eq!((&*to_other.from, &*to_other.channel), ("alice", "bob"));
            assert_eq!(to_other.text, "hi");
            alice.is_quiet().await;
            carol.is_quiet().await;

            let stored = server.state().messages_between("alice", "bob");
            assert_eq!(stored.len(), 1);
            assert_eq!(stored[0].message_id, ack.id);
        }
    }
}

#[tokio::test]
async fn a_group_message_reaches_all_members_but_no_removed_one() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        create(&server, "g1", &["alice", "bob", "carol"]).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        let mut carol = Client::of(&server, "carol").await;
        server.state().leave("g1", "carol");
        assert_eq!(alice.send("g1", GROUP, "hi").await.reason, Reason::SUCCESS);
        let received = bob.receive().await;
        assert_eq!((&*received.from, &*received.channel), ("alice", "g1"));
        carol.is_quiet().await;
        let refused = carol.send("g1", GROUP, "still here").await;
        assert_eq!(refused.reason, Reason::SUBSCRIBER_NOT_EXIST);
    }
}

#[tokio::test]
async fn sends_of_the_api_are_delivered_in_their_order_to_the_sender_too() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        create(&server, "g1", &["alice", "bob"]).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        for text in ["one", "two", "three"] {
            api_send(&server, "alice", "g1", GROUP, text).await;
        }
        for client in [&mut alice, &mut bob] {
            for (seq, text) in [(1, "one"), (2, "two"), (3, "three")] {
                let received = client.receive().await;
                assert_eq!((received.seq, &*received.text), (seq, text));
                assert_eq!(received.from, "alice");
                // Seen: v3 drops the red dot.
                let red_dot = dialect == Dialect::V2;
                assert_eq!(received.flags, if red_dot { flags::RED_DOT } else { 0 });
            }
        }
    }
}

#[tokio::test]
async fn socket_and_api_write_to_one_log() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        api_send(&server, "alice", "bob", PERSON, "by api").await;
        let first = bob.receive().await;
        let ack = alice.receive().await;
        assert_eq!((first.seq, &*ack.channel), (1, "bob"));
        assert_eq!(alice.send("bob", PERSON, "by socket").await.seq, 2);
        assert_eq!(bob.receive().await.seq, 2);
    }
}

#[tokio::test]
async fn a_topic_is_kept_by_v2_and_dropped_by_v3() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        let rest = Send {
            setting: setting::TOPIC,
            topic: "news",
            ..NOTHING
        };
        alice.say("bob", PERSON, "hi", rest, 0).await;
        assert_eq!(alice.ack().await.reason, Reason::SUCCESS);
        let received = bob.receive().await;
        let kept = if dialect == Dialect::V2 { "news" } else { "" };
        assert_eq!((&*received.topic, &*received.text), (kept, "hi"));
    }
}

#[tokio::test]
async fn an_unstored_message_is_delivered_by_v2_only() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        alice
            .say("bob", PERSON, "hi", NOTHING, flags::NO_PERSIST)
            .await;
        let ack = alice.ack().await;
        assert_eq!((ack.reason, ack.seq), (Reason::SUCCESS, 0));
        if dialect == Dialect::V2 {
            let received = bob.receive().await;
            assert_eq!((received.seq, received.flags), (0, flags::NO_PERSIST));
        }
        bob.is_quiet().await;
        assert!(server.state().messages_between("alice", "bob").is_empty());
    }
}

#[tokio::test]
async fn a_command_to_a_list_reaches_each_user_once() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let mut bob = Client::of(&server, "bob").await;
        let mut carol = Client::of(&server, "carol").await;
        let body = json!({
            "from_uid": "alice", "subscribers": ["alice", "bob", "bob"], "payload": STANDARD.encode("a command"),
            "header": { "no_persist": 1, "sync_once": 1 },
        });
        post(&server, "/message/send", body).await;
        for client in [&mut alice, &mut bob] {
            let received = client.receive().await;
            let (channel, flags) = match dialect {
                Dialect::V2 => (
                    "systemcmdonline".to_owned(),
                    flags::NO_PERSIST | flags::SYNC_ONCE,
                ),
                Dialect::V3 => (format!("{}____cmd", fnv1a64("alice,bob")), 0),
            };
            assert_eq!((received.channel, received.channel_type), (channel, 8));
            assert_eq!(received.flags, flags);
            assert_eq!((&*received.from, received.seq), ("alice", 0));
            assert_eq!(received.text, "a command");
            client.is_quiet().await;
        }
        carol.is_quiet().await;
    }
}
