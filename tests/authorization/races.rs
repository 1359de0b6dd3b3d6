//! Changes, cancellations and crowds while look-ups are under way.

use std::sync::Arc;

use http::HeaderValue;
use wukongim_gateway::authorization::Denial;
use wukongim_gateway::embedded::{Fault, Rule};
use wukongim_gateway::wukongim::with_request_id;

use crate::support::{House, group_id, uid};

const SUBSCRIBERS: &str = "/cluster/channels/g/2/subscribers";

fn hold_next(house: &House, fault: Fault) {
    house
        .upstream
        .faults()
        .add(Rule::new(SUBSCRIBERS, fault).times(1));
}

#[tokio::test]
async fn a_crowd_shares_one_look_up() {
    let house = Arc::new(House::members_v2().await);
    let g = house.group("g", &["alice", "bob"]).await;
    hold_next(&house, Fault::Hold("members".to_owned()));
    let asked: Vec<_> = (0..30)
        .map(|n| {
            let (house, g) = (Arc::clone(&house), g.clone());
            let who = if n % 2 == 0 { "alice" } else { "eve" };
            tokio::spawn(async move { (who, house.may_send(who, &g).await) })
        })
        .collect();
    house.upstream.faults().wait_held("members", 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    house.upstream.faults().release("members");
    for answer in asked {
        let (who, may) = answer.await.unwrap();
        let expected = match who {
            "alice" => Ok(()),
            _ => Err(Denial::NotAMember),
        };
        assert_eq!(may, expected);
    }
    // Four facts of the group and two callers' bans.
    assert_eq!(house.upstream.calls_to("/cluster/channels").len(), 6);
}

#[tokio::test]
async fn a_first_caller_who_hangs_up_takes_nothing_from_the_second() {
    let house = Arc::new(House::members_v2().await);
    let g = house.group("g", &["alice", "bob"]).await;
    hold_next(&house, Fault::Hold("members".to_owned()));
    let ask = |who: &'static str| {
        let (house, g) = (Arc::clone(&house), g.clone());
        let id = HeaderValue::from_static(who);
        tokio::spawn(with_request_id(
            id,
            async move { house.may_send(who, &g).await },
        ))
    };
    let first = ask("alice");
    house.upstream.faults().wait_held("members", 1).await;
    let second = ask("bob");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    house.upstream.faults().release("members");
    assert_eq!(second.await.unwrap(), Ok(()));
    let calls = house.upstream.calls_to(SUBSCRIBERS);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].request_id.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_look_up_overtaken_by_a_removal_lets_nobody_in_afterwards() {
    let house = Arc::new(House::members_v2().await);
    let g = house.group("g", &["alice", "bob"]).await;
    // The list is read while bob is in it, and comes back when he is not.
    hold_next(&house, Fault::HoldAnswer("old".to_owned()));
    let before = {
        let (house, g) = (Arc::clone(&house), g.clone());
        tokio::spawn(async move { house.may_send("bob", &g).await })
    };
    house.upstream.faults().wait_held("old", 1).await;
    house.authorization.group_changed(&group_id("g"));
    house.remove("g", "bob").await;
    house.authorization.group_changed(&group_id("g"));

    // Who asks now does not wait for the old look-up, and is not answered from it.
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::NotAMember));
    house.upstream.faults().release("old");
    assert_eq!(before.await.unwrap(), Ok(()), "he asked before");
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::NotAMember));
    assert_eq!(house.may_send("alice", &g).await, Ok(()));
}

#[tokio::test]
async fn an_overtaken_look_up_is_not_kept_either() {
    let house = Arc::new(House::members_v2().await);
    let g = house.group("g", &["alice", "bob"]).await;
    hold_next(&house, Fault::HoldAnswer("old".to_owned()));
    let before = {
        let (house, g) = (Arc::clone(&house), g.clone());
        tokio::spawn(async move { house.may_send("bob", &g).await })
    };
    house.upstream.faults().wait_held("old", 1).await;
    house.remove("g", "bob").await;
    house.authorization.group_changed(&group_id("g"));
    house.upstream.faults().release("old");
    assert_eq!(before.await.unwrap(), Ok(()), "he asked before");
    assert_eq!(house.may_send("bob", &g).await, Err(Denial::NotAMember));
}

#[tokio::test]
async fn a_change_shows_at_once_and_only_in_its_group() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice", "bob"]).await;
    let others = [
        house.group("other1", &["alice"]).await,
        house.group("other2", &["alice"]).await,
    ];
    house.may_read("bob", &g).await.unwrap();
    for other in &others {
        house.may_read("alice", other).await.unwrap();
    }
    house.remove("g", "bob").await;
    house.authorization.group_changed(&group_id("g"));
    house.upstream.clear_calls();
    assert_eq!(house.may_read("bob", &g).await, Err(Denial::NotAMember));
    for other in &others {
        house.may_read("alice", other).await.unwrap();
    }
    assert_eq!(house.upstream.calls_to(SUBSCRIBERS).len(), 1);
    // One other group may share the counter of changes, once in 4,096 runs.
    let others = house.upstream.calls_to("/cluster/channels/other");
    assert!(others.len() <= 3, "{}", others.len());
}

#[tokio::test]
async fn many_groups_do_not_grow_the_cache_without_bound() {
    let mut plan = crate::support::Plan::new(
        wukongim_gateway::embedded::Dialect::V2,
        wukongim_gateway::authorization::Mode::Members,
    );
    plan.rules.cache_members = 400;
    let house = plan.start().await;
    for n in 0..60 {
        let id = format!("g{n}");
        let g = house.group(&id, &["alice", "bob"]).await;
        let may = house.authorization.may_read(&uid("alice"), &g).await;
        assert!(may.is_ok(), "{may:?}");
    }
    house.upstream.clear_calls();
    for n in 0..60 {
        let g = crate::support::group(&format!("g{n}"));
        house.may_read("alice", &g).await.unwrap();
    }
    // 400 units hold at most 22 groups of 16 + 2: the others are asked for again.
    let again = house
        .asked()
        .iter()
        .filter(|path| path.ends_with("subscribers"))
        .count();
    assert!(again >= 60 - 22, "{again}");
}
