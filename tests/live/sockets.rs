//! The gateway's sockets in front of real servers: messages both ways, the attacks that succeed on WuKongIM's own sockets, and ends.

use wkproto::FrameKind;

use crate::support::attacks::{Cast, all};
use crate::support::real::{Server, TestApp, each_server, people, unique};
use crate::support::socket::{Client, Hello};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn every_version_and_json_rpc_talk_to_each_other() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        for version in 2..=6 {
            let [alice, bob] = people(["alice", "bob"]);
            let group = app.group(&alice, &[&bob]).await;
            let mut sender = Client::open(&app).await;
            let hello = Hello {
                version,
                ..Hello::of(&app, &alice).await
            };
            sender.connect(&hello).await;
            let mut reader = Client::connected(&app, &bob).await;
            let mut texts = Client::json_rpc(&app, &bob).await;
            for (channel_type, id) in [(1, &bob), (2, &group)] {
                let ack = sender.send(channel_type, id, "hello").await;
                assert_eq!(
                    (ack.reason, ack.seq),
                    (1, 1),
                    "version {version}, type {channel_type}"
                );
                assert_eq!(reader.text_from(&alice).await, "hello");
                assert_eq!(texts.json().await["params"]["fromUid"], *alice);
            }
            app.user(&alice).send_to_person(&bob, "by rest").await.ok();
            assert_eq!(reader.text_from(&alice).await, "by rest");
        }
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn what_succeeds_on_wukongims_own_sockets_does_not_on_the_gateways() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob, mallory] = people(["alice", "bob", "mallory"]);
        let group = unique("group");
        let cast = Cast {
            alice,
            bob,
            mallory,
            group,
        };
        let cast = cast.enter(&app).await;
        all(&app, &cast, server.is_v2()).await;
        server.is_alive().await;
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_revocation_ends_sockets_on_every_replica_for_good() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let replica = TestApp::start_on(&server, app.store.clone(), |_| ()).await;
        let [alice] = people(["alice"]);
        let hello = Hello::of(&app, &alice).await;
        let [mut here, mut there] = [Client::open(&app).await, Client::open(&replica).await];
        here.connect(&hello).await;
        there.connect(&hello).await;
        app.user(&alice).post_nothing("/token/revoke").await.ok();
        assert_eq!(here.disconnected().await, (12, Some(1008)));
        assert_eq!(there.disconnected().await, (12, Some(1008)));
        for app in [&app, &replica] {
            assert_eq!(
                Client::open(app).await.refused(&hello).await,
                (2, Some(1008))
            );
        }
        Client::connected(&replica, &alice).await;
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_ban_is_told_at_the_next_ping_on_v2() {
    for server in each_server().into_iter().filter(Server::is_v2) {
        let app = TestApp::start_forgetful(&server).await;
        let [alice] = people(["alice"]);
        let mut client = Client::connected(&app, &alice).await;
        server.ban(1, &alice).await;
        // v2 shows a ban after a moment.
        let frame = loop {
            client.write(&wkproto::PING).await;
            match client.next().await {
                crate::support::socket::Next::Frame(frame) if frame.kind == FrameKind::Pong => {}
                crate::support::socket::Next::Frame(frame) => break frame,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((frame.kind, frame.body[0]), (FrameKind::Disconnect, 19));
        assert_eq!(client.closed().await, Some(1008));
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn two_hundred_connects_in_a_row_get_in() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let hello = Hello::of(&app, &alice).await;
        for _ in 0..200 {
            Client::open(&app).await.connect(&hello).await;
        }
    }
}
