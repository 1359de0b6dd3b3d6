//! A right that ends on one replica while another one does what it allowed.

use dev_upstream::{Fault, Rule};
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;

/// alice owns it, bob manages it, carol is a subscriber.
async fn managed(w: &World) {
    w.create("alice").await.unwrap();
    w.add("alice", &["bob", "carol"]).await.unwrap();
    w.name("alice", &["bob"]).await.unwrap();
}

in_every_world! {
    async fn an_add_of_a_former_manager_is_undone(w) {
        managed(&w).await;
        w.fault(Rule::new(w.kind.add_path(), Fault::Hold("add".into())).times(1));
        let other = w.replica().await;
        let adding = tokio::spawn(async move { other.add("bob", &["carol", "dave"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        w.dismiss("alice", &["bob"]).await.unwrap();
        w.upstream.faults().release("add");
        let added = adding.await.unwrap();
        if w.kind.tells_members() {
            assert_is!(added, Err(Error::NotOwner));
            assert_eq!(w.members(), ["alice", "bob", "carol"], "who was in before stays");
        } else {
            // Who was in before is told by nobody.
            assert_is!(added, Err(Error::NotUndone(_)));
            assert_eq!(w.members(), ["alice", "bob", "carol", "dave"]);
        }
    }

    async fn a_partly_failed_add_is_undone_as_well(w) {
        managed(&w).await;
        w.fault(Rule::new(w.kind.add_path(), Fault::HoldAnswer("add".into())).times(1));
        w.fault(Rule::new(w.kind.add_path(), Fault::ResetAfter).times(1));
        let other = w.replica().await;
        let adding = tokio::spawn(async move { other.add("bob", &["dave"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        w.dismiss("alice", &["bob"]).await.unwrap();
        w.upstream.faults().release("add");
        assert_is!(adding.await.unwrap(), Err(Error::NotOwner | Error::NotUndone(_)));
        assert_eq!(w.members().contains(&"dave".to_owned()), !w.kind.tells_members());
    }

    async fn a_former_owner_that_is_manager_now_may_still_add(w) {
        managed(&w).await;
        w.fault(Rule::new(w.kind.add_path(), Fault::Hold("add".into())).containing("dave"));
        let other = w.replica().await;
        let adding = tokio::spawn(async move { other.add("alice", &["dave"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        // She is a manager then.
        w.transfer_ownership("alice", "bob").await.unwrap();
        w.upstream.faults().release("add");
        assert_eq!(adding.await.unwrap().unwrap(), 1);
        assert_eq!(w.members(), ["alice", "bob", "carol", "dave"]);
    }

    async fn a_removal_by_a_manager_is_undone_if_the_member_became_a_manager(w) {
        managed(&w).await;
        let path = w.kind.add_path().replace("add", "remove");
        w.fault(Rule::new(&path, Fault::Hold("out".into())).times(1));
        let other = w.replica().await;
        let removing = tokio::spawn(async move { other.remove("bob", &["carol", "eve"]).await });
        w.upstream.faults().wait_held("out", 1).await;
        w.name("alice", &["carol"]).await.unwrap();
        w.upstream.faults().release("out");
        let removed = removing.await.unwrap();
        if w.kind.tells_members() {
            assert_is!(removed, Err(Error::NotOwner));
            assert_eq!(w.members(), ["alice", "bob", "carol"], "and nobody who was not in");
        } else {
            assert_is!(removed, Err(Error::NotUndone(_)));
        }
        assert_eq!(w.managers().await, uids(&["bob", "carol"]));
    }

    async fn a_removal_by_the_owner_also_revokes_a_new_manager_role(w) {
        managed(&w).await;
        let path = w.kind.add_path().replace("add", "remove");
        w.fault(Rule::new(&path, Fault::Hold("out".into())).times(1));
        let other = w.replica().await;
        let removing = tokio::spawn(async move { other.remove("alice", &["carol"]).await });
        w.upstream.faults().wait_held("out", 1).await;
        w.name(ADMIN, &["carol"]).await.unwrap();
        w.upstream.faults().release("out");
        assert_eq!(removing.await.unwrap().unwrap(), 1);
        assert_eq!(w.members(), ["alice", "bob"]);
        assert_eq!(w.managers().await, uids(&["bob"]));
    }

    async fn a_former_owner_cannot_delete(w) {
        managed(&w).await;
        // Between his right and the mark there is only the store, so the mark itself must tell.
        let (alice, bob) = (uid("alice"), uid("bob"));
        w.transfer_ownership("alice", "bob").await.unwrap();
        assert!(!w.store.mark_deleted(&id(G), Some(&alice)).await.unwrap());
        assert_eq!(w.stage().await, Some(ChannelStage::Live));
        assert!(w.store.mark_deleted(&id(G), Some(&bob)).await.unwrap());
        assert!(!w.store.mark_deleted(&id(G), Some(&bob)).await.unwrap(), "it is marked");
        assert!(!w.store.mark_deleted(&id(G), None).await.unwrap());
        // What is marked is finished by whoever repeats it.
        w.delete("bob").await.unwrap();
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
    }

    async fn a_concurrent_transfer_and_delete_have_one_winner(w) {
        for n in 0..8 {
            let group = format!("g-{n}");
            w.create_of("alice", &group).await.unwrap();
            w.upstream.state().join(&group, "bob");
            let (channels, other, of) = (w.gateway.clone(), w.replica().await, group.clone());
            let deleting = tokio::spawn(async move { other.delete_of("alice", &of).await });
            let (alice, bob) = (uid("alice"), uid("bob"));
            let handed = channels.0.transfer_ownership(user(&alice), &id(&group), &bob, None, None).await;
            let deleted = deleting.await.unwrap();
            let record = w.store.channel(&id(&group)).await.unwrap().unwrap();
            match deleted {
                Ok(()) => assert!(record.is_owned_by(&alice) && record.is_deleted(), "{handed:?}"),
                Err(Error::NotOwner) => assert!(record.is_owned_by(&bob) && record.is_live()),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn a_transfer_fetches_the_member_list_once(w) {
        managed(&w).await;
        w.upstream.clear_calls();
        w.transfer_ownership("alice", "bob").await.unwrap();
        let lists = w.upstream.calls().into_iter().filter(|call| {
            call.method == "GET" && call.path.contains("/subscribers") && !call.path.contains("uid=")
        });
        assert!(lists.count() <= usize::from(w.kind == Kind::V2));
    }

    async fn an_invitation_fetches_the_member_list_once(w) {
        managed(&w).await;
        w.upstream.clear_calls();
        assert_eq!(w.inviting().add("carol", &["dave"]).await.unwrap(), 1);
        let lists = w.upstream.calls().into_iter();
        let lists = lists.filter(|call| call.method == "GET" && call.path.contains("/subscribers"));
        assert!(lists.count() <= 1);
    }

    async fn a_known_non_member_is_refused_without_a_lock(w) {
        managed(&w).await;
        w.listener.knows_as_outsider("mallory");
        w.listener.knows_as_outsider("alice");
        // The group's turn is taken all the while.
        w.fault(Rule::new(w.kind.add_path(), Fault::Hold("add".into())).times(1));
        let channels = w.gateway.clone();
        let adding = tokio::spawn(async move { channels.add("alice", &["dave"]).await });
        w.upstream.faults().wait_held("add", 1).await;
        w.upstream.clear_calls();
        assert_eq!(w.remove("mallory", &["mallory"]).await.unwrap(), 0);
        assert_is!(w.inviting().add("mallory", &["mallory"]).await, Err(Error::NotOwner));
        assert!(w.upstream.calls().is_empty());
        let (mallory, nowhere) = (uid("mallory"), id("nowhere"));
        let itself = std::slice::from_ref(&mallory);
        let left = w.gateway.0.remove(user(&mallory), &nowhere, itself);
        assert_is!(left.await, Err(Error::NotFound));
        w.upstream.faults().release("add");
        adding.await.unwrap().unwrap();
        assert_is!(w.remove("alice", &["alice"]).await, Err(Error::OwnerCannotLeave));
        assert_eq!(w.add("alice", &["erin"]).await.unwrap(), 1);
    }
}
