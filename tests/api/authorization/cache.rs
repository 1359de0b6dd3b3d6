//! What is remembered of WuKongIM's lists, and what never outlives a change.

use std::time::Duration;

use dev_upstream::{Dialect, Fault, GROUP, Rule};

use super::{is_in, is_kept_out};
use crate::support::seeds;
use crate::support::{TestApp, V2, V3};

const SUBSCRIBERS: &str = "/cluster/channels/g/2/subscribers";

/// A gateway that believes an answer for so long.
async fn remembering(dialect: Dialect, cache_ttl: Duration) -> TestApp {
    TestApp::with(dialect, move |settings| {
        settings.authorization.cache_ttl = cache_ttl;
    })
    .await
}

/// What was asked of the lists and states; whose log a channel has is another matter.
fn looked_up(app: &TestApp) -> Vec<String> {
    let calls = app.calls_to("/cluster/channels").into_iter();
    let paths = calls.map(|call| call.path);
    paths.filter(|path| !path.contains("/config")).collect()
}

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn within_the_ttl_no_fact_is_fetched_twice() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["member"]).await;
    is_in(&app, "member").await;
    let mut asked = looked_up(&app);
    asked.sort();
    assert_eq!(
        asked,
        [
            "/cluster/channels/g/2/allowlist",
            "/cluster/channels/g/2/denylist",
            SUBSCRIBERS,
            "/cluster/channels?channel_id=g&channel_type=2",
            "/cluster/channels?channel_id=member&channel_type=1",
        ]
    );
    app.clear_calls();
    is_in(&app, "member").await;
    app.user("stranger")
        .send_to_group("g", "x")
        .await
        .fails(403, "not_a_member");
    assert_eq!(
        looked_up(&app),
        ["/cluster/channels?channel_id=stranger&channel_type=1"],
        "the group's lists are everybody's"
    );
    app.clear_calls();
    let member = app.user("member");
    member.send_to_person("owner", "x").await.ok();
    assert_eq!(looked_up(&app).len(), 1, "the peer's denylist");
    member.send_to_person("owner", "x").await.ok();
    member.sync(1, "owner", "").await.ok();
    assert_eq!(looked_up(&app).len(), 1);
}

#[tokio::test]
async fn no_list_is_fetched_from_v3() {
    for manager in [false, true] {
        let builder = TestApp::builder().upstream(V3);
        let builder = if manager {
            builder.manager_port()
        } else {
            builder
        };
        let app = builder.start().await;
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "member").await;
        app.user("member").send_to_person("owner", "x").await.ok();
        let paths = app.upstream.calls().into_iter().map(|call| call.path);
        let others: Vec<_> = paths
            .filter(|path| path != "/message/send" && path != "/channel/messagesync")
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

#[tokio::test]
async fn what_changed_past_the_gateway_shows_when_the_ttl_has_passed() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["member"]).await;
    is_in(&app, "member").await;
    app.state().leave("g", "member");
    is_in(&app, "member").await;

    for ttl in [Duration::ZERO, Duration::from_millis(1)] {
        let app = remembering(V2, ttl).await;
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "member").await;
        app.state().leave("g", "member");
        tokio::time::sleep(ttl * 2).await;
        is_kept_out(&app, "member", 403, "not_a_member").await;
        app.state().ban_user("owner", true);
        tokio::time::sleep(ttl * 2).await;
        is_kept_out(&app, "owner", 403, "forbidden").await;
    }
}

#[tokio::test]
async fn the_gateways_own_changes_show_at_once() {
    for dialect in [V2, V3] {
        let app = remembering(dialect, LONG).await;
        // Asked for before it is made.
        is_kept_out(&app, "owner", 404, "channel_not_found").await;
        let owner = app.user("owner");
        owner.create_group("g").await.ok();
        is_in(&app, "owner").await;
        is_kept_out(&app, "bob", 403, "not_a_member").await;
        owner.add("g", &["bob", "carol"]).await.ok();
        is_in(&app, "bob").await;
        is_in(&app, "carol").await;
        owner.remove("g", &["bob"]).await.ok();
        is_kept_out(&app, "bob", 403, "not_a_member").await;
        is_in(&app, "carol").await;
        app.user("carol").remove("g", &["carol"]).await.ok();
        is_kept_out(&app, "carol", 403, "not_a_member").await;
        owner.add("g", &["bob"]).await.ok();
        is_in(&app, "bob").await;
        owner.delete_group("g").await.ok();
        for uid in ["owner", "bob", "carol"] {
            is_kept_out(&app, uid, 404, "channel_not_found").await;
        }
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_fetch() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["member"]).await;
    app.faults()
        .always(SUBSCRIBERS, Fault::Hold("lists".into()));
    let member = app.user("member");
    let sends = (0..16).map(|_| member.send_to_group("g", "x"));
    let release = async {
        app.faults().wait_held("lists", 1).await;
        app.faults().release("lists");
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(sends), release);
    for answer in answers {
        answer.ok();
    }
    assert_eq!(app.calls_to(SUBSCRIBERS).len(), 1);
    assert_eq!(app.state().messages(GROUP, "g").len(), 16);
}

/// Lets `bob`'s look-up of the group's lists be under way, unprocessed or with its answer on the way, while `change` happens.
async fn while_bob_is_looked_up(app: &TestApp, fault: Fault, change: impl Future<Output = ()>) {
    let faults = app.faults();
    faults.add(Rule::new(SUBSCRIBERS, fault).times(1));
    let change = async {
        faults.wait_held("look", 1).await;
        change.await;
        faults.release("look");
    };
    let bob = app.user("bob");
    // Whatever this one gets: it was asked before the change.
    let (_before, ()) = tokio::join!(bob.send_to_group("g", "x"), change);
    faults.clear();
}

fn both_holds() -> [Fault; 2] {
    [Fault::Hold("look".into()), Fault::HoldAnswer("look".into())]
}

#[tokio::test]
async fn a_removal_during_a_lookup_is_never_lost() {
    for fault in both_holds() {
        let app = remembering(V2, LONG).await;
        app.group("g", "owner", &["bob"]).await;
        let removal = async {
            app.user("owner").remove("g", &["bob"]).await.ok();
        };
        while_bob_is_looked_up(&app, fault, removal).await;
        is_kept_out(&app, "bob", 403, "not_a_member").await;
        is_in(&app, "owner").await;
    }
}

#[tokio::test]
async fn a_request_after_a_removal_does_not_join_the_earlier_lookup() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["bob"]).await;
    let removal = async {
        app.user("owner").remove("g", &["bob"]).await.ok();
        // The answer that still names bob is on its way.
        is_kept_out(&app, "bob", 403, "not_a_member").await;
    };
    while_bob_is_looked_up(&app, Fault::HoldAnswer("look".into()), removal).await;
    is_kept_out(&app, "bob", 403, "not_a_member").await;
}

#[tokio::test]
async fn an_add_during_a_lookup_takes_effect_at_once() {
    for fault in both_holds() {
        let app = remembering(V2, LONG).await;
        app.group("g", "owner", &[]).await;
        let add = async {
            app.user("owner").add("g", &["bob"]).await.ok();
        };
        while_bob_is_looked_up(&app, fault, add).await;
        is_in(&app, "bob").await;
    }
}

#[tokio::test]
async fn a_delete_during_a_lookup_is_never_lost() {
    for fault in both_holds() {
        let app = remembering(V2, LONG).await;
        app.group("g", "owner", &["bob"]).await;
        let delete = async {
            app.user("owner").delete_group("g").await.ok();
        };
        while_bob_is_looked_up(&app, fault, delete).await;
        for uid in ["bob", "owner"] {
            is_kept_out(&app, uid, 404, "channel_not_found").await;
        }
    }
}

#[tokio::test]
async fn a_lookup_during_a_removal_is_not_cached() {
    for fault in both_holds() {
        let app = remembering(V2, LONG).await;
        app.group("g", "owner", &["bob"]).await;
        let faults = app.faults();
        faults.add(Rule::new("/channel/subscriber_remove", fault).times(1));
        let owner = app.user("owner");
        let meanwhile = async {
            faults.wait_held("look", 1).await;
            // Before WuKongIM has processed the removal he is a member, after that he is none; both are true.
            let _either = app.user("bob").send_to_group("g", "x").await;
            faults.release("look");
        };
        let (removed, ()) = tokio::join!(owner.remove("g", &["bob"]), meanwhile);
        removed.ok();
        is_kept_out(&app, "bob", 403, "not_a_member").await;
    }
}

#[tokio::test]
async fn a_removal_whose_answer_is_lost_still_empties_the_cache() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["bob"]).await;
    is_in(&app, "bob").await;
    app.faults()
        .once("/channel/subscriber_remove", Fault::ResetAfter);
    app.user("owner").remove("g", &["bob"]).await.ok();
    assert_eq!(app.state().members("g"), ["owner"]);
    is_kept_out(&app, "bob", 403, "not_a_member").await;
}

#[tokio::test]
async fn groups_larger_than_the_cache_are_looked_up_each_time() {
    let app = TestApp::with(V2, |settings| {
        settings.authorization.cache_ttl = LONG;
        settings.authorization.cache_members = 400;
    })
    .await;
    let users: Vec<String> = (0..1000).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    seeds::group(&app, "g", &users);
    for _ in 0..2 {
        app.clear_calls();
        is_in(&app, "u7").await;
        assert_eq!(
            app.calls_to(SUBSCRIBERS).len(),
            2,
            "for the send and for the sync"
        );
        is_kept_out(&app, "nobody", 403, "not_a_member").await;
    }
}
