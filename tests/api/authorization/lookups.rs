//! The policy's own interface: what callers of it see that clients do not.

use std::sync::Arc;

use http::HeaderValue;
use wukongim_gateway::authorization::{Authorization, Denial};
use wukongim_gateway::context::with_request_id;
use wukongim_gateway::domain::{Channel, ChannelId, Uid};
use wukongim_gateway::wukongim::{Error, Reason, Rejection};

use super::{is_in, is_kept_out};
use crate::support::prelude::*;

const SUBSCRIBERS: &str = "/cluster/channels/g/2/subscribers";

fn uid(text: &str) -> Uid {
    Uid::parse(text, 128).unwrap()
}

fn group(text: &str) -> ChannelId {
    ChannelId::parse(text, 128).unwrap()
}

async fn may_send(policy: &Authorization, who: &str) -> Result<(), Denial> {
    let channel = Channel::Group(group("g"));
    let may = policy.may_send(&uid(who), None, &channel).await;
    may.map(drop)
}

/// The group `g` of alice and bob, whose next look-up meets this fault.
async fn held(fault: Fault) -> Arc<TestApp> {
    let app = TestApp::with_group(V2, &["bob"]).await;
    app.faults().once(SUBSCRIBERS, fault);
    Arc::new(app)
}

/// Asks in a task of its own, as a request of this id.
fn ask(app: &Arc<TestApp>, who: &'static str) -> tokio::task::JoinHandle<Result<(), Denial>> {
    let app = app.clone();
    let id = HeaderValue::from_static(who);
    tokio::spawn(with_request_id(id, async move {
        may_send(&app.app.authorization, who).await
    }))
}

#[tokio::test]
async fn a_first_caller_that_disconnects_does_not_affect_the_second() {
    let app = held(Fault::Hold("members".into())).await;
    let first = ask(&app, "alice");
    app.faults().wait_held("members", 1).await;
    let second = ask(&app, "bob");
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    app.faults().release("members");
    assert_eq!(second.await.unwrap(), Ok(()));
    let calls = app.calls_to(SUBSCRIBERS);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].request_id.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_lookup_overtaken_by_a_removal_permits_nothing_later() {
    for asks_meanwhile in [true, false] {
        // The list is read while bob is in it, and comes back when he is not.
        let app = held(Fault::HoldAnswer("old".into())).await;
        let policy = &app.app.authorization;
        let before = ask(&app, "bob");
        app.faults().wait_held("old", 1).await;
        app.user("alice").remove("g", &["bob"]).await.ok();
        if asks_meanwhile {
            // Who asks now does not wait for the old look-up, and is not answered from it.
            assert_eq!(may_send(policy, "bob").await, Err(Denial::NotAMember));
        }
        app.faults().release("old");
        assert_eq!(before.await.unwrap(), Ok(()), "he asked before");
        assert_eq!(may_send(policy, "bob").await, Err(Denial::NotAMember));
        assert_eq!(may_send(policy, "alice").await, Ok(()));
    }
}

#[tokio::test]
async fn a_large_group_is_known_to_its_last_member() {
    let app = TestApp::with(V2, |settings| {
        settings.authorization.cache_ttl = Duration::from_mins(5);
        settings.authorization.cache_members = 20_000;
    });
    let app = app.await;
    let uids: Vec<String> = (0..3000).map(|n| format!("user-{n}")).collect();
    let members: Vec<&str> = uids.iter().map(String::as_str).collect();
    seeds::group(&app, "g", &members);
    let (policy, g) = (&app.app.authorization, Channel::Group(group("g")));
    for member in &members {
        assert!(policy.may_read(&uid(member), &g).await.is_ok());
    }
    let other = policy.may_read(&uid("user-3000"), &g).await;
    assert_eq!(other.map(drop), Err(Denial::NotAMember));
    assert_eq!(app.calls_to("/cluster/channels/g/").len(), 3);
}

#[tokio::test]
async fn what_is_no_refusal_stays_what_it_is() {
    let app = TestApp::start(V3).await;
    for error in [
        Error::Timeout,
        Error::Rejected(Rejection::RetryRequired),
        Error::Refused(Reason::RATE_LIMITED),
    ] {
        let (policy, g) = (&app.app.authorization, Channel::Group(group("g")));
        let read = policy.explain_read_refusal(&g, &error).await;
        assert_eq!(read, Some(Denial::Upstream(error.clone())));
        let sent = Denial::of_send_refusal(&g, &error);
        assert_eq!(sent, Denial::Upstream(error));
    }
}

#[tokio::test]
async fn a_mark_that_may_have_been_set_is_read_at_once() {
    for app in super::in_both_modes().await {
        app.group("g", "alice", &[]).await;
        is_in(&app, "alice").await;
        // The mark is set and its answer lost: the channels' module only tells that something changed.
        app.store.mark_deleted(&group("g"), None).await.unwrap();
        let policy = &app.app.authorization;
        policy.group_changed(&group("g"));
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
        // What is known for certain no change makes doubtful.
        policy.group_changed(&group("g"));
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
        assert!(app.upstream.calls().is_empty());
    }
}
