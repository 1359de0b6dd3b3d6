//! Managers, hand-over, adoption: who may, what becomes of whom, and what other replicas overtake.

use dev_upstream::{Fault, Rule};
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;

/// A group of alice's with these managers, all of them subscribers, and bob.
async fn managed(w: &World, managers: &[&str]) {
    w.create("alice").await.unwrap();
    w.add("alice", &[&["bob"], managers].concat())
        .await
        .unwrap();
    if !managers.is_empty() {
        w.name("alice", managers).await.unwrap();
    }
    w.upstream.clear_calls();
}

in_every_world! {
    async fn managers_are_named_and_dismissed_by_owner_and_admin_alone(w) {
        managed(&w, &[]).await;
        for who in ["bob", "stranger"] {
            assert_is!(w.name(who, &["bob"]).await, Err(Error::NotOwner));
            assert_is!(w.dismiss(who, &["bob"]).await, Err(Error::NotOwner));
        }
        assert_eq!(w.name("alice", &["bob", "carol"]).await.unwrap(), 2);
        assert_eq!(w.name("alice", &["carol", "dave", "alice"]).await.unwrap(), 1, "the owner needs no naming");
        assert_eq!(w.name(ADMIN, &["carol"]).await.unwrap(), 0);
        assert_eq!(w.managers().await, uids(&["bob", "carol", "dave"]));
        assert_is!(w.name("bob", &["eve"]).await, Err(Error::NotOwner));
        assert_is!(w.dismiss("bob", &["carol"]).await, Err(Error::NotOwner));
        assert_eq!(w.dismiss(ADMIN, &["carol", "eve", "alice"]).await.unwrap(), 1);
        assert_eq!(w.dismiss("alice", &["bob"]).await.unwrap(), 1);
        assert_eq!(w.managers().await, uids(&["dave"]));
        assert!(w.upstream.calls().is_empty(), "all of it is the store's");
    }

    async fn managers_are_at_most_as_many_as_members(w) {
        managed(&w, &[]).await;
        let six = ["a", "b", "c", "d", "e", "f"];
        assert_is!(w.name("alice", &six).await, Err(Error::Full));
        assert_eq!(w.managers().await, []);
        assert_eq!(w.name("alice", &six[..GROUP_MEMBERS]).await.unwrap(), 5);
    }

    async fn a_manager_adds_and_removes_subscribers_but_neither_peers_nor_the_owner(w) {
        managed(&w, &["m1", "m2"]).await;
        assert_eq!(w.add("m1", &["carol"]).await.unwrap(), 1);
        assert_eq!(w.remove("m1", &["carol"]).await.unwrap(), 1);
        w.upstream.clear_calls();
        assert_is!(w.remove("m1", &["m2"]).await, Err(Error::NotOwner));
        assert_is!(w.remove("m1", &["bob", "m2"]).await, Err(Error::NotOwner));
        assert_is!(w.remove("m1", &["bob", "alice"]).await, Err(Error::OwnerCannotLeave));
        assert_is!(w.delete("m1").await, Err(Error::NotOwner));
        assert_is!(w.transfer_ownership("m1", "bob").await, Err(Error::NotOwner));
        assert_is!(w.transfer_ownership("m1", "m1").await, Err(Error::NotOwner));
        assert_is!(w.create("m1").await, Err(Error::Exists));
        assert!(w.writes().is_empty());
        assert_eq!(w.members(), ["alice", "bob", "m1", "m2"]);
    }

    async fn a_removed_member_loses_the_manager_role(w) {
        managed(&w, &["m1", "m2"]).await;
        assert_eq!(w.remove("alice", &["m1"]).await.unwrap(), 1);
        assert_is!(w.add("m1", &["m1"]).await, Err(Error::NotOwner));
        assert_eq!(w.remove("m2", &["m2"]).await.unwrap(), 1, "he leaves");
        assert_is!(w.add("m2", &["m2"]).await, Err(Error::NotOwner));
        assert_eq!(w.managers().await, []);
        w.add("alice", &["m1"]).await.unwrap();
        assert_is!(w.add("m1", &["eve"]).await, Err(Error::NotOwner));
    }

    async fn a_removal_that_failed_upstream_has_taken_the_role_already(w) {
        managed(&w, &["m1"]).await;
        let path = w.kind.add_path().replace("add", "remove");
        w.fault(Rule::new(&path, Fault::Status(500, "{}".into())).times(1));
        assert_is!(w.remove("alice", &["m1"]).await, Err(Error::Upstream(_)));
        assert_eq!(w.managers().await, []);
        assert_eq!(w.remove("alice", &["m1"]).await.unwrap(), 1);
        w.database.refuse("UPDATE", None).await;
        w.add("alice", &["carol"]).await.unwrap();
        assert_eq!(w.remove("alice", &["carol"]).await.unwrap(), 1, "no manager, no write");
    }

    async fn a_group_is_handed_over_to_a_subscriber(w) {
        managed(&w, &["m1"]).await;
        for who in ["bob", "stranger"] {
            assert_is!(w.transfer_ownership(who, "bob").await, Err(Error::NotOwner));
        }
        assert_is!(w.transfer_ownership("alice", "stranger").await, Err(Error::NotAMember));
        assert_eq!(w.owner().await, Some(uid("alice")));
        let record = w.transfer_ownership("alice", "bob").await.unwrap();
        assert!(record.is_owned_by(&uid("bob")));
        assert_eq!(record.managers, uids(&["m1", "alice"]));
        // The former owner's repeat finds it done; he may no more than a manager may.
        assert_eq!(w.transfer_ownership("alice", "bob").await.unwrap(), record);
        assert_is!(w.transfer_ownership("alice", "m1").await, Err(Error::NotOwner));
        assert_is!(w.delete("alice").await, Err(Error::NotOwner));
        assert_is!(w.create("alice").await, Err(Error::Exists));
        assert_eq!(w.add("alice", &["carol"]).await.unwrap(), 1);
        assert_is!(w.remove("alice", &["bob"]).await, Err(Error::OwnerCannotLeave));
        // A manager who becomes the owner is a manager no more; an owner who gets his own stays what he is.
        let record = w.transfer_ownership(ADMIN, "m1").await.unwrap();
        assert_eq!(record.managers, uids(&["alice", "bob"]));
        assert_eq!(w.transfer_ownership("m1", "m1").await.unwrap(), record);
        assert!(w.create("m1").await.unwrap().is_owned_by(&uid("m1")), "his to repeat now");
        assert_eq!(w.remove("alice", &["alice"]).await.unwrap(), 1, "who hands over may leave");
    }

    async fn an_admin_adopts_what_wukongim_has_and_the_store_has_not(w) {
        w.made_by_somebody_else("mallory").await;
        w.upstream.state().join(G, "bob");
        for who in ["mallory", "bob", "stranger"] {
            assert_is!(w.transfer_ownership(who, "mallory").await, Err(Error::NotOwner));
        }
        assert_is!(w.transfer_ownership(ADMIN, "stranger").await, Err(Error::NotAMember));
        assert_eq!(w.stage().await, None);
        let root = uid(ADMIN);
        let (name, avatar) = (Some("old".into()), Some("http://a".into()));
        let adopted = w.gateway.0.transfer_ownership(user(&root), &id(G), &uid("bob"), name, avatar).await.unwrap();
        assert!(adopted.is_live() && adopted.is_owned_by(&uid("bob")));
        assert_eq!((adopted.name.as_deref(), adopted.avatar.as_deref()), (Some("old"), Some("http://a")));
        assert_eq!(adopted.managers, []);
        // v2 is told once more that he is in, rather than asked for the whole list.
        let told = if w.kind == Kind::V2 { vec![w.kind.add_path()] } else { vec![] };
        assert_eq!(w.writes(), told);
        assert_eq!(w.members(), ["bob", "mallory"], "nothing changes upstream");
        assert_eq!(w.add("bob", &["carol"]).await.unwrap(), 1);
        assert_is!(w.remove(ADMIN, &["bob"]).await, Err(Error::OwnerCannotLeave));
        assert_is!(w.add("mallory", &["eve"]).await, Err(Error::NotOwner));
    }

    async fn an_admin_that_adds_managers_adopts_the_group_without_an_owner(w) {
        w.made_by_somebody_else("mallory").await;
        for who in ["mallory", "stranger"] {
            assert_is!(w.name(who, &["m1"]).await, Err(Error::NotOwner));
        }
        assert_eq!(w.stage().await, None);
        assert_eq!(w.name(ADMIN, &["m1", "mallory"]).await.unwrap(), 2);
        assert_eq!((w.owner().await, w.managers().await), (None, uids(&["m1", "mallory"])));
        assert!(w.writes().is_empty(), "nothing changes upstream");
        assert_eq!(w.name(ADMIN, &["m1"]).await.unwrap(), 0);
        assert_eq!(w.add("m1", &["bob"]).await.unwrap(), 1);
        assert_is!(w.create("m1").await, Err(Error::Exists));
        // The role goes with the membership, owner or none.
        assert_eq!(w.remove("mallory", &["mallory"]).await.unwrap(), 1);
        assert_eq!(w.managers().await, uids(&["m1"]));
        let record = w.transfer_ownership(ADMIN, "bob").await.unwrap();
        assert!(record.is_owned_by(&uid("bob")));
        assert_eq!(record.managers, uids(&["m1"]));
        w.delete("bob").await.unwrap();
    }

    async fn what_is_not_there_is_not_adopted(w) {
        assert_is!(w.transfer_ownership(ADMIN, "bob").await, Err(Error::NotFound));
        w.made_by_somebody_else("bob").await;
        w.upstream.state().disband(G);
        assert_is!(w.transfer_ownership(ADMIN, "bob").await, Err(Error::NotFound));
        assert_eq!(w.stage().await, None);
        w.delete(ADMIN).await.unwrap_err();
        w.upstream.state().forget_channel(G);
        w.create("alice").await.unwrap();
        w.delete("alice").await.unwrap();
        assert_is!(w.transfer_ownership(ADMIN, "alice").await, Err(Error::NotFound));
        assert_is!(w.name(ADMIN, &["alice"]).await, Err(Error::NotFound));
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
    }

    async fn a_claim_that_came_to_nothing_does_not_hinder_adoption(w) {
        w.fault(Rule::exact("/channel", Fault::Status(500, "{}".into())).times(1));
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        assert_is!(w.transfer_ownership(ADMIN, "alice").await, Err(Error::NotFound));
        w.made_by_somebody_else("mallory").await;
        assert!(w.transfer_ownership(ADMIN, "mallory").await.unwrap().is_live());
        assert_is!(w.create("alice").await, Err(Error::Exists));
        assert_is!(w.add("alice", &["eve"]).await, Err(Error::NotOwner));
    }

    async fn with_members_may_invite_subscribers_add_and_do_nothing_else(w) {
        managed(&w, &[]).await;
        let inviting = w.inviting();
        assert_is!(inviting.add("stranger", &["stranger"]).await, Err(Error::NotOwner));
        assert_eq!(inviting.add("bob", &["carol"]).await.unwrap(), 1);
        assert_is!(inviting.remove("bob", &["carol"]).await, Err(Error::NotOwner));
        assert_is!(w.add("bob", &["dave"]).await, Err(Error::NotOwner));
        inviting.remove("bob", &["bob"]).await.unwrap();
        assert_is!(inviting.add("bob", &["dave"]).await, Err(Error::NotOwner));
        assert_eq!(w.members(), ["alice", "carol"]);
    }

    async fn in_open_mode_all_users_add_managers_and_transfer_ownership(w) {
        managed(&w, &[]).await;
        let (open, who, bob) = (w.open_mode(), uid("stranger"), uids(&["bob"]));
        assert_eq!(open.add_managers(user(&who), &id(G), &bob).await.unwrap(), 1);
        assert_eq!(open.remove_managers(user(&who), &id(G), &bob).await.unwrap(), 1);
        assert!(open.transfer_ownership("stranger", "bob").await.unwrap().is_owned_by(&bob[0]));
    }

    async fn the_record_of_an_existing_group_is_returned(w) {
        assert_is!(w.info(&id(G)).await, Err(Error::NotFound));
        w.made_by_somebody_else("mallory").await;
        assert_eq!(w.info(&id(G)).await.unwrap(), None);
        w.transfer_ownership(ADMIN, "mallory").await.unwrap();
        let told = w.info(&id(G)).await.unwrap();
        assert_eq!(told, w.store.channel(&id(G)).await.unwrap());
        w.delete(ADMIN).await.unwrap();
        assert_is!(w.info(&id(G)).await, Err(Error::NotFound));
    }

    async fn concurrent_transfers_leave_one_owner_and_the_others_as_managers(w) {
        managed(&w, &["u1", "u2"]).await;
        let replicas = [w.gateway.clone(), w.replica().await];
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..12 {
            let channels = replicas[n % 2].clone();
            let to = ["alice", "bob", "u1", "u2"][n % 4];
            calls.spawn(async move { channels.transfer_ownership(ADMIN, to).await.unwrap() });
        }
        calls.join_all().await;
        let mut all = w.managers().await;
        all.extend(w.owner().await);
        all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        assert_eq!(all, uids(&["alice", "bob", "u1", "u2"]), "nobody is lost, nobody is both");
    }

    async fn managers_named_on_two_replicas_are_all_named(w) {
        managed(&w, &[]).await;
        let replicas = [w.gateway.clone(), w.replica().await];
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..GROUP_MEMBERS {
            let channels = replicas[n % 2].clone();
            calls.spawn(async move {
                let whom = uids(&[&format!("m{n}")]);
                channels.add_managers(user(&uid("alice")), &id(G), &whom).await.unwrap()
            });
        }
        assert_eq!(calls.join_all().await, [1; GROUP_MEMBERS]);
        assert_eq!(w.managers().await.len(), GROUP_MEMBERS);
    }

    async fn a_new_owner_removed_during_the_transfer_is_added_again(w) {
        managed(&w, &[]).await;
        let path = w.kind.add_path().replace("add", "remove");
        w.fault(Rule::new(&path, Fault::Hold("out".into())).times(1));
        let other = w.replica().await;
        let removing = tokio::spawn(async move { other.remove("alice", &["bob"]).await });
        w.upstream.faults().wait_held("out", 1).await;
        w.transfer_ownership("alice", "bob").await.unwrap();
        w.upstream.faults().release("out");
        assert_is!(removing.await.unwrap(), Err(Error::OwnerCannotLeave));
        assert_eq!(w.members(), ["alice", "bob"]);
        assert_eq!(w.owner().await, Some(uid("bob")));
    }
}
