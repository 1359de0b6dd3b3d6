//! What the backend's "yes" does not overrule, and what it does.

use dev_upstream::{GROUP, PERSON};

use super::{send_as, start};
use crate::support::backend::{Backend, Reply};
use crate::support::{V2, V3, seeds};

#[tokio::test]
async fn a_permission_of_the_callback_replaces_membership_and_role() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    let stranger = app.user("stranger");
    stranger.send_to_group("g", "x").await.ok();
    stranger.sync(2, "g", "").await.ok();
    assert_eq!(stranger.add("owned", &["friend"]).await.ok()["added"], 1);
    assert_eq!(
        stranger.remove("owned", &["friend"]).await.ok()["removed"],
        1
    );
    stranger.info("owned").await.ok();
    stranger.info("g").await.ok();
    stranger.manager("add", "owned", &["alice"]).await.ok();
    stranger.manager("remove", "owned", &["alice"]).await.ok();
    stranger.transfer_ownership("owned", "alice").await.ok();
    stranger.delete_group("owned").await.ok();
    stranger.delete_group("g").await.ok();
}

#[tokio::test]
async fn a_no_stops_owners_and_admins_too() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    backend.answers(|_| Reply::allow(false));
    for somebody in [app.user("olga"), app.admin()] {
        somebody.add("owned", &["x"]).await.fails(403, "forbidden");
        somebody
            .remove("owned", &["alice"])
            .await
            .fails(403, "forbidden");
        somebody.delete_group("owned").await.fails(403, "forbidden");
    }
    for somebody in [app.user("olga"), app.admin()] {
        somebody.info("owned").await.fails(403, "forbidden");
        for verb in ["add", "remove"] {
            let answer = somebody.manager(verb, "owned", &["alice"]).await;
            answer.fails(403, "forbidden");
        }
        let answer = somebody.transfer_ownership("owned", "alice").await;
        answer.fails(403, "forbidden");
    }
    app.user("olga")
        .create_group("owned")
        .await
        .fails(403, "forbidden");
    app.user("alice")
        .remove("owned", &["alice"])
        .await
        .fails(403, "forbidden");
}

#[tokio::test]
async fn a_repeated_transfer_calls_the_callback_again() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    let olga = app.user("olga");
    olga.transfer_ownership("owned", "alice").await.ok();
    olga.transfer_ownership("owned", "alice").await.ok();
    backend.answers(|_| Reply::allow(false));
    // A manager by now, whose word would do elsewhere.
    let answer = olga.transfer_ownership("owned", "alice").await;
    answer.fails(403, "forbidden");
    // Who is to own a group must still be in it.
    backend.answers(|_| Reply::allow(true));
    let answer = olga.transfer_ownership("owned", "stranger").await;
    answer.fails(403, "not_a_member");
}

#[tokio::test]
async fn what_v3_itself_refuses_stays_refused() {
    let backend = Backend::start().await;
    let app = start(V3, &backend).await;
    let stranger = app.user("stranger");
    stranger
        .send_to_group("g", "x")
        .await
        .fails(403, "not_a_member");
    stranger.sync(2, "g", "").await.fails(403, "not_a_member");
    stranger.add("owned", &["stranger"]).await.ok();
    stranger.send_to_group("owned", "x").await.ok();
}

#[tokio::test]
async fn blocks_and_bans_apply_without_calling_the_callback() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    app.state().deny(PERSON, "bob", "eve");
    app.state().deny(GROUP, "g", "eve");
    app.user("eve")
        .send_to_person("bob", "x")
        .await
        .fails(403, "blocked");
    app.user("eve")
        .send_to_group("g", "x")
        .await
        .fails(403, "blocked");
    send_as(&app.admin(), "eve", "g")
        .await
        .fails(403, "blocked");
    seeds::group(&app, "quiet", &["alice"]);
    app.state().allow("quiet", "bob");
    app.user("alice")
        .send_to_group("quiet", "x")
        .await
        .fails(403, "forbidden");
    seeds::group(&app, "banned", &["alice"]);
    app.state().ban_group("banned", true);
    app.user("alice")
        .send_to_group("banned", "x")
        .await
        .fails(403, "channel_banned");
    app.state().ban_user("mallory", true);
    app.user("mallory")
        .send_to_group("g", "x")
        .await
        .fails(403, "forbidden");
    app.user("mallory")
        .sync(2, "g", "")
        .await
        .fails(403, "forbidden");
    app.user("mallory").info("g").await.fails(403, "forbidden");
    app.user("alice")
        .info("nowhere")
        .await
        .fails(404, "channel_not_found");
    app.user("alice")
        .send_to_group("nowhere", "x")
        .await
        .fails(404, "channel_not_found");
    app.user("alice")
        .add("nowhere", &["x"])
        .await
        .fails(404, "channel_not_found");
    app.user("alice")
        .delete_group("nowhere")
        .await
        .fails(404, "channel_not_found");
    assert_eq!(backend.bodies(), Vec::<serde_json::Value>::new());
    // They silence, they hide nothing.
    app.user("eve").sync(2, "g", "").await.ok();
}

#[tokio::test]
async fn deleted_ids_owners_and_taken_ids_stay_what_they_are() {
    for dialect in [V2, V3] {
        let backend = Backend::start().await;
        let app = start(dialect, &backend).await;
        let stranger = app.user("stranger");
        stranger
            .create_group("owned")
            .await
            .fails(409, "channel_exists");
        stranger
            .create_group("g")
            .await
            .fails(409, "channel_exists");
        stranger
            .remove("owned", &["olga"])
            .await
            .fails(409, "owner_cannot_leave");
        stranger.delete_group("owned").await.ok();
        backend.asked();
        let olga = app.user("olga");
        olga.send_to_group("owned", "x")
            .await
            .fails(404, "channel_not_found");
        olga.sync(2, "owned", "")
            .await
            .fails(404, "channel_not_found");
        olga.add("owned", &["x"])
            .await
            .fails(404, "channel_not_found");
        olga.delete_group("owned")
            .await
            .fails(404, "channel_not_found");
        olga.info("owned").await.fails(404, "channel_not_found");
        let answer = olga.transfer_ownership("owned", "alice").await;
        answer.fails(404, "channel_not_found");
        assert_eq!(backend.count(), 0, "nobody is asked about what is gone");
        olga.create_group("owned")
            .await
            .fails(409, "channel_deleted");
    }
}

#[tokio::test]
async fn a_half_finished_delete_is_finished_by_whom_the_backend_lets() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    let fault = dev_upstream::Fault::Status(500, String::new());
    app.faults().once("/channel/delete", fault);
    app.user("alice")
        .delete_group("owned")
        .await
        .fails(502, "upstream_error");
    backend.answers(|question| Reply::allow(question["uid"] == "bob"));
    app.user("alice")
        .delete_group("owned")
        .await
        .fails(403, "forbidden");
    app.user("bob").delete_group("owned").await.ok();
    app.user("bob")
        .delete_group("owned")
        .await
        .fails(404, "channel_not_found");
}

#[tokio::test]
async fn only_an_admin_may_send_as_another_user() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    send_as(&app.user("alice"), "bob", "g")
        .await
        .fails(403, "forbidden");
    assert_eq!(backend.count(), 0);
    app.nothing_was_written();
}
