//! Mode `open`: any valid token may do anything, in a group that exists and was not deleted.

use dev_upstream::{Dialect, Fault};
use wukongim_gateway::authorization::{Denial, Mode};

use super::{Fixture, GROUP, PERSON, group, group_id, person};

#[tokio::test]
async fn in_open_mode_all_users_read_and_send_and_only_the_groups_state_is_fetched() {
    let fixture = Fixture::new(Dialect::V2, Mode::Open).await;
    let g = fixture.group("g", &["alice"]).await;
    let state = fixture.upstream.state();
    state.deny(GROUP, "g", "eve");
    state.allow("g", "alice");
    state.ban_user("eve", true);
    assert_eq!(fixture.may_send("eve", &g).await, Ok(()));
    assert_eq!(fixture.may_read("eve", &g).await, Ok(()));
    assert_eq!(
        fixture.asked(),
        ["/cluster/channels?channel_id=g&channel_type=2"]
    );
}

#[tokio::test]
async fn a_person_is_written_to_without_any_question() {
    let fixture = Fixture::new(Dialect::V2, Mode::Open).await;
    fixture.upstream.state().deny(PERSON, "bob", "alice");
    assert_eq!(fixture.may_send("alice", &person("bob")).await, Ok(()));
    assert_eq!(fixture.may_read("alice", &person("bob")).await, Ok(()));
    assert!(fixture.asked().is_empty());
}

#[tokio::test]
async fn what_v2_would_drop_or_store_nowhere_is_refused() {
    let fixture = Fixture::new(Dialect::V2, Mode::Open).await;
    let banned = fixture.group("banned", &["alice"]).await;
    let disbanded = fixture.group("disbanded", &["alice"]).await;
    fixture.upstream.state().ban_group("banned", true);
    fixture.upstream.state().disband("disbanded");
    assert_eq!(
        fixture.may_send("eve", &banned).await,
        Err(Denial::ChannelBanned)
    );
    assert_eq!(fixture.may_read("eve", &banned).await, Ok(()));
    for channel in [&disbanded, &group("nowhere")] {
        assert_eq!(
            fixture.may_send("eve", channel).await,
            Err(Denial::ChannelNotFound)
        );
        assert_eq!(
            fixture.may_read("eve", channel).await,
            Err(Denial::ChannelNotFound)
        );
    }
}

#[tokio::test]
async fn a_new_group_is_known_as_soon_as_the_gateway_made_it() {
    let fixture = Fixture::new(Dialect::V2, Mode::Open).await;
    assert_eq!(
        fixture.may_send("alice", &group("g")).await,
        Err(Denial::ChannelNotFound)
    );
    let g = fixture.group("g", &["alice"]).await;
    fixture.authorization.group_changed(&group_id("g"));
    assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
}

#[tokio::test]
async fn a_failed_lookup_permits_nothing() {
    let fixture = Fixture::new(Dialect::V2, Mode::Open).await;
    let g = fixture.group("g", &["alice"]).await;
    fixture
        .upstream
        .faults()
        .always("/cluster/channels?", Fault::Garbage);
    assert!(matches!(
        fixture.may_send("alice", &g).await,
        Err(Denial::Unavailable(_))
    ));
    fixture.upstream.faults().clear();
    assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
}
