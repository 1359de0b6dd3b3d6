//! v3 decides by itself: nothing is asked beforehand, and its refusals are given their meaning.

use dev_upstream::{Dialect, Fault, Rule};
use wukongim_gateway::authorization::{Denial, Mode};
use wukongim_gateway::domain::{Channel, ClientMsgNo, Payload};
use wukongim_gateway::wukongim::{Error, NodeAffinity, Outgoing, Reason, Rejection, Window};

use super::{Fixture, GROUP, PERSON, Plan, group, group_id, person, uid};

const BOTH: [Mode; 2] = [Mode::Members, Mode::Open];

/// Sends, and what becomes of it.
async fn send(fixture: &Fixture, who: &str, channel: &Channel) -> Result<(), Denial> {
    let outgoing = Outgoing {
        from: &uid(who),
        channel,
        payload: &Payload::parse("aGk=", 100).unwrap(),
        client_msg_no: &ClientMsgNo::generate(),
        affinity: &NodeAffinity::default(),
    };
    fixture.may_send(who, channel).await?;
    match fixture
        .client
        .send(&outgoing, || std::future::ready(true))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Denial::of_send_refusal(channel, &error)),
    }
}

/// Reads: how many messages, or why not.
async fn read(fixture: &Fixture, who: &str, channel: &Channel) -> Result<usize, Denial> {
    fixture.may_read(who, channel).await?;
    let page = fixture
        .client
        .page(&uid(who), channel, Window::Newest, 10, 100_000)
        .await;
    match page {
        Ok(page) => Ok(page.messages.len()),
        Err(error) => {
            let explained = fixture.authorization.explain_read_refusal(channel, &error);
            explained.await.map_or(Ok(0), Err)
        }
    }
}

#[tokio::test]
async fn there_is_no_call_before_a_send_or_a_read() {
    for mode in BOTH {
        let fixture = Fixture::new(Dialect::V3, mode.clone()).await;
        let g = fixture.group("g", &["alice"]).await;
        for channel in [&g, &person("bob"), &group("nowhere")] {
            assert_eq!(fixture.may_send("eve", channel).await, Ok(()));
            assert_eq!(fixture.may_read("eve", channel).await, Ok(()));
        }
        assert!(fixture.asked().is_empty(), "{mode:?}");
        assert_eq!(fixture.looked_up("members"), (0, 0));
        assert_eq!(fixture.looked_up("bans"), (0, 0));
    }
}

#[tokio::test]
async fn refused_sends_say_why_in_both_modes() {
    for mode in BOTH {
        let fixture = Fixture::new(Dialect::V3, mode.clone()).await;
        let g = fixture.group("g", &["alice", "bob"]).await;
        let listed = fixture.group("listed", &["alice", "bob"]).await;
        let banned = fixture.group("banned", &["alice"]).await;
        let disbanded = fixture.group("disbanded", &["alice"]).await;
        let state = fixture.upstream.state();
        state.deny(GROUP, "g", "bob");
        state.allow("listed", "alice");
        state.ban_group("banned", true);
        state.deny(PERSON, "bob", "alice");
        fixture
            .client
            .disband_group(&group_id("disbanded"))
            .await
            .unwrap();
        assert_eq!(send(&fixture, "alice", &g).await, Ok(()));
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
                send(&fixture, who, channel).await,
                Err(why),
                "{who} {channel:?}"
            );
        }
    }
}

#[tokio::test]
async fn refused_reads_distinguish_non_members_from_unknown_groups() {
    for manager in [None, Some(("manager".to_owned(), "secret".to_owned()))] {
        let mut plan = Plan::new(Dialect::V3, Mode::Members);
        plan.options.manager = manager;
        let fixture = plan.start().await;
        let g = fixture.group("g", &["alice"]).await;
        let silent = fixture.group("silent", &["alice"]).await;
        let disbanded = fixture.group("disbanded", &["alice"]).await;
        fixture
            .client
            .disband_group(&group_id("disbanded"))
            .await
            .unwrap();
        send(&fixture, "alice", &g).await.unwrap();
        assert_eq!(read(&fixture, "alice", &g).await, Ok(1));
        assert_eq!(read(&fixture, "alice", &silent).await, Ok(0));
        assert_eq!(read(&fixture, "alice", &person("nobody-yet")).await, Ok(0));
        assert_eq!(read(&fixture, "eve", &g).await, Err(Denial::NotAMember));
        assert_eq!(
            read(&fixture, "eve", &silent).await,
            Err(Denial::NotAMember)
        );
        assert_eq!(
            read(&fixture, "alice", &group("nowhere")).await,
            Err(Denial::ChannelNotFound)
        );
        assert_eq!(
            read(&fixture, "alice", &disbanded).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(
            fixture
                .upstream
                .state()
                .messages(GROUP, "silent")
                .is_empty()
        );
    }
}

#[tokio::test]
async fn retries_of_non_members_cause_no_further_probe() {
    let fixture = Fixture::new(Dialect::V3, Mode::Members).await;
    let g = fixture.group("g", &["alice"]).await;
    for who in ["eve", "mallory", "eve"] {
        assert_eq!(read(&fixture, who, &g).await, Err(Denial::NotAMember));
    }
    assert_eq!(fixture.upstream.calls_to("/message/send").len(), 1);
}

#[tokio::test]
async fn a_probe_that_fails_is_no_answer() {
    let fixture = Fixture::new(Dialect::V3, Mode::Members).await;
    let g = fixture.group("g", &["alice"]).await;
    let broken = Rule::new("/message/send", Fault::Reset).times(2);
    fixture.upstream.faults().add(broken);
    assert!(matches!(
        read(&fixture, "eve", &g).await,
        Err(Denial::Unavailable(_))
    ));
    assert_eq!(read(&fixture, "eve", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn what_is_no_refusal_stays_what_it_is() {
    let fixture = Fixture::new(Dialect::V3, Mode::Members).await;
    for error in [
        Error::Timeout,
        Error::Rejected(Rejection::RetryRequired),
        Error::Refused(Reason::RATE_LIMITED),
    ] {
        let channel = group("g");
        let read = fixture.authorization.explain_read_refusal(&channel, &error);
        assert_eq!(read.await, Some(Denial::Upstream(error.clone())));
        assert_eq!(
            Denial::of_send_refusal(&channel, &error),
            Denial::Upstream(error)
        );
    }
}
