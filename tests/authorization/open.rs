//! Mode `open`: any valid token may do anything, in a group that exists and was not deleted.

use wukongim_gateway::authorization::{Denial, Mode};
use wukongim_gateway::embedded::{Dialect, Fault};

use crate::support::{GROUP, House, PERSON, group, group_id, person};

#[tokio::test]
async fn anybody_reads_and_sends_and_only_the_groups_state_is_asked_for() {
    let house = House::new(Dialect::V2, Mode::Open).await;
    let g = house.group("g", &["alice"]).await;
    let state = house.upstream.state();
    state.deny(GROUP, "g", "eve");
    state.allow("g", "alice");
    state.ban_user("eve", true);
    assert_eq!(house.may_send("eve", &g).await, Ok(()));
    assert_eq!(house.may_read("eve", &g).await, Ok(()));
    assert_eq!(
        house.asked(),
        ["/cluster/channels?channel_id=g&channel_type=2"]
    );
}

#[tokio::test]
async fn a_person_is_written_to_without_any_question() {
    let house = House::new(Dialect::V2, Mode::Open).await;
    house.upstream.state().deny(PERSON, "bob", "alice");
    assert_eq!(house.may_send("alice", &person("bob")).await, Ok(()));
    assert_eq!(house.may_read("alice", &person("bob")).await, Ok(()));
    assert!(house.asked().is_empty());
}

#[tokio::test]
async fn what_v2_would_drop_or_store_nowhere_is_refused() {
    let house = House::new(Dialect::V2, Mode::Open).await;
    let banned = house.group("banned", &["alice"]).await;
    let disbanded = house.group("disbanded", &["alice"]).await;
    house.upstream.state().ban_group("banned", true);
    house.upstream.state().disband("disbanded");
    assert_eq!(
        house.may_send("eve", &banned).await,
        Err(Denial::ChannelBanned)
    );
    assert_eq!(house.may_read("eve", &banned).await, Ok(()));
    for channel in [&disbanded, &group("nowhere")] {
        assert_eq!(
            house.may_send("eve", channel).await,
            Err(Denial::ChannelNotFound)
        );
        assert_eq!(
            house.may_read("eve", channel).await,
            Err(Denial::ChannelNotFound)
        );
    }
}

#[tokio::test]
async fn a_new_group_is_known_as_soon_as_the_gateway_made_it() {
    let house = House::new(Dialect::V2, Mode::Open).await;
    assert_eq!(
        house.may_send("alice", &group("g")).await,
        Err(Denial::ChannelNotFound)
    );
    let g = house.group("g", &["alice"]).await;
    house.authorization.group_changed(&group_id("g"));
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
}

#[tokio::test]
async fn a_failed_look_up_is_no_permission() {
    let house = House::new(Dialect::V2, Mode::Open).await;
    let g = house.group("g", &["alice"]).await;
    house
        .upstream
        .faults()
        .always("/cluster/channels?", Fault::Garbage);
    assert!(matches!(
        house.may_send("alice", &g).await,
        Err(Denial::Unavailable(_))
    ));
    house.upstream.faults().clear();
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
}
