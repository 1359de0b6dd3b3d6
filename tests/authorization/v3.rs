//! v3 decides by itself: nothing is asked beforehand, and its refusals are given their meaning.

use wukongim_gateway::authorization::{Denial, Mode};
use wukongim_gateway::domain::{Channel, ClientMsgNo, Payload};
use wukongim_gateway::embedded::{Dialect, Fault, Rule};
use wukongim_gateway::wukongim::{Error, Generation, Outgoing, Reason, Rejection, Route, Window};

use crate::support::{GROUP, House, PERSON, Plan, group, group_id, person, uid};

const BOTH: [Mode; 2] = [Mode::Members, Mode::Open];

/// Sends, and what becomes of it.
async fn send(house: &House, who: &str, channel: &Channel) -> Result<(), Denial> {
    let outgoing = Outgoing {
        from: &uid(who),
        channel,
        payload: &Payload::parse("aGk=", 100).unwrap(),
        client_msg_no: &ClientMsgNo::generate(),
        permitted_by: Generation::V3,
        route: &Route::default(),
    };
    house.may_send(who, channel).await?;
    match house
        .client
        .send(&outgoing, || std::future::ready(true))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Denial::of_send_refusal(channel, &error)),
    }
}

/// Reads: how many messages, or why not.
async fn read(house: &House, who: &str, channel: &Channel) -> Result<usize, Denial> {
    house.may_read(who, channel).await?;
    let page = house
        .client
        .page(&uid(who), channel, Window::Newest, 10, 100_000)
        .await;
    match page {
        Ok(page) => Ok(page.messages.len()),
        Err(error) => {
            let explained = house.authorization.explain_read_refusal(channel, &error);
            explained.await.map_or(Ok(0), Err)
        }
    }
}

#[tokio::test]
async fn nothing_is_asked_before_a_send_or_a_read() {
    for mode in BOTH {
        let house = House::new(Dialect::V3, mode.clone()).await;
        let g = house.group("g", &["alice"]).await;
        for channel in [&g, &person("bob"), &group("nowhere")] {
            assert_eq!(house.may_send("eve", channel).await, Ok(()));
            assert_eq!(house.may_read("eve", channel).await, Ok(()));
        }
        assert!(house.asked().is_empty(), "{mode:?}");
        assert_eq!(house.looked_up("members"), (0, 0));
        assert_eq!(house.looked_up("bans"), (0, 0));
    }
}

#[tokio::test]
async fn refused_sends_say_why_in_both_modes() {
    for mode in BOTH {
        let house = House::new(Dialect::V3, mode.clone()).await;
        let g = house.group("g", &["alice", "bob"]).await;
        let listed = house.group("listed", &["alice", "bob"]).await;
        let banned = house.group("banned", &["alice"]).await;
        let disbanded = house.group("disbanded", &["alice"]).await;
        let state = house.upstream.state();
        state.deny(GROUP, "g", "bob");
        state.allow("listed", "alice");
        state.ban_group("banned", true);
        state.deny(PERSON, "bob", "alice");
        house
            .client
            .disband_group(&group_id("disbanded"))
            .await
            .unwrap();
        assert_eq!(send(&house, "alice", &g).await, Ok(()));
        let refused = [
            ("eve", &g, Denial::NotAMember),
            ("bob", &g, Denial::Blocked),
            ("bob", &listed, Denial::Forbidden),
            ("alice", &banned, Denial::ChannelBanned),
            ("alice", &disbanded, Denial::ChannelNotFound),
            ("alice", &group("nowhere"), Denial::ChannelNotFound),
            ("alice", &person("bob"), Denial::Blocked),
        ];
        for (who, channel, why) in refused {
            assert_eq!(
                send(&house, who, channel).await,
                Err(why),
                "{who} {channel:?}"
            );
        }
    }
}

#[tokio::test]
async fn refused_reads_tell_strangers_from_unknown_groups() {
    for manager in [None, Some(("manager".to_owned(), "secret".to_owned()))] {
        let mut plan = Plan::new(Dialect::V3, Mode::Members);
        plan.options.manager = manager;
        let house = plan.start().await;
        let g = house.group("g", &["alice"]).await;
        let silent = house.group("silent", &["alice"]).await;
        let disbanded = house.group("disbanded", &["alice"]).await;
        house
            .client
            .disband_group(&group_id("disbanded"))
            .await
            .unwrap();
        send(&house, "alice", &g).await.unwrap();
        assert_eq!(read(&house, "alice", &g).await, Ok(1));
        assert_eq!(read(&house, "alice", &silent).await, Ok(0));
        assert_eq!(read(&house, "alice", &person("nobody-yet")).await, Ok(0));
        assert_eq!(read(&house, "eve", &g).await, Err(Denial::NotAMember));
        assert_eq!(read(&house, "eve", &silent).await, Err(Denial::NotAMember));
        assert_eq!(
            read(&house, "alice", &group("nowhere")).await,
            Err(Denial::ChannelNotFound)
        );
        assert_eq!(
            read(&house, "alice", &disbanded).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(house.upstream.state().messages(GROUP, "silent").is_empty());
    }
}

#[tokio::test]
async fn strangers_who_try_again_cost_no_further_probe() {
    let house = House::new(Dialect::V3, Mode::Members).await;
    let g = house.group("g", &["alice"]).await;
    for who in ["eve", "mallory", "eve"] {
        assert_eq!(read(&house, who, &g).await, Err(Denial::NotAMember));
    }
    assert_eq!(house.upstream.calls_to("/message/send").len(), 1);
}

#[tokio::test]
async fn a_probe_that_fails_is_no_answer() {
    let house = House::new(Dialect::V3, Mode::Members).await;
    let g = house.group("g", &["alice"]).await;
    let broken = Rule::new("/message/send", Fault::Reset).times(2);
    house.upstream.faults().add(broken);
    assert!(matches!(
        read(&house, "eve", &g).await,
        Err(Denial::Unavailable(_))
    ));
    assert_eq!(read(&house, "eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn what_is_no_refusal_stays_what_it_is() {
    let house = House::new(Dialect::V3, Mode::Members).await;
    for error in [
        Error::Timeout,
        Error::Rejected(Rejection::RetryRequired),
        Error::Refused(Reason::RATE_LIMITED),
    ] {
        let channel = group("g");
        let read = house.authorization.explain_read_refusal(&channel, &error);
        assert_eq!(read.await, Some(Denial::Upstream(error.clone())));
        assert_eq!(
            Denial::of_send_refusal(&channel, &error),
            Denial::Upstream(error)
        );
    }
}

#[tokio::test]
async fn when_v2_takes_v3s_place_the_gateway_decides_again() {
    let house = House::new(Dialect::V3, Mode::Members).await;
    house.group("g", &["alice"]).await;
    assert_eq!(house.may_send("eve", &group("g")).await, Ok(()));
    house.upstream.restart_as(Dialect::V2).await.unwrap();
    // The first call finds out, perhaps by failing.
    let _ = house.client.group_state(&group_id("g")).await;
    let g = house.group("g", &["alice"]).await;
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
}
