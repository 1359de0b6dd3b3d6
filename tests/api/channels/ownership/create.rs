//! Creating and repeating it; who else may not.

use dev_upstream::PERSON;
use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;

/// Has the hash of the pair's stored id on v2.
const TWIN: &str = "xbdZAqbat_QtXO";
const PAIR: &str = "hc-bob@hc-alice";

in_every_world! {
    async fn a_created_group_has_its_owner_as_first_subscriber(w) {
        let record = w.create_named("alice", Some("群"), None).await.unwrap();
        assert!(record.is_live() && record.is_owned_by(&uid("alice")));
        assert_eq!((record.name.as_deref(), record.avatar.as_deref()), (Some("群"), None));
        assert_eq!(w.store.channel(&id(G)).await.unwrap(), Some(record));
        assert_eq!(w.members(), ["alice"]);
        assert_eq!(w.writes(), ["/channel"]);
        // Around the change upstream, and after the name was written.
        assert_eq!(w.listener.told(), [(); 3].map(|()| Told::Changed(G.into())));
    }

    async fn the_owner_repeats_it_and_only_the_store_is_written(w) {
        let first = w.create_named("alice", Some("one"), Some("http://a")).await.unwrap();
        w.upstream.state().ban_group(G, true);
        w.upstream.clear_calls();
        let again = w.create_named("alice", None, Some("http://b")).await.unwrap();
        assert_eq!((again.name.as_deref(), again.avatar.as_deref()), (Some("one"), Some("http://b")));
        assert_eq!(again.created_at_ms, first.created_at_ms);
        assert_eq!(w.create("alice").await.unwrap(), again);
        assert!(w.writes().is_empty());
        assert!(w.upstream.state().flags(2, G).unwrap().ban, "flags upstream stay");
    }

    async fn another_user_gets_channel_exists(w) {
        w.create_named("alice", Some("hers"), None).await.unwrap();
        w.upstream.clear_calls();
        assert_is!(w.create_named("bob", Some("his"), None).await, Err(Error::Exists));
        assert_is!(w.create(ADMIN).await, Err(Error::Exists));
        assert_is!(w.open_mode().create("bob").await, Err(Error::Exists));
        let record = w.store.channel(&id(G)).await.unwrap().unwrap();
        assert!(record.is_owned_by(&uid("alice")));
        assert_eq!(record.name.as_deref(), Some("hers"));
        assert!(w.writes().is_empty());
        assert_eq!(w.members(), ["alice"]);
    }

    async fn what_lies_upstream_cannot_be_taken_over(w) {
        w.made_by_somebody_else("mallory").await;
        for who in ["alice", "mallory", ADMIN] {
            assert_is!(w.create(who).await, Err(Error::Exists));
        }
        assert_eq!(w.stage().await, None, "a foreign id gets no record");
        assert!(w.writes().is_empty());
        assert_eq!(w.members(), ["mallory"]);
        assert!(w.listener.told().is_empty());
    }

    async fn a_disbanded_group_of_nobodys_cannot_be_revived(w) {
        w.made_by_somebody_else("mallory").await;
        w.upstream.state().disband(G);
        assert_is!(w.create("alice").await, Err(Error::Exists));
        assert!(w.is_disbanded() && w.writes().is_empty());
    }

    async fn a_lost_group_is_made_again_with_its_owner(w) {
        w.create_named("alice", Some("n"), None).await.unwrap();
        w.add("alice", &["bob"]).await.unwrap();
        w.upstream.state().forget_channel(G);
        assert_is!(w.create("bob").await, Err(Error::Exists));
        let record = w.create("alice").await.unwrap();
        assert_eq!(record.name.as_deref(), Some("n"));
        assert_eq!(w.members(), ["alice"]);
    }

    async fn a_deleted_id_is_never_used_again(w) {
        w.create("alice").await.unwrap();
        w.delete("alice").await.unwrap();
        w.upstream.state().forget_channel(G);
        w.upstream.clear_calls();
        for who in ["alice", "bob", ADMIN] {
            assert_is!(w.create(who).await, Err(Error::Deleted));
            assert_is!(w.open_mode().create(who).await, Err(Error::Deleted));
        }
        assert!(w.upstream.calls().is_empty());
    }

    async fn ids_differ_byte_for_byte(w) {
        for (who, group) in [("alice", "Grüppe"), ("bob", "grüppe"), ("carol", "gruppe")] {
            w.create_of(who, group).await.unwrap();
        }
        assert_is!(w.create_of("bob", "Grüppe").await, Err(Error::Exists));
    }

    async fn an_upstream_that_is_down_leaves_no_record(w) {
        w.upstream.stop().await;
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        assert_eq!(w.stage().await, None);
        w.upstream.restart().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        while w.create("alice").await.is_err() {
            // The client rests a node that refused it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(w.stage().await, Some(ChannelStage::Live));
    }

    async fn the_request_id_goes_along(w) {
        let request_id = http::HeaderValue::from_static("req-7");
        wukongim_gateway::context::with_request_id(request_id, w.create("alice")).await.unwrap();
        let made = w.upstream.calls_to("/channel");
        assert_eq!(made[0].request_id.as_deref(), Some("req-7"));
    }
}

#[tokio::test]
async fn a_group_cannot_be_created_over_a_pairs_history() {
    let w = World::start(Kind::V2).await;
    w.upstream.state().store_message(pair_message());
    assert_is!(w.create_of("mallory", TWIN).await, Err(Error::Exists));
    assert_eq!(w.store.channel(&id(TWIN)).await.unwrap(), None);
    assert!(w.writes().is_empty());
}

#[tokio::test]
async fn a_lost_group_with_the_same_hash_as_another_is_not_created_again() {
    let w = World::start(Kind::V2).await;
    w.create_of("alice", TWIN).await.unwrap();
    w.upstream.state().forget_channel(TWIN);
    // Puts a record under the pair's id, which has the same hash.
    w.upstream.state().ban_user(PAIR, false);
    w.upstream.clear_calls();
    assert_is!(w.create_of("alice", TWIN).await, Err(Error::Exists));
    let (alice, bob) = (uid("alice"), uids(&["bob"]));
    let added = w.gateway.0.add(user(&alice), &id(TWIN), &bob).await;
    assert_is!(added, Err(Error::NotFound));
    let removed = w.gateway.0.remove(user(&alice), &id(TWIN), &bob).await;
    assert_is!(removed, Err(Error::NotFound));
    w.delete_of("alice", TWIN).await.unwrap();
    assert!(w.writes().is_empty(), "the other one was left alone");
    let flags = w.upstream.state().flags(PERSON, PAIR);
    assert_eq!(flags.map(|flags| flags.disband), Some(false));
    assert_is!(w.create_of("alice", TWIN).await, Err(Error::Deleted));
}

fn pair_message() -> dev_upstream::StoredMessage {
    dev_upstream::StoredMessage {
        channel_id: PAIR.into(),
        channel_type: PERSON,
        from_uid: "hc-alice".into(),
        payload: b"private".to_vec(),
        ..Default::default()
    }
}
