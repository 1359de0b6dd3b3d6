//! Mode `members` on v2, where the gateway decides everything.

use std::time::Duration;

use wukongim_gateway::authorization::{Denial, Mode};
use wukongim_gateway::embedded::{Dialect, Fault, Rule, StoredMessage};
use wukongim_gateway::wukongim::Error;

use crate::support::{GROUP, House, PERSON, Plan, group, group_id, person};

/// Two group ids with one FNV-1a-64 hash (`tests/embedded/collision.rs`).
const TWINS: [&str; 2] = ["twins-R54o9P90Go-Z", "twins-Q76Q5J92otdM"];

#[tokio::test]
async fn subscribers_send_and_read_and_others_do_not() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice", "bob"]).await;
    for member in ["alice", "bob"] {
        assert_eq!(house.may_send(member, &g).await, Ok(()));
        assert_eq!(house.may_read(member, &g).await, Ok(()));
    }
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
    assert_eq!(house.may_read("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn everything_about_a_question_is_asked_once() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice", "bob"]).await;
    house.may_send("alice", &g).await.unwrap();
    assert_eq!(
        house.asked(),
        [
            "/cluster/channels/g/2/allowlist",
            "/cluster/channels/g/2/denylist",
            "/cluster/channels/g/2/subscribers",
            "/cluster/channels?channel_id=alice&channel_type=1",
            "/cluster/channels?channel_id=g&channel_type=2",
        ]
    );
    house.may_read("alice", &g).await.unwrap();
    house.may_send("alice", &g).await.unwrap();
    assert!(house.asked().is_empty());
    // Of another member, only his ban is not known yet.
    house.may_send("bob", &g).await.unwrap();
    assert_eq!(
        house.asked(),
        ["/cluster/channels?channel_id=bob&channel_type=1"]
    );
    assert_eq!(house.looked_up("members"), (3, 1));
    assert_eq!(house.looked_up("bans"), (2, 2));
    assert_eq!(house.looked_up("tombstones"), (3, 1));
}

#[tokio::test]
async fn answers_are_believed_for_the_configured_time() {
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.rules.cache_ttl = Duration::from_millis(500);
    let house = plan.start().await;
    let g = house.group("g", &["alice"]).await;
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::NotAMember));
    // Behind the gateway's back, as another replica would.
    house.upstream.state().join("g", "bob");
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::NotAMember));
    tokio::time::sleep(Duration::from_millis(510)).await;
    assert_eq!(house.may_send("bob", &g).await, Ok(()));
}

#[tokio::test]
async fn an_unknown_group_is_not_found_for_anybody() {
    let house = House::members_v2().await;
    let nowhere = group("nowhere");
    assert_eq!(
        house.may_send("alice", &nowhere).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        house.may_read("alice", &nowhere).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn messages_or_a_denylist_alone_make_no_group() {
    let house = House::members_v2().await;
    house.upstream.state().store_message(StoredMessage {
        channel_id: "g".to_owned(),
        channel_type: GROUP,
        from_uid: "alice".to_owned(),
        ..StoredMessage::default()
    });
    house.upstream.state().deny(GROUP, "g", "alice");
    assert_eq!(
        house.may_read("alice", &group("g")).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_disbanded_group_is_not_found_though_its_members_stay_listed() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    house.client.disband_group(&group_id("g")).await.unwrap();
    assert_eq!(house.upstream.state().members("g"), ["alice"]);
    assert_eq!(
        house.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        house.may_send("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_group_with_the_hash_of_another_one_is_not_found() {
    let house = House::members_v2().await;
    let [first, second] = TWINS;
    house.group(first, &["alice"]).await;
    assert_eq!(house.upstream.state().members(second), ["alice"]);
    assert_eq!(
        house.may_read("alice", &group(second)).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        house.may_send("alice", &group(second)).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(house.may_send("alice", &group(first)).await, Ok(()));
}

#[tokio::test]
async fn a_denylisted_subscriber_reads_and_does_not_send() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice", "bob"]).await;
    house.upstream.state().deny(GROUP, "g", "bob");
    house.upstream.state().deny(GROUP, "g", "eve");
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::Blocked));
    assert_eq!(house.may_read("bob", &g).await, Ok(()));
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn an_allowlist_silences_all_others() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice", "bob", "carol"]).await;
    house.upstream.state().allow("g", "alice");
    house.upstream.state().allow("g", "carol");
    house.upstream.state().allow("g", "eve");
    house.upstream.state().deny(GROUP, "g", "carol");
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::Forbidden));
    assert_eq!(house.may_read("bob", &g).await, Ok(()));
    assert_eq!(house.may_send("carol", &g).await, Err(Denial::Blocked));
    // To be on it makes nobody a member.
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_banned_group_is_read_and_not_written() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    house.upstream.state().ban_group("g", true);
    assert_eq!(
        house.may_send("alice", &g).await,
        Err(Denial::ChannelBanned)
    );
    assert_eq!(house.may_read("alice", &g).await, Ok(()));
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_banned_user_neither_sends_nor_reads() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    house.upstream.state().ban_user("alice", true);
    for channel in [g, person("bob")] {
        assert_eq!(
            house.may_send("alice", &channel).await,
            Err(Denial::Forbidden)
        );
        assert_eq!(
            house.may_read("alice", &channel).await,
            Err(Denial::Forbidden)
        );
    }
    assert_eq!(house.may_send("bob", &person("alice")).await, Ok(()));
}

#[tokio::test]
async fn a_peer_who_blocked_the_sender_refuses_him_and_hides_nothing() {
    let house = House::members_v2().await;
    house.upstream.state().deny(PERSON, "bob", "alice");
    assert_eq!(
        house.may_send("alice", &person("bob")).await,
        Err(Denial::Blocked)
    );
    assert_eq!(house.may_send("bob", &person("alice")).await, Ok(()));
    assert_eq!(house.may_send("carol", &person("bob")).await, Ok(()));
    assert_eq!(house.may_read("alice", &person("bob")).await, Ok(()));
    assert_eq!(house.may_send("bob", &person("bob")).await, Ok(()));
}

#[tokio::test]
async fn reading_a_pair_asks_for_the_readers_ban_alone() {
    let house = House::members_v2().await;
    house.may_read("alice", &person("bob")).await.unwrap();
    assert_eq!(
        house.asked(),
        ["/cluster/channels?channel_id=alice&channel_type=1"]
    );
    house.may_send("alice", &person("bob")).await.unwrap();
    assert_eq!(house.asked(), ["/cluster/channels/bob/1/denylist"]);
}

#[tokio::test]
async fn a_failed_look_up_is_unavailable_and_not_kept() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    // Her ban first: once it is known it is not asked for again.
    for path in [
        "/cluster/channels?channel_id=alice&",
        "/cluster/channels/g/2/subscribers",
        "/cluster/channels/g/2/denylist",
        "/cluster/channels/g/2/allowlist",
        "/cluster/channels?channel_id=g&",
    ] {
        for fault in [
            Fault::Status(500, "{}".to_owned()),
            Fault::Garbage,
            Fault::Reset,
            Fault::HalfAnswer,
        ] {
            house.authorization.group_changed(&group_id("g"));
            house.upstream.faults().add(Rule::new(path, fault.clone()));
            let denied = house.may_read("alice", &g).await;
            house.upstream.faults().clear();
            assert!(
                matches!(denied, Err(Denial::Unavailable(_))),
                "{path} {fault:?} {denied:?}"
            );
            if !path.contains("alice") {
                assert_eq!(house.may_read("someone", &g).await, Err(Denial::NotAMember));
            }
        }
    }
    assert_eq!(house.may_read("alice", &g).await, Ok(()));
    let path = "/cluster/channels/bob/1/denylist";
    // A broken connection once is asked again on another one.
    house
        .upstream
        .faults()
        .add(Rule::new(path, Fault::Reset).times(2));
    assert!(matches!(
        house.may_send("alice", &person("bob")).await,
        Err(Denial::Unavailable(_))
    ));
    assert_eq!(house.may_send("alice", &person("bob")).await, Ok(()));
}

#[tokio::test]
async fn without_an_upstream_nobody_is_let_in_and_it_recovers_alone() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    house.upstream.stop().await;
    for channel in [&g, &person("bob")] {
        assert_eq!(
            house.may_send("alice", channel).await,
            Err(Denial::Unavailable(Error::Connect))
        );
    }
    house.upstream.restart().await.unwrap();
    for _ in 0..100 {
        if house.may_send("alice", &g).await == Ok(()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still unavailable");
}

#[tokio::test]
async fn a_large_group_is_known_to_its_last_member() {
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.rules.cache_members = 20_000;
    let house = plan.start().await;
    let uids: Vec<String> = (0..3000).map(|n| format!("user-{n}")).collect();
    let members: Vec<&str> = uids.iter().map(String::as_str).collect();
    let g = house.group("g", &members).await;
    for member in &members {
        assert_eq!(house.may_read(member, &g).await, Ok(()));
    }
    assert_eq!(
        house.may_read("user-3000", &g).await,
        Err(Denial::NotAMember)
    );
    assert_eq!(house.upstream.calls_to("/cluster/channels/g/").len(), 3);
}
