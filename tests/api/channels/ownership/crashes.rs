//! Every step fails once, before or after it was carried out; a retry completes the operation and no other user gains access.

use wukongim_gateway::channels::Error;
use wukongim_gateway::store::ChannelStage;

use super::*;
use crate::support::prelude::*;

fn failures() -> Vec<Fault> {
    vec![
        Fault::Status(500, r#"{"msg":"no","status":500}"#.into()),
        Fault::Status(400, r#"{"msg":"no","status":400}"#.into()),
        Fault::Garbage,
        Fault::Reset,
        Fault::ResetAfter,
        Fault::HalfAnswer,
        Fault::Hang,
    ]
}

/// Lets the client see the upstream again after a reset.
async fn until_served<T>(call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..50 {
        match call().await {
            Err(Error::Upstream(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            result => return result,
        }
    }
    panic!("the upstream never came back");
}

#[tokio::test]
async fn a_create_whose_write_failed_is_finished_by_its_owner_alone() {
    for (kind, database) in worlds() {
        for failure in failures() {
            println!("{kind:?} {database:?} {failure:?}");
            let w = World::start_on(kind, database).await;
            w.fault(Rule::exact("/channel", failure).times(1));
            let first = w.create_named("alice", Some("first"), None).await;
            assert_is!(first, Err(Error::Upstream(_)));
            assert_eq!(w.stage().await, Some(ChannelStage::Creating));
            for who in ["bob", ADMIN] {
                assert_is!(w.create(who).await, Err(Error::Exists));
                assert_is!(
                    until_served(async || w.add(who, &["eve"]).await).await,
                    Err(Error::NotFound)
                );
            }
            let record = until_served(async || w.create("alice").await)
                .await
                .unwrap();
            assert!(record.is_live());
            assert_eq!(
                record.name.as_deref(),
                Some("first"),
                "what the first call gave"
            );
            assert_eq!(w.members(), ["alice"]);
            assert_is!(w.create("bob").await, Err(Error::Exists));
            assert_eq!(w.owner().await, Some(uid("alice")));
        }
    }
}

#[tokio::test]
async fn a_create_whose_check_failed_has_done_nothing() {
    for (kind, database) in worlds() {
        for failure in failures() {
            println!("{kind:?} {database:?} {failure:?}");
            let w = World::start_on(kind, database).await;
            w.client.generation().await.unwrap();
            // A look whose connection breaks is made once more.
            w.fault(Rule::new(w.kind.look_path(), failure).times(2));
            assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
            w.upstream.faults().clear();
            assert_eq!(w.stage().await, None);
            assert!(w.writes().is_empty());
            until_served(async || w.create("alice").await)
                .await
                .unwrap();
        }
    }
}

in_every_world! {
    async fn a_create_that_the_store_failed_is_finished_by_its_owner(w) {
        w.database.refuse("INSERT", None).await;
        assert_is!(w.create("alice").await, Err(Error::Store(_)));
        assert!(w.writes().is_empty(), "no claim, no write");
        w.database.allow().await;
        w.database.refuse("UPDATE", None).await;
        for _ in 0..2 {
            assert_is!(w.create("alice").await, Err(Error::Store(_)));
            assert_eq!(w.stage().await, Some(ChannelStage::Creating));
            assert_is!(w.create("bob").await, Err(Error::Exists));
        }
        w.database.allow().await;
        assert!(w.create("alice").await.unwrap().is_live());
        assert_eq!(w.members(), ["alice"]);
        assert_eq!(w.writes(), ["/channel"], "what was made is recognised");
    }

    async fn a_claim_gives_no_right_to_another_users_group(w) {
        w.fault(Rule::exact("/channel", Fault::Status(500, "{}".into())).times(1));
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        w.made_by_somebody_else("mallory").await;
        assert_is!(w.create("alice").await, Err(Error::Exists));
        assert_is!(w.add("alice", &["eve"]).await, Err(Error::NotOwner));
        assert_is!(w.delete("alice").await, Err(Error::NotOwner));
        assert_is!(w.create("bob").await, Err(Error::Exists));
        assert!(w.writes().is_empty());
        assert_eq!(w.members(), ["mallory"]);
        assert_eq!(w.add(ADMIN, &["bob"]).await.unwrap(), 1, "nobody's, so an admin's");
        w.delete(ADMIN).await.unwrap();
        assert!(w.is_disbanded());
        assert_is!(w.create("alice").await, Err(Error::Deleted));
    }

    async fn a_half_made_group_can_be_deleted_by_its_owner(w) {
        w.fault(Rule::exact("/channel", Fault::ResetAfter).times(1));
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        assert_is!(until_served(async || w.delete("bob").await).await, Err(Error::NotOwner));
        until_served(async || w.delete("alice").await).await.unwrap();
        assert!(w.is_disbanded() && w.members().is_empty());
        assert_is!(w.create("alice").await, Err(Error::Deleted));
    }

    async fn a_claim_without_anything_upstream_can_be_deleted_by_its_owner(w) {
        w.fault(Rule::exact("/channel", Fault::Status(500, "{}".into())).times(1));
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        assert_is!(w.delete("bob").await, Err(Error::NotFound));
        w.delete("alice").await.unwrap();
        assert!(w.upstream.state().flags(2, G).is_none());
        assert_is!(w.create("bob").await, Err(Error::Deleted));
    }

    async fn a_delete_that_the_store_failed_is_finished_by_repeating_it(w) {
        w.create("alice").await.unwrap();
        w.database.refuse("UPDATE", None).await;
        w.upstream.clear_calls();
        assert_is!(w.delete("alice").await, Err(Error::Store(_)));
        assert!(w.writes().is_empty(), "no mark, no write");
        assert_eq!(w.members(), ["alice"]);
        w.database.allow().await;
        w.database.refuse("UPDATE", Some("NEW.stage = 'deleted'")).await;
        assert_is!(w.delete("alice").await, Err(Error::Store(_)));
        assert_eq!(w.stage().await, Some(ChannelStage::Deleting));
        assert!(w.is_disbanded());
        w.database.allow().await;
        w.delete("alice").await.unwrap();
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
        assert_is!(w.delete("alice").await, Err(Error::NotFound));
    }

    async fn an_operation_whose_client_hung_up_is_finished(w) {
        w.fault(Rule::exact("/channel", Fault::Hold("made".into())));
        let caller = tokio::spawn({
            let channels = w.gateway.clone();
            async move { channels.create("alice").await }
        });
        w.upstream.faults().wait_held("made", 1).await;
        caller.abort();
        w.upstream.faults().release("made");
        // Waits for its turn, so that the first one has ended by then.
        assert_is!(w.create("bob").await, Err(Error::Exists));
        assert_eq!(w.stage().await, Some(ChannelStage::Live));
        assert_eq!(w.listener.take(), [Told::Changed(G.into()), Told::Changed(G.into())]);
    }

    async fn a_failed_change_of_members_is_reported_too(w) {
        w.create("alice").await.unwrap();
        w.listener.take();
        w.fault(Rule::new(w.kind.add_path(), Fault::HalfAnswer).times(1));
        assert_is!(w.add("alice", &["bob"]).await, Err(Error::Upstream(_)));
        assert_eq!(w.listener.take(), [Told::Changed(G.into()), Told::Changed(G.into())]);
        let again = until_served(async || w.add("alice", &["bob"]).await).await.unwrap();
        assert_eq!(again, u64::from(!w.kind.tells_members()), "it had been carried out");
    }
}

#[tokio::test]
async fn a_delete_that_failed_upstream_is_finished_by_repeating_it() {
    for (kind, database) in worlds() {
        for path in ["/channel/subscriber_remove_all", "/channel/delete"] {
            // What only takes long is waited for.
            let failures = failures().into_iter().filter(|fault| *fault != Fault::Hang);
            for failure in failures {
                println!("{kind:?} {database:?} {path} {failure:?}");
                let w = World::start_on(kind, database).await;
                w.create("alice").await.unwrap();
                w.add("alice", &["bob"]).await.unwrap();
                w.fault(Rule::exact(path, failure).times(1));
                assert_is!(w.delete("alice").await, Err(Error::Upstream(_)));
                assert_eq!(w.stage().await, Some(ChannelStage::Deleting));
                assert_is!(w.delete("bob").await, Err(Error::NotFound));
                assert_is!(w.add("alice", &["eve"]).await, Err(Error::NotFound));
                assert_is!(w.create("alice").await, Err(Error::Deleted));
                let finisher = if path == "/channel/delete" {
                    ADMIN
                } else {
                    "alice"
                };
                until_served(async || w.delete(finisher).await)
                    .await
                    .unwrap();
                assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
                assert!(w.is_disbanded() && w.members().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_delete_whose_check_failed_is_completed_by_a_retry() {
    for (kind, database) in worlds() {
        let w = World::start_on(kind, database).await;
        w.create("alice").await.unwrap();
        w.fault(Rule::new(kind.look_path(), Fault::Reset).times(2));
        assert_is!(w.delete("alice").await, Err(Error::Upstream(_)));
        w.upstream.faults().clear();
        assert_eq!(w.stage().await, Some(ChannelStage::Deleting));
        until_served(async || w.delete("alice").await)
            .await
            .unwrap();
        assert!(w.is_disbanded());
    }
}

/// A v2 node that dies between its two writes leaves a record without members, or members without a record.
#[tokio::test]
async fn half_a_group_of_v2_is_completed() {
    for (record, member) in [(true, false), (false, true)] {
        let w = World::start(Kind::V2).await;
        w.fault(Rule::exact("/channel", Fault::Status(500, "{}".into())).times(1));
        assert_is!(w.create("alice").await, Err(Error::Upstream(_)));
        if record {
            w.upstream.state().ban_group(G, false);
        }
        if member {
            w.upstream.state().join(G, "alice");
        }
        assert!(w.create("alice").await.unwrap().is_live());
        assert_eq!(w.members(), ["alice"]);
        assert!(w.upstream.state().flags(2, G).is_some());
    }
}
