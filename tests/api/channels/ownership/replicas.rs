//! Two gateways on one store and one upstream: what one does overtakes the other's half-done work.

use dev_upstream::{Fault, Rule};
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;

in_every_world! {
    async fn concurrent_creates_of_one_id_have_one_owner(w) {
        let replicas = [w.gateway.clone(), w.replica().await, w.replica().await];
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..24 {
            let channels = replicas[n % 3].clone();
            calls.spawn(async move {
                let who = format!("u{n}");
                (channels.create(&who).await, who)
            });
        }
        let mut owners = Vec::new();
        for (result, who) in calls.join_all().await {
            match result {
                Ok(record) => {
                    assert!(record.is_owned_by(&uid(&who)));
                    owners.push(who);
                }
                Err(Error::Exists) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(w.members(), owners);
        assert_eq!(w.owner().await, Some(uid(&owners[0])));
    }

    async fn an_owner_that_creates_twice_at_once_owns_the_group(w) {
        let replicas = [w.gateway.clone(), w.replica().await];
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..8 {
            let channels = replicas[n % 2].clone();
            calls.spawn(async move { channels.create("alice").await });
        }
        for result in calls.join_all().await {
            assert!(result.unwrap().is_live());
        }
        assert_eq!(w.members(), ["alice"]);
    }

    async fn an_add_that_a_delete_overtook_is_taken_back(w) {
        w.create("alice").await.unwrap();
        w.fault(Rule::new(w.kind.add_path(), Fault::Hold("add".into())));
        let other = w.replica().await;
        let adding = tokio::spawn(async move { other.add("alice", &["bob", "carol"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        w.delete("alice").await.unwrap();
        assert!(w.members().is_empty());
        w.upstream.faults().release("add");
        assert_is!(adding.await.unwrap(), Err(Error::NotFound));
        assert!(w.members().is_empty(), "{:?}", w.members());
        assert!(w.is_disbanded());
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
    }

    async fn an_add_whose_answer_was_lost_is_taken_back_too(w) {
        w.create("alice").await.unwrap();
        let path = w.kind.add_path();
        w.fault(Rule::new(path, Fault::HoldAnswer("add".into())));
        w.fault(Rule::new(path, Fault::ResetAfter));
        let other = w.replica().await;
        let adding = tokio::spawn(async move { other.add("alice", &["bob"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        // The other replica marks it and dies before it empties the group.
        w.store.mark_deleted(&id(G), None).await.unwrap();
        w.upstream.faults().release("add");
        assert_is!(adding.await.unwrap(), Err(Error::NotFound));
        assert_eq!(w.members(), ["alice"], "bob is out again");
    }

    async fn a_create_that_a_delete_overtook_is_taken_back(w) {
        w.fault(Rule::exact("/channel", Fault::Hold("create".into())));
        let other = w.replica().await;
        let creating = tokio::spawn(async move { other.create("alice").await });
        w.upstream.faults().wait_held("create", 1).await;
        w.delete("alice").await.unwrap();
        w.upstream.faults().release("create");
        assert_is!(creating.await.unwrap(), Err(Error::Deleted));
        assert!(w.members().is_empty());
        assert!(w.upstream.state().flags(2, G).is_none_or(|flags| flags.disband));
        assert_is!(w.create("bob").await, Err(Error::Deleted));
    }

    async fn in_one_process_an_add_waits_for_the_delete(w) {
        w.create("alice").await.unwrap();
        w.fault(Rule::exact("/channel/subscriber_remove_all", Fault::Hold("empty".into())));
        let (first, second) = (w.gateway.clone(), w.gateway.clone());
        let deleting = tokio::spawn(async move { first.delete("alice").await });
        w.upstream.faults().wait_held("empty", 1).await;
        let adding = tokio::spawn(async move { second.add("alice", &["bob"]).await });
        // Another channel's turn is its own.
        w.create_of("alice", "g-2").await.unwrap();
        assert!(!adding.is_finished());
        w.upstream.faults().release("empty");
        deleting.await.unwrap().unwrap();
        assert_is!(adding.await.unwrap(), Err(Error::NotFound));
        assert!(w.upstream.calls_to(w.kind.add_path()).is_empty());
    }
}
