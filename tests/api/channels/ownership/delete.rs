//! Deleting: who may, in which order, and that it stays deleted.

use dev_upstream::{Fault, Rule};
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;

in_every_world! {
    async fn the_mark_comes_first_then_members_then_the_group(w) {
        w.create("alice").await.unwrap();
        w.add("alice", &["bob", "carol"]).await.unwrap();
        w.listener.take();
        w.upstream.clear_calls();
        w.fault(Rule::exact("/channel/subscriber_remove_all", Fault::Hold("empty".into())));
        let channels = w.gateway.clone();
        let deleting = tokio::spawn(async move { channels.delete("alice").await });
        w.upstream.faults().wait_held("empty", 1).await;
        assert_eq!(w.stage().await, Some(ChannelStage::Deleting));
        assert_eq!(w.listener.told(), [Told::Deleted(G.into()), Told::Changed(G.into())]);
        w.upstream.faults().release("empty");
        deleting.await.unwrap().unwrap();
        assert_eq!(w.listener.take().last(), Some(&Told::Changed(G.into())));
        assert_eq!(w.writes(), ["/channel/subscriber_remove_all", "/channel/delete"]);
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
        assert!(w.is_disbanded() && w.members().is_empty());
    }

    async fn a_deleted_group_is_not_found_by_any_user(w) {
        w.create("alice").await.unwrap();
        w.delete("alice").await.unwrap();
        w.upstream.clear_calls();
        for who in ["alice", "bob", ADMIN] {
            assert_is!(w.delete(who).await, Err(Error::NotFound));
            assert_is!(w.add(who, &["dave"]).await, Err(Error::NotFound));
            assert_is!(w.remove(who, &[who]).await, Err(Error::NotFound));
        }
        assert_is!(w.open_mode().delete("bob").await, Err(Error::NotFound));
        assert!(w.upstream.calls().is_empty());
        assert_eq!(w.owner().await, Some(uid("alice")));
    }

    async fn only_owner_and_admin_may(w) {
        w.create("alice").await.unwrap();
        w.add("alice", &["bob"]).await.unwrap();
        w.upstream.clear_calls();
        w.listener.take();
        for who in ["bob", "stranger"] {
            assert_is!(w.delete(who).await, Err(Error::NotOwner));
        }
        assert!(w.upstream.calls().is_empty() && w.listener.told().is_empty());
        assert_eq!(w.stage().await, Some(ChannelStage::Live));
        w.delete(ADMIN).await.unwrap();
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
    }

    async fn in_open_mode_every_user_is_permitted(w) {
        w.create("alice").await.unwrap();
        w.open_mode().delete("bob").await.unwrap();
        assert!(w.is_disbanded());
    }

    async fn an_unknown_id_is_not_found_and_nothing_is_written(w) {
        for who in ["alice", ADMIN] {
            assert_is!(w.delete(who).await, Err(Error::NotFound));
        }
        assert_is!(w.open_mode().delete("bob").await, Err(Error::NotFound));
        assert!(w.writes().is_empty() && w.listener.told().is_empty());
        assert_eq!(w.upstream.state().flags(2, G), None);
        assert_eq!(w.stage().await, None);
        w.create("alice").await.unwrap();
    }

    async fn only_an_admin_deletes_a_group_without_an_owner(w) {
        w.made_by_somebody_else("mallory").await;
        assert_is!(w.delete("mallory").await, Err(Error::NotOwner));
        assert!(w.writes().is_empty());
        assert_eq!(w.stage().await, None);
        w.delete(ADMIN).await.unwrap();
        assert_eq!((w.stage().await, w.owner().await), (Some(ChannelStage::Deleted), None));
        assert!(w.is_disbanded() && w.members().is_empty());
        assert_is!(w.delete(ADMIN).await, Err(Error::NotFound));
        assert_is!(w.create("mallory").await, Err(Error::Deleted));
    }

    async fn what_was_disbanded_past_the_gateway_is_not_found(w) {
        w.made_by_somebody_else("mallory").await;
        w.upstream.state().disband(G);
        assert_is!(w.delete("bob").await, Err(Error::NotFound));
        assert_is!(w.delete(ADMIN).await, Err(Error::NotFound));
    }

    async fn a_lost_group_is_deleted_in_the_store(w) {
        w.create("alice").await.unwrap();
        w.upstream.state().forget_channel(G);
        w.upstream.clear_calls();
        w.delete("alice").await.unwrap();
        assert!(w.writes().is_empty());
        assert_is!(w.create("alice").await, Err(Error::Deleted));
    }

    async fn a_group_banned_upstream_can_be_deleted(w) {
        w.create("alice").await.unwrap();
        w.upstream.state().ban_group(G, true);
        w.delete("alice").await.unwrap();
        assert!(w.is_disbanded());
    }
}
