//! Two groups whose ids have one storage key are one thing to v2: whoever is in the one is in the other.

use std::time::Duration;

use dev_upstream::{Fault, Rule, fnv1a64};
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::{ChannelRecord, ChannelStage};
use wukongim_gateway::wukongim::storage_key;

use super::*;

const ALICES: &str = "hQjDU6YDmH2B";
const MALLORYS: &str = "hUeJu6FQZcZC";

type Created = Result<ChannelRecord, Error>;

fn creating(
    channels: &Gateway,
    who: &'static str,
    group: &'static str,
) -> tokio::task::JoinHandle<Created> {
    let channels = channels.clone();
    tokio::spawn(async move { channels.create_of(who, group).await })
}

/// Whoever was told that she has a group is alone in it, under its own id.
fn nobody_shares(w: &World, alices: &Created, mallorys: &Created) {
    let members = w.upstream.state().members(ALICES);
    match (alices, mallorys) {
        (Ok(_), Err(Error::Exists)) => assert_eq!(members, ["alice"]),
        (Err(Error::Exists), Ok(_)) => assert_eq!(members, ["mallory"]),
        (Err(Error::Exists), Err(Error::Exists)) => assert_eq!(members, [""; 0]),
        _ => panic!("{alices:?} {mallorys:?} {members:?}"),
    }
}

#[test]
fn the_keys_are_equal_and_are_v2s() {
    use wukongim_gateway::domain::ChannelType::{Group, Person};
    assert_eq!(storage_key(ALICES, Group), storage_key(MALLORYS, Group));
    assert_eq!(storage_key(ALICES, Group), fnv1a64(&format!("{ALICES}-2")));
    assert_eq!(storage_key("a", Person), fnv1a64("a-1"));
}

#[tokio::test]
async fn operations_of_one_process_on_equal_keys_are_serialised() {
    let w = World::start(Kind::V2).await;
    w.fault(Rule::exact("/channel", Fault::Hold("made".into())).times(1));
    let first = creating(&w.gateway, "alice", ALICES);
    w.upstream.faults().wait_held("made", 1).await;
    let calls = w.upstream.calls().len();
    let second = creating(&w.gateway, "mallory", MALLORYS);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(w.upstream.calls().len(), calls, "it asks for nothing yet");
    w.upstream.faults().release("made");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first.as_ref().unwrap().is_live());
    nobody_shares(&w, &first, &second);
    assert_eq!(w.store.channel(&id(MALLORYS)).await.unwrap(), None);
}

#[tokio::test]
async fn groups_of_equal_keys_on_two_replicas_are_not_shared() {
    // Both are written before either looks again; then one after the other, in both orders.
    for (held, first) in [("both", ""), ("one", ALICES), ("one", MALLORYS)] {
        println!("{held} {first}");
        let w = World::start(Kind::V2).await;
        let other = w.replica().await;
        w.fault(Rule::exact("/channel", Fault::Hold("made".into())).containing(ALICES));
        w.fault(Rule::exact("/channel", Fault::Hold("theirs".into())).containing(MALLORYS));
        let alices = creating(&w.gateway, "alice", ALICES);
        let mallorys = creating(&other, "mallory", MALLORYS);
        w.upstream.faults().wait_held("made", 1).await;
        w.upstream.faults().wait_held("theirs", 1).await;
        let (one, two) = if first == MALLORYS {
            ("theirs", "made")
        } else {
            ("made", "theirs")
        };
        w.upstream.faults().release(one);
        if held == "one" {
            while !(alices.is_finished() || mallorys.is_finished()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        w.upstream.faults().release(two);
        let (alices, mallorys) = (alices.await.unwrap(), mallorys.await.unwrap());
        nobody_shares(&w, &alices, &mallorys);
        if held == "one" {
            assert!(
                alices.is_ok() != mallorys.is_ok(),
                "the first one was alone"
            );
        }
        assert!(
            !w.writes()
                .iter()
                .any(|path| path.ends_with("delete") || path.ends_with("all"))
        );
    }
}

#[tokio::test]
async fn concurrent_creates_of_equal_keys_never_share_a_group() {
    for _ in 0..20 {
        let w = World::start(Kind::V2).await;
        let other = w.replica().await;
        let alices = creating(&w.gateway, "alice", ALICES);
        let mallorys = creating(&other, "mallory", MALLORYS);
        let (alices, mallorys) = (alices.await.unwrap(), mallorys.await.unwrap());
        nobody_shares(&w, &alices, &mallorys);
    }
}

#[tokio::test]
async fn a_refused_create_succeeds_after_the_other_group_is_deleted() {
    let w = World::start(Kind::V2).await;
    let other = w.replica().await;
    w.fault(Rule::exact("/channel", Fault::Hold("made".into())).times(2));
    let alices = creating(&w.gateway, "alice", ALICES);
    let mallorys = creating(&other, "mallory", MALLORYS);
    w.upstream.faults().wait_held("made", 2).await;
    w.upstream.faults().release("made");
    let (alices, mallorys) = (alices.await.unwrap(), mallorys.await.unwrap());
    nobody_shares(&w, &alices, &mallorys);
    // One of the two ids names the record, and its claimer may go on.
    let again = [
        w.create_of("alice", ALICES).await,
        w.create_of("mallory", MALLORYS).await,
    ];
    assert_eq!(
        again.iter().filter(|result| result.is_ok()).count(),
        1,
        "{again:?}"
    );
    nobody_shares(&w, &again[0], &again[1]);
}

in_every_world! {
    async fn a_late_create_of_the_owner_removes_no_members(w) {
        w.fault(Rule::exact("/channel", Fault::Hold("made".into())).times(1));
        let other = w.replica().await;
        let late = creating(&other, "alice", G);
        w.upstream.faults().wait_held("made", 1).await;
        w.create("alice").await.unwrap();
        w.add("alice", &["bob"]).await.unwrap();
        w.upstream.faults().release("made");
        assert!(late.await.unwrap().unwrap().is_live());
        assert_eq!(w.members(), ["alice", "bob"]);
        w.create("alice").await.unwrap();
        assert_eq!(w.members(), ["alice", "bob"]);
        assert_eq!(w.stage().await, Some(ChannelStage::Live));
    }
}

#[tokio::test]
async fn a_failed_check_leaves_a_claim_that_its_owner_can_complete() {
    let w = World::start(Kind::V2).await;
    let status = Fault::Status(400, "{}".into());
    w.fault(Rule::new(Kind::V2.look_path(), status).skip(1).times(1));
    assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
    assert_eq!(w.stage().await, Some(ChannelStage::Creating));
    assert!(w.create("alice").await.unwrap().is_live());
    assert_eq!(w.members(), ["alice"]);
}
