//! What is checked of a message on a socket: only what WuKongIM does not check there itself.

use dev_upstream::Fault;
use wukongim_gateway::authorization::Denial;
use wukongim_gateway::domain::{Channel, ChannelId, Uid};

use super::in_both_modes;
use crate::support::backend::{Backend, Reply};
use crate::support::{TestApp, V2, V3, database};

fn uid(text: &str) -> Uid {
    Uid::parse(text, 128).unwrap()
}

fn group(id: &str) -> Channel {
    Channel::Group(ChannelId::parse(id, 128).unwrap())
}

async fn may_send(app: &TestApp, sender: &str, channel: &Channel) -> Result<(), Denial> {
    let authorization = &app.app.authorization;
    authorization
        .may_send_on_socket(&uid(sender), channel)
        .await
}

#[tokio::test]
async fn membership_lists_and_bans_of_groups_are_left_to_wukongim() {
    for app in in_both_modes().await {
        app.group("g", "owner", &["member"]).await;
        app.state().deny(2, "g", "member");
        app.state().ban_group("g", true);
        app.state().deny(1, "bob", "member");
        for sender in ["owner", "member", "stranger"] {
            for channel in [group("g"), group("missing"), Channel::Person(uid("bob"))] {
                assert_eq!(may_send(&app, sender, &channel).await, Ok(()));
            }
        }
        let asked = app.calls_to("/cluster/channels/");
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[tokio::test]
async fn a_deleted_group_is_refused_on_every_replica() {
    for app in in_both_modes().await {
        app.group("g", "owner", &[]).await;
        app.user("owner").delete_group("g").await.ok();
        let gone = Err(Denial::ChannelNotFound);
        assert_eq!(may_send(&app, "owner", &group("g")).await, gone);
        let other = app.beside(|_| {}).await;
        let other = &other.app.authorization;
        let (owner, group) = (uid("owner"), group("g"));
        assert_eq!(other.may_send_on_socket(&owner, &group).await, gone);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_leaves_it_to_wukongim() {
    let builder = TestApp::builder().database(database::Kind::Sqlite).await;
    let app = builder.start().await;
    app.database().hide_tables().await;
    assert_eq!(may_send(&app, "alice", &group("g")).await, Ok(()));
}

#[tokio::test]
async fn a_banned_user_is_refused_in_all_modes_on_v2() {
    for app in in_both_modes().await {
        app.state().ban_user("alice", true);
        let is_v2 = app.dialect == V2;
        let expected = if is_v2 {
            Err(Denial::Forbidden)
        } else {
            Ok(())
        };
        for channel in [group("g"), Channel::Person(uid("bob"))] {
            assert_eq!(may_send(&app, "alice", &channel).await, expected);
        }
        assert_eq!(may_send(&app, "bob", &group("g")).await, Ok(()));
        let banned = app.app.authorization.is_user_banned(&uid("alice")).await;
        assert_eq!(banned, Ok(is_v2));
        // Alice's ban and bob's, each once.
        let asked = app.calls_to("/cluster/channels?");
        assert_eq!(asked.len(), if is_v2 { 2 } else { 0 }, "{asked:?}");
    }
}

#[tokio::test]
async fn a_ban_that_cannot_be_looked_up_is_not_the_senders_fault() {
    let app = TestApp::start(V2).await;
    app.user("alice").get("/health").await.ok();
    app.faults()
        .always("/cluster", Fault::Status(500, String::new()));
    let denied = may_send(&app, "alice", &group("g")).await.unwrap_err();
    assert!(matches!(denied, Denial::Unavailable(_)), "{denied:?}");
}

#[tokio::test]
async fn messages_to_oneself_are_refused_on_v3_only() {
    for app in in_both_modes().await {
        let refused = Err(Denial::ToOneself);
        let expected = if app.dialect == V3 { refused } else { Ok(()) };
        let oneself = Channel::Person(uid("alice"));
        assert_eq!(may_send(&app, "alice", &oneself).await, expected);
        assert_eq!(may_send(&app, "bob", &oneself).await, Ok(()));
    }
}

#[tokio::test]
async fn the_backend_is_asked_after_the_store_and_before_wukongim() {
    let backend = Backend::start().await;
    let app = TestApp::with(V2, backend.decides()).await;
    app.group("g", "owner", &[]).await;
    app.group("gone", "owner", &[]).await;
    app.user("owner").delete_group("gone").await.ok();
    app.state().ban_user("banned", true);
    backend.asked();

    let gone = may_send(&app, "owner", &group("gone")).await;
    assert_eq!(gone, Err(Denial::ChannelNotFound));
    assert_eq!(backend.count(), 0);

    let banned = may_send(&app, "banned", &group("g")).await;
    assert_eq!(banned, Err(Denial::Forbidden));
    let [asked] = &backend.bodies()[..] else {
        panic!("asked once")
    };
    assert_eq!(asked["action"], "message.send");
    assert_eq!(asked["uid"], "banned");

    backend.answers(|_| Reply::allow(false));
    let refused = may_send(&app, "stranger", &group("g")).await;
    assert!(matches!(refused, Err(Denial::Refused(_))), "{refused:?}");
    backend.answers(|_| Reply::Body(500, String::new()));
    let failed = may_send(&app, "another", &group("g")).await;
    assert!(
        matches!(failed, Err(Denial::CallbackFailed(_))),
        "{failed:?}"
    );
}
