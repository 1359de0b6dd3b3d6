//! Changes, cancellations and concurrent requests during lookups.

use std::sync::Arc;

use dev_upstream::{Fault, Rule};
use http::HeaderValue;
use wukongim_gateway::authorization::Denial;
use wukongim_gateway::context::with_request_id;

use super::{Fixture, group_id, uid};

const SUBSCRIBERS: &str = "/cluster/channels/g/2/subscribers";

fn hold_next(fixture: &Fixture, fault: Fault) {
    fixture
        .upstream
        .faults()
        .add(Rule::new(SUBSCRIBERS, fault).times(1));
}

#[tokio::test]
async fn concurrent_requests_share_one_lookup() {
    let fixture = Arc::new(Fixture::members_v2().await);
    let g = fixture.group("g", &["alice", "bob"]).await;
    hold_next(&fixture, Fault::Hold("members".to_owned()));
    let asked: Vec<_> = (0..30)
        .map(|n| {
            let (fixture, g) = (Arc::clone(&fixture), g.clone());
            let who = if n % 2 == 0 { "alice" } else { "eve" };
            tokio::spawn(async move { (who, fixture.may_send(who, &g).await) })
        })
        .collect();
    fixture.upstream.faults().wait_held("members", 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    fixture.upstream.faults().release("members");
    for answer in asked {
        let (who, may) = answer.await.unwrap();
        let expected = match who {
            "alice" => Ok(()),
            _ => Err(Denial::NotAMember),
        };
        assert_eq!(may, expected);
    }
    // Four facts of the group and two callers' bans.
    assert_eq!(fixture.upstream.calls_to("/cluster/channels").len(), 6);
}

#[tokio::test]
async fn a_first_caller_that_disconnects_does_not_affect_the_second() {
    let fixture = Arc::new(Fixture::members_v2().await);
    let g = fixture.group("g", &["alice", "bob"]).await;
    hold_next(&fixture, Fault::Hold("members".to_owned()));
    let ask = |who: &'static str| {
        let (fixture, g) = (Arc::clone(&fixture), g.clone());
        let id = HeaderValue::from_static(who);
        tokio::spawn(with_request_id(id, async move {
            fixture.may_send(who, &g).await
        }))
    };
    let first = ask("alice");
    fixture.upstream.faults().wait_held("members", 1).await;
    let second = ask("bob");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fixture.upstream.faults().release("members");
    assert_eq!(second.await.unwrap(), Ok(()));
    let calls = fixture.upstream.calls_to(SUBSCRIBERS);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].request_id.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_lookup_overtaken_by_a_removal_permits_nothing_later() {
    let fixture = Arc::new(Fixture::members_v2().await);
    let g = fixture.group("g", &["alice", "bob"]).await;
    // The list is read while bob is in it, and comes back when he is not.
    hold_next(&fixture, Fault::HoldAnswer("old".to_owned()));
    let before = {
        let (fixture, g) = (Arc::clone(&fixture), g.clone());
        tokio::spawn(async move { fixture.may_send("bob", &g).await })
    };
    fixture.upstream.faults().wait_held("old", 1).await;
    fixture.authorization.group_changed(&group_id("g"));
    fixture.remove("g", "bob").await;
    fixture.authorization.group_changed(&group_id("g"));

    // Who asks now does not wait for the old look-up, and is not answered from it.
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::NotAMember));
    fixture.upstream.faults().release("old");
    assert_eq!(before.await.unwrap(), Ok(()), "he asked before");
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::NotAMember));
    assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
}

#[tokio::test]
async fn an_overtaken_lookup_is_not_cached_either() {
    let fixture = Arc::new(Fixture::members_v2().await);
    let g = fixture.group("g", &["alice", "bob"]).await;
    hold_next(&fixture, Fault::HoldAnswer("old".to_owned()));
    let before = {
        let (fixture, g) = (Arc::clone(&fixture), g.clone());
        tokio::spawn(async move { fixture.may_send("bob", &g).await })
    };
    fixture.upstream.faults().wait_held("old", 1).await;
    fixture.remove("g", "bob").await;
    fixture.authorization.group_changed(&group_id("g"));
    fixture.upstream.faults().release("old");
    assert_eq!(before.await.unwrap(), Ok(()), "he asked before");
    assert_eq!(fixture.may_send("bob", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_change_shows_at_once_and_only_in_its_group() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice", "bob"]).await;
    let others = [
        fixture.group("other1", &["alice"]).await,
        fixture.group("other2", &["alice"]).await,
    ];
    fixture.may_read("bob", &g).await.unwrap();
    for other in &others {
        fixture.may_read("alice", other).await.unwrap();
    }
    fixture.remove("g", "bob").await;
    fixture.authorization.group_changed(&group_id("g"));
    fixture.upstream.clear_calls();
    assert_eq!(fixture.may_read("bob", &g).await, Err(Denial::NotAMember));
    for other in &others {
        fixture.may_read("alice", other).await.unwrap();
    }
    assert_eq!(fixture.upstream.calls_to(SUBSCRIBERS).len(), 1);
    // One other group may share the counter of changes, once in 4,096 runs.
    let others = fixture.upstream.calls_to("/cluster/channels/other");
    assert!(others.len() <= 3, "{}", others.len());
}

#[tokio::test]
async fn many_groups_do_not_grow_the_cache_without_bound() {
    let mut plan = super::Plan::new(
        dev_upstream::Dialect::V2,
        wukongim_gateway::authorization::Mode::Members,
    );
    plan.rules.cache_members = 400;
    let fixture = plan.start().await;
    for n in 0..60 {
        let id = format!("g{n}");
        let g = fixture.group(&id, &["alice", "bob"]).await;
        let may = fixture.authorization.may_read(&uid("alice"), &g).await;
        assert!(may.is_ok(), "{may:?}");
    }
    fixture.upstream.clear_calls();
    for n in 0..60 {
        let g = super::group(&format!("g{n}"));
        fixture.may_read("alice", &g).await.unwrap();
    }
    // 400 units hold at most 22 groups of 16 + 2: the others are asked for again.
    let again = fixture
        .asked()
        .iter()
        .filter(|path| path.ends_with("subscribers"))
        .count();
    assert!(again >= 60 - 22, "{again}");
}
