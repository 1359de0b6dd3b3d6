//! Mode `members` on v2, where the gateway decides everything.

use std::time::Duration;

use dev_upstream::{Dialect, Fault, Rule, StoredMessage};
use wukongim_gateway::authorization::{Denial, Mode};
use wukongim_gateway::wukongim::Error;

use super::{Fixture, GROUP, PERSON, Plan, group, group_id, person};

/// Two group ids with one FNV-1a-64 hash (`crates/dev-upstream/tests/behaviour/collision.rs`).
const TWINS: [&str; 2] = ["twins-R54o9P90Go-Z", "twins-Q76Q5J92otdM"];

#[tokio::test]
async fn subscribers_send_and_read_and_others_do_not() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice", "bob"]).await;
    for member in ["alice", "bob"] {
        assert_eq!(fixture.may_send(member, &g).await, Ok(()));
        assert_eq!(fixture.may_read(member, &g).await, Ok(()));
    }
    assert_eq!(fixture.may_send("eve", &g).await, Err(Denial::NotAMember));
    assert_eq!(fixture.may_read("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn the_facts_of_a_query_are_fetched_once() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice", "bob"]).await;
    fixture.may_send("alice", &g).await.unwrap();
    assert_eq!(
        fixture.asked(),
        [
            "/cluster/channels/g/2/allowlist",
            "/cluster/channels/g/2/denylist",
            "/cluster/channels/g/2/subscribers",
            "/cluster/channels?channel_id=alice&channel_type=1",
            "/cluster/channels?channel_id=g&channel_type=2",
        ]
    );
    fixture.may_read("alice", &g).await.unwrap();
    fixture.may_send("alice", &g).await.unwrap();
    assert!(fixture.asked().is_empty());
    // Of another member, only his ban is not known yet.
    fixture.may_send("bob", &g).await.unwrap();
    assert_eq!(
        fixture.asked(),
        ["/cluster/channels?channel_id=bob&channel_type=1"]
    );
    assert_eq!(fixture.looked_up("members"), (3, 1));
    assert_eq!(fixture.looked_up("bans"), (2, 2));
    assert_eq!(fixture.looked_up("tombstones"), (3, 1));
}

#[tokio::test]
async fn answers_are_cached_for_the_configured_time() {
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.rules.cache_ttl = Duration::from_millis(500);
    let fixture = plan.start().await;
    let g = fixture.group("g", &["alice"]).await;
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::NotAMember));
    // Behind the gateway's back, as another replica would.
    fixture.upstream.state().join("g", "bob");
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::NotAMember));
    tokio::time::sleep(Duration::from_millis(510)).await;
    assert_eq!(fixture.may_send("bob", &g).await, Ok(()));
}

#[tokio::test]
async fn an_unknown_group_is_not_found_for_any_user() {
    let fixture = Fixture::members_v2().await;
    let nowhere = group("nowhere");
    assert_eq!(
        fixture.may_send("alice", &nowhere).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        fixture.may_read("alice", &nowhere).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn messages_or_a_denylist_alone_make_no_group() {
    let fixture = Fixture::members_v2().await;
    fixture.upstream.state().store_message(StoredMessage {
        channel_id: "g".to_owned(),
        channel_type: GROUP,
        from_uid: "alice".to_owned(),
        ..StoredMessage::default()
    });
    fixture.upstream.state().deny(GROUP, "g", "alice");
    assert_eq!(
        fixture.may_read("alice", &group("g")).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_disbanded_group_is_not_found_though_its_members_stay_listed() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
    fixture.client.disband_group(&group_id("g")).await.unwrap();
    assert_eq!(fixture.upstream.state().members("g"), ["alice"]);
    assert_eq!(
        fixture.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        fixture.may_send("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_group_with_the_hash_of_another_one_is_not_found() {
    let fixture = Fixture::members_v2().await;
    let [first, second] = TWINS;
    fixture.group(first, &["alice"]).await;
    assert_eq!(fixture.upstream.state().members(second), ["alice"]);
    assert_eq!(
        fixture.may_read("alice", &group(second)).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(
        fixture.may_send("alice", &group(second)).await,
        Err(Denial::ChannelNotFound)
    );
    assert_eq!(fixture.may_send("alice", &group(first)).await, Ok(()));
}

#[tokio::test]
async fn a_denylisted_subscriber_reads_and_does_not_send() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice", "bob"]).await;
    fixture.upstream.state().deny(GROUP, "g", "bob");
    fixture.upstream.state().deny(GROUP, "g", "eve");
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::Blocked));
    assert_eq!(fixture.may_read("bob", &g).await, Ok(()));
    assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
    assert_eq!(fixture.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn an_allowlist_silences_all_others() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice", "bob", "carol"]).await;
    fixture.upstream.state().allow("g", "alice");
    fixture.upstream.state().allow("g", "carol");
    fixture.upstream.state().allow("g", "eve");
    fixture.upstream.state().deny(GROUP, "g", "carol");
    assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::Forbidden));
    assert_eq!(fixture.may_read("bob", &g).await, Ok(()));
    assert_eq!(fixture.may_send("carol", &g).await, Err(Denial::Blocked));
    // To be on it makes nobody a member.
    assert_eq!(fixture.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_banned_group_is_read_and_not_written() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
    fixture.upstream.state().ban_group("g", true);
    assert_eq!(
        fixture.may_send("alice", &g).await,
        Err(Denial::ChannelBanned)
    );
    assert_eq!(fixture.may_read("alice", &g).await, Ok(()));
    assert_eq!(fixture.may_send("eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_banned_user_neither_sends_nor_reads() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
    fixture.upstream.state().ban_user("alice", true);
    for channel in [g, person("bob")] {
        assert_eq!(
            fixture.may_send("alice", &channel).await,
            Err(Denial::Forbidden)
        );
        assert_eq!(
            fixture.may_read("alice", &channel).await,
            Err(Denial::Forbidden)
        );
    }
    assert_eq!(fixture.may_send("bob", &person("alice")).await, Ok(()));
}

#[tokio::test]
async fn a_peers_denylist_refuses_sends_and_hides_nothing() {
    let fixture = Fixture::members_v2().await;
    fixture.upstream.state().deny(PERSON, "bob", "alice");
    assert_eq!(
        fixture.may_send("alice", &person("bob")).await,
        Err(Denial::Blocked)
    );
    assert_eq!(fixture.may_send("bob", &person("alice")).await, Ok(()));
    assert_eq!(fixture.may_send("carol", &person("bob")).await, Ok(()));
    assert_eq!(fixture.may_read("alice", &person("bob")).await, Ok(()));
    assert_eq!(fixture.may_send("bob", &person("bob")).await, Ok(()));
}

#[tokio::test]
async fn reading_a_pair_fetches_only_the_readers_ban() {
    let fixture = Fixture::members_v2().await;
    fixture.may_read("alice", &person("bob")).await.unwrap();
    assert_eq!(
        fixture.asked(),
        ["/cluster/channels?channel_id=alice&channel_type=1"]
    );
    fixture.may_send("alice", &person("bob")).await.unwrap();
    assert_eq!(fixture.asked(), ["/cluster/channels/bob/1/denylist"]);
}

#[tokio::test]
async fn a_failed_lookup_is_unavailable_and_not_cached() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
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
            fixture.authorization.group_changed(&group_id("g"));
            fixture
                .upstream
                .faults()
                .add(Rule::new(path, fault.clone()));
            let denied = fixture.may_read("alice", &g).await;
            fixture.upstream.faults().clear();
            assert!(
                matches!(denied, Err(Denial::Unavailable(_))),
                "{path} {fault:?} {denied:?}"
            );
            if !path.contains("alice") {
                assert_eq!(
                    fixture.may_read("someone", &g).await,
                    Err(Denial::NotAMember)
                );
            }
        }
    }
    assert_eq!(fixture.may_read("alice", &g).await, Ok(()));
    let path = "/cluster/channels/bob/1/denylist";
    // A broken connection once is asked again on another one.
    fixture
        .upstream
        .faults()
        .add(Rule::new(path, Fault::Reset).times(2));
    assert!(matches!(
        fixture.may_send("alice", &person("bob")).await,
        Err(Denial::Unavailable(_))
    ));
    assert_eq!(fixture.may_send("alice", &person("bob")).await, Ok(()));
}

#[tokio::test]
async fn without_an_upstream_requests_are_refused_and_it_recovers() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
    fixture.upstream.stop().await;
    for channel in [&g, &person("bob")] {
        assert_eq!(
            fixture.may_send("alice", channel).await,
            Err(Denial::Unavailable(Error::Connect))
        );
    }
    fixture.upstream.restart().await.unwrap();
    for _ in 0..100 {
        if fixture.may_send("alice", &g).await == Ok(()) {
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
    let fixture = plan.start().await;
    let uids: Vec<String> = (0..3000).map(|n| format!("user-{n}")).collect();
    let members: Vec<&str> = uids.iter().map(String::as_str).collect();
    let g = fixture.group("g", &members).await;
    for member in &members {
        assert_eq!(fixture.may_read(member, &g).await, Ok(()));
    }
    assert_eq!(
        fixture.may_read("user-3000", &g).await,
        Err(Denial::NotAMember)
    );
    assert_eq!(fixture.upstream.calls_to("/cluster/channels/g/").len(), 3);
}
