//! What is remembered of WuKongIM's lists, and what never outlives a change.

use wukongim_gateway::config::Mode;
use wukongim_gateway::domain::ChannelId;

use super::{is_in, is_kept_out, looked_up};
use crate::support::prelude::*;

const SUBSCRIBERS: &str = "/cluster/channels/g/2/subscribers";

/// A gateway that believes an answer for so long.
async fn remembering(dialect: Dialect, cache_ttl: Duration) -> TestApp {
    TestApp::with(dialect, move |settings| {
        settings.authorization.cache_ttl = cache_ttl;
    })
    .await
}

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn within_the_ttl_no_fact_is_fetched_twice() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["member"]).await;
    is_in(&app, "member").await;
    assert_eq!(
        looked_up(&app),
        [
            "/cluster/channels/g/2/allowlist",
            "/cluster/channels/g/2/denylist",
            SUBSCRIBERS,
            "/cluster/channels?channel_id=g&channel_type=2",
            "/cluster/channels?channel_id=member&channel_type=1",
        ]
    );
    app.clear_calls();
    let before = lookups(&app);
    is_in(&app, "member").await;
    let [members, bans, tombstones] = lookups(&app);
    assert!(members.0 > before[0].0 && bans.0 > before[1].0 && tombstones.0 > before[2].0);
    let missed = (members.1, bans.1, tombstones.1);
    assert_eq!(missed, (before[0].1, before[1].1, before[2].1));
    failure(403, "not_a_member").is(app.user("stranger").send_to_group("g", "x").await);
    assert_eq!(
        looked_up(&app),
        ["/cluster/channels?channel_id=stranger&channel_type=1"],
        "the group's lists are everybody's"
    );
    let after = lookups(&app).map(|(_, misses)| misses);
    assert_eq!(after, [missed.0, missed.1 + 1, missed.2]);
    app.clear_calls();
    let member = app.user("member");
    member.send_to_person("owner", "x").await.ok();
    assert_eq!(looked_up(&app).len(), 1, "the peer's denylist");
    member.send_to_person("owner", "x").await.ok();
    member.sync(1, "owner", "").await.ok();
    assert_eq!(looked_up(&app).len(), 1);
}

/// How often members, bans and tombstones were found in the cache, and how often not.
fn lookups(app: &TestApp) -> [(u64, u64); 3] {
    ["members", "bans", "tombstones"].map(|cache| {
        let count = |outcome| {
            let labels = format!("{{cache=\"{cache}\",outcome=\"{outcome}\"}}");
            let name = format!("gateway_cache_lookups_total{labels}");
            let count = app.metric(&name).unwrap_or_default();
            count.to_string().parse().expect("a whole number")
        };
        (count("hit"), count("miss"))
    })
}

#[tokio::test]
async fn reading_a_pair_fetches_only_the_readers_ban() {
    let app = remembering(V2, LONG).await;
    let alice = app.user("alice");
    alice.sync(PERSON, "bob", "").await.ok();
    let ban = "/cluster/channels?channel_id=alice&channel_type=1";
    assert_eq!(looked_up(&app), [ban]);
    alice.send_to_person("bob", "x").await.ok();
    assert_eq!(looked_up(&app), ["/cluster/channels/bob/1/denylist", ban]);
}

#[tokio::test]
async fn no_list_is_fetched_from_v3() {
    for (manager, mode) in [
        (false, Mode::Members),
        (true, Mode::Members),
        (false, Mode::Open),
    ] {
        let builder = TestApp::builder().upstream(V3).manager_port_if(manager);
        let builder = builder.config(move |settings| settings.authorization.mode = mode);
        let app = builder.start().await;
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "member").await;
        let [member, eve] = app.users(["member", "eve"]);
        member.send_to_person("owner", "x").await.ok();
        failure(403, "not_a_member").is(eve.send_to_group("g", "x").await);
        failure(404, "channel_not_found").is(eve.send_to_group("nowhere", "x").await);
        let paths = app.upstream.calls().into_iter().map(|call| call.path);
        let others: Vec<_> = paths
            .filter(|path| path != "/message/send" && path != "/channel/messagesync")
            .collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(lookups(&app)[..2], [(0, 0); 2]);
    }
}

#[tokio::test]
async fn retries_of_non_members_cause_no_further_probe() {
    let app = TestApp::start(V3).await;
    app.group("g", "owner", &[]).await;
    for uid in ["eve", "mallory", "eve"] {
        failure(403, "not_a_member").is(app.user(uid).sync(GROUP, "g", "").await);
    }
    assert_eq!(app.calls_to("/message/send").len(), 1);
}

#[tokio::test]
async fn what_changed_past_the_gateway_shows_when_the_ttl_has_passed() {
    let app = remembering(V2, LONG).await;
    app.group("g", "owner", &["member"]).await;
    is_in(&app, "member").await;
    is_kept_out(&app, "late", 403, "not_a_member").await;
    app.state().leave("g", "member");
    app.state().join("g", "late");
    is_in(&app, "member").await;
    is_kept_out(&app, "late", 403, "not_a_member").await;

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
        app.state().join("g", "member");
        tokio::time::sleep(ttl * 2).await;
        is_in(&app, "member").await;
        // As another replica deletes it.
        let id = ChannelId::parse("g", 128).unwrap();
        app.store.mark_deleted(&id, None).await.unwrap();
        tokio::time::sleep(ttl * 2).await;
        is_kept_out(&app, "member", 404, "channel_not_found").await;
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
    app.always(SUBSCRIBERS, Fault::Hold("lists".into()));
    let [member, eve] = app.users(["member", "eve"]);
    let sends = (0..16).map(|_| member.send_to_group("g", "x"));
    let refused = (0..16).map(|_| eve.send_to_group("g", "x"));
    let release = async {
        app.faults().wait_held("lists", 1).await;
        app.faults().release("lists");
    };
    let (sent, refused, ()) = tokio::join!(join_all(sends), join_all(refused), release);
    all_ok(sent);
    failure(403, "not_a_member").in_each(refused);
    // Four facts of the group and two callers' bans.
    assert_eq!(looked_up(&app).len(), 6);
    assert_eq!(app.calls_to(SUBSCRIBERS).len(), 1);
    assert_eq!(app.state().messages(GROUP, "g").len(), 16);
}

/// Lets `bob`'s look-up of the group's lists be under way, unprocessed or with its answer on the way, while `change` happens.
async fn while_bob_is_looked_up(app: &TestApp, fault: Fault, change: impl Future<Output = ()>) {
    let faults = app.faults();
    faults.once(SUBSCRIBERS, fault);
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
        faults.once("/channel/subscriber_remove", fault);
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
    app.once("/channel/subscriber_remove", Fault::ResetAfter);
    app.user("owner").remove("g", &["bob"]).await.ok();
    assert_eq!(app.state().members("g"), ["owner"]);
    is_kept_out(&app, "bob", 403, "not_a_member").await;
}

#[tokio::test]
async fn a_change_shows_at_once_and_only_in_its_group() {
    let app = remembering(V2, LONG).await;
    for id in ["g", "other1", "other2"] {
        app.group(id, "alice", &["bob"]).await;
    }
    let [alice, bob] = app.users(["alice", "bob"]);
    for id in ["g", "other1", "other2"] {
        bob.sync(GROUP, id, "").await.ok();
    }
    alice.remove("g", &["bob"]).await.ok();
    app.clear_calls();
    failure(403, "not_a_member").is(bob.sync(GROUP, "g", "").await);
    for id in ["other1", "other2"] {
        bob.sync(GROUP, id, "").await.ok();
    }
    assert_eq!(app.calls_to(SUBSCRIBERS).len(), 1);
    // One other group may share the counter of changes, once in 4,096 runs.
    let others = app.calls_to("/cluster/channels/other");
    assert!(others.len() <= 3, "{}", others.len());
}

/// A gateway whose cache holds few members.
async fn small_cache() -> TestApp {
    let app = TestApp::with(V2, |settings| {
        settings.authorization.cache_ttl = LONG;
        settings.authorization.cache_members = 400;
    });
    app.await
}

#[tokio::test]
async fn many_groups_do_not_grow_the_cache_without_bound() {
    let app = small_cache().await;
    for round in 0..2 {
        app.clear_calls();
        for n in 0..60 {
            let id = format!("g{n}");
            if round == 0 {
                seeds::group(&app, &id, &["alice", "bob"]);
            }
            app.user("alice").sync(GROUP, &id, "").await.ok();
        }
    }
    // 400 units hold at most 22 groups of 16 + 2: the others are asked for again.
    let again = looked_up(&app);
    let again = again.iter().filter(|path| path.ends_with("subscribers"));
    assert!(again.clone().count() >= 60 - 22, "{}", again.count());
}

#[tokio::test]
async fn groups_larger_than_the_cache_are_looked_up_each_time() {
    let app = small_cache().await;
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
