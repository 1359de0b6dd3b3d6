//! What the backend's "yes" does not overrule, and what it does.

use super::{asking, send_as};
use crate::support::prelude::*;

#[tokio::test]
async fn a_permission_of_the_callback_replaces_membership_and_role() {
    let (_backend, app) = asking(V2).await;
    let stranger = app.user("stranger");
    stranger.send_to_group("g", "x").await.ok();
    stranger.sync(2, "g", "").await.ok();
    assert_eq!(stranger.add("owned", &["friend"]).await.ok()["added"], 1);
    let removed = stranger.remove("owned", &["friend"]).await.ok();
    assert_eq!(removed["removed"], 1);
    // The rest of it, of an owned group, is in the matrix of roles.
    stranger.info("g").await.ok();
    stranger.delete_group("g").await.ok();
}

#[tokio::test]
async fn a_repeated_transfer_calls_the_callback_again() {
    let (backend, app) = asking(V2).await;
    let olga = app.user("olga");
    olga.transfer_ownership("owned", "alice").await.ok();
    olga.transfer_ownership("owned", "alice").await.ok();
    backend.answers(|_| Reply::allow(false));
    // A manager by now, whose word would do elsewhere.
    failure(403, "forbidden").is(olga.transfer_ownership("owned", "alice").await);
    // Who is to own a group must still be in it.
    backend.answers(|_| Reply::allow(true));
    failure(403, "not_a_member").is(olga.transfer_ownership("owned", "stranger").await);
}

#[tokio::test]
async fn what_v3_itself_refuses_stays_refused() {
    let (_backend, app) = asking(V3).await;
    let stranger = app.user("stranger");
    failure(403, "not_a_member").in_each([
        stranger.send_to_group("g", "x").await,
        stranger.sync(2, "g", "").await,
    ]);
    stranger.add("owned", &["stranger"]).await.ok();
    stranger.send_to_group("owned", "x").await.ok();
}

#[tokio::test]
async fn blocks_and_bans_apply_without_calling_the_callback() {
    let (backend, app) = asking(V2).await;
    let state = app.state();
    state.deny(PERSON, "bob", "eve");
    state.deny(GROUP, "g", "eve");
    seeds::group(&app, "quiet", &["alice"]);
    state.allow("quiet", "bob");
    seeds::group(&app, "banned", &["alice"]);
    state.ban_group("banned", true);
    state.ban_user("mallory", true);
    let [alice, eve, mallory] = app.users(["alice", "eve", "mallory"]);
    failure(403, "blocked").in_each([
        eve.send_to_person("bob", "x").await,
        eve.send_to_group("g", "x").await,
        send_as(&app.admin(), "eve", "g").await,
    ]);
    failure(403, "channel_banned").is(alice.send_to_group("banned", "x").await);
    failure(403, "forbidden").in_each([
        alice.send_to_group("quiet", "x").await,
        mallory.send_to_group("g", "x").await,
        mallory.sync(2, "g", "").await,
        mallory.info("g").await,
    ]);
    failure(404, "channel_not_found").in_each([
        alice.info("nowhere").await,
        alice.send_to_group("nowhere", "x").await,
        alice.add("nowhere", &["x"]).await,
        alice.delete_group("nowhere").await,
    ]);
    assert_eq!(backend.bodies(), Vec::<serde_json::Value>::new());
    // They silence, they hide nothing.
    eve.sync(2, "g", "").await.ok();
}

#[tokio::test]
async fn deleted_ids_owners_and_taken_ids_stay_what_they_are() {
    for dialect in [V2, V3] {
        let (backend, app) = asking(dialect).await;
        let stranger = app.user("stranger");
        failure(409, "channel_exists").in_each([
            stranger.create_group("owned").await,
            stranger.create_group("g").await,
        ]);
        failure(409, "owner_cannot_leave").is(stranger.remove("owned", &["olga"]).await);
        stranger.delete_group("owned").await.ok();
        backend.asked();
        let olga = app.user("olga");
        failure(404, "channel_not_found").in_each([
            olga.send_to_group("owned", "x").await,
            olga.sync(2, "owned", "").await,
            olga.add("owned", &["x"]).await,
            olga.delete_group("owned").await,
            olga.info("owned").await,
            olga.transfer_ownership("owned", "alice").await,
        ]);
        assert_eq!(backend.count(), 0, "nobody is asked about what is gone");
        failure(409, "channel_deleted").is(olga.create_group("owned").await);
    }
}

#[tokio::test]
async fn a_half_finished_delete_is_finished_by_whom_the_backend_lets() {
    let (backend, app) = asking(V2).await;
    let fault = dev_upstream::Fault::Status(500, String::new());
    app.faults().once("/channel/delete", fault);
    failure(502, "upstream_error").is(app.user("alice").delete_group("owned").await);
    backend.answers(|question| Reply::allow(question["uid"] == "bob"));
    failure(403, "forbidden").is(app.user("alice").delete_group("owned").await);
    app.user("bob").delete_group("owned").await.ok();
    failure(404, "channel_not_found").is(app.user("bob").delete_group("owned").await);
}

#[tokio::test]
async fn only_an_admin_may_send_as_another_user() {
    let (backend, app) = asking(V2).await;
    failure(403, "forbidden").is(send_as(&app.user("alice"), "bob", "g").await);
    assert_eq!(backend.count(), 0);
    app.nothing_was_written();
}
