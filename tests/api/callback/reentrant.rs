//! A backend may change the group itself before it answers.

use super::asking;
use crate::support::audit;
use crate::support::prelude::*;

/// What alice does to `owned`, each in a call of its own.
async fn call(app: &TestApp, what: &str) {
    let alice = app.user("alice");
    match what {
        "subscriber.add" => alice.add("owned", &["dave"]).await,
        "subscriber.remove" => alice.remove("owned", &["alice"]).await,
        "manager.add" => alice.manager("add", "owned", &["dave"]).await,
        "manager.remove" => alice.manager("remove", "owned", &["dave"]).await,
        "owner.transfer" => alice.transfer_ownership("owned", "carol").await,
        "channel.create" => app.user("olga").create_group("owned").await,
        "channel.delete" => alice.delete_group("owned").await,
        _ => unreachable!("{what}"),
    }
    .ok();
}

#[tokio::test]
async fn a_backend_may_change_the_group_before_it_answers() {
    for dialect in [V2, V3] {
        for what in [
            "subscriber.add",
            "subscriber.remove",
            "manager.add",
            "manager.remove",
            "owner.transfer",
            "channel.create",
            "channel.delete",
        ] {
            println!("{dialect:?} {what}");
            let (backend, app) = asking(dialect).await;
            backend.answers(move |question| {
                let is_backends_own = question["uid"] == "root";
                if question["action"] == what && !is_backends_own {
                    Reply::Held
                } else {
                    Reply::allow(true)
                }
            });
            let asked = call(&app, what);
            let backends_own = async {
                backend.wait_for(1).await;
                // With the question still open.
                app.admin().add("owned", &["carol"]).await.ok();
                backend.let_go(1);
            };
            tokio::join!(asked, backends_own);
        }
    }
}

#[tokio::test]
async fn changes_during_the_callback_are_respected() {
    let (backend, app) = asking(V2).await;
    backend.answers(|question| match question["uid"].as_str() {
        Some("alice") => Reply::Held,
        _ => Reply::allow(true),
    });
    // The group is deleted meanwhile: nobody is added to it.
    let adding = async { app.user("alice").add("owned", &["dave"]).await };
    let deleting = async {
        backend.wait_for(1).await;
        app.user("olga").delete_group("owned").await.ok();
        backend.let_go(1);
    };
    let (added, ()) = tokio::join!(adding, deleting);
    added.fails(404, "channel_not_found");
    assert_eq!(app.state().members("owned"), [""; 0]);

    // Or has another owner, who cannot be removed.
    app.group("other", "olga", &["alice", "bob"]).await;
    backend.asked();
    let removing = async { app.user("alice").remove("other", &["bob"]).await };
    let handing_over = async {
        backend.wait_for(1).await;
        let done = app.user("olga").transfer_ownership("other", "bob").await;
        done.ok();
        backend.let_go(1);
    };
    let (removed, ()) = tokio::join!(removing, handing_over);
    removed.fails(409, "owner_cannot_leave");
}

#[tokio::test]
async fn a_change_calls_the_backend_once_and_only_for_existing_groups() {
    let (backend, app) = asking(V2).await;
    let alice = app.user("alice");
    failure(404, "channel_not_found").in_each([
        alice.add("nowhere", &["dave"]).await,
        alice.delete_group("nowhere").await,
        alice.manager("add", "nowhere", &["dave"]).await,
    ]);
    assert_eq!(backend.count(), 0);
    let (lines, _listening) = audit::listen();
    backend.answers(|_| Reply::allow(false));
    failure(403, "forbidden").is(app.admin().add("owned", &["dave"]).await);
    let asked = json!({"uid": "root", "action": "subscriber.add", "channelId": "owned", "channelType": 2, "targets": ["dave"]});
    assert_eq!(backend.bodies(), [asked]);
    assert_eq!(lines.take().len(), 1, "the audit has its line all the same");
}
