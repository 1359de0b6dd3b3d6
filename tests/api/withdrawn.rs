//! Who may not send any more sends nothing more: the permission is asked directly before each message leaves, however long it has waited.

use wukongim_gateway::config::Settings;

use crate::support::messages::series;
use crate::support::prelude::*;

const SEND: &str = "/message/send";
const HELD: &str = "the first";

/// A batch of bob's, held up after its first message has arrived; what is sent while `meanwhile` runs is what was sent before. All
/// but the first have this code; what became of the first.
async fn stops_after_the_first(
    app: &TestApp,
    code: &str,
    meanwhile: impl Future<Output = ()>,
) -> String {
    app.next_send(Fault::HoldAnswer(HELD.into()));
    let bob = app.user("bob");
    let meanwhile = async {
        app.faults().wait_held(HELD, 1).await;
        meanwhile.await;
        app.faults().release(HELD);
    };
    let bodies = series(5);
    let (told, ()) = tokio::join!(bob.send_batch(&bodies), meanwhile);
    assert_eq!(told.outcomes()[1..], [code; 4]);
    assert_eq!(app.calls_to(SEND).len(), 1);
    told.outcomes()[0].to_owned()
}

/// For how long a permit is not looked at again where the gateway itself has changed nothing.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// A gateway that believes nothing for longer than a moment.
fn forgetful(settings: &mut Settings) {
    settings.authorization.cache_ttl = Duration::ZERO;
}

#[tokio::test]
async fn a_batch_stops_where_its_sender_is_removed() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    let removal = async {
        app.user("alice").remove("g", &["bob"]).await.ok();
    };
    let first = stops_after_the_first(&app, "not_a_member", removal).await;
    assert_eq!(first, "sent");
}

#[tokio::test]
async fn a_batch_stops_where_the_group_is_deleted() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    let deletion = async {
        app.user("alice").delete_group("g").await.ok();
    };
    stops_after_the_first(&app, "channel_not_found", deletion).await;
}

#[tokio::test]
async fn bans_and_lists_hold_for_the_rest_of_a_batch() {
    type Change = fn(&TestApp);
    let changes: [(Change, &str); 4] = [
        (|app| app.state().ban_group("g", true), "channel_banned"),
        (|app| app.state().ban_user("bob", true), "forbidden"),
        (|app| app.state().deny(2, "g", "bob"), "blocked"),
        (|app| app.state().allow("g", "alice"), "forbidden"),
    ];
    for (change, code) in changes {
        let app = TestApp::with(V2, forgetful).await;
        app.group("g", "alice", &["bob"]).await;
        let changed = async {
            change(&app);
            a_moment().await;
        };
        stops_after_the_first(&app, code, changed).await;
    }
}

#[tokio::test]
async fn a_denial_of_the_callback_holds_for_the_rest_of_a_batch() {
    let backend = Backend::start().await;
    let builder = TestApp::builder().config(backend.decides());
    let app = builder.config(forgetful).start().await;
    app.group("g", "alice", &["bob"]).await;
    let denied = async {
        backend.answers(|_| Reply::allow(false));
        a_moment().await;
    };
    stops_after_the_first(&app, "forbidden", denied).await;
}

#[tokio::test]
async fn a_retry_that_waited_is_not_sent_after_its_senders_removal() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_millis(400);
    })
    .await;
    app.group("g", "alice", &["bob"]).await;
    app.faults().once(SEND, Fault::Reset);
    let body = numbered(2, "g", "hi", "n");
    failure(504, "message_unconfirmed").is(app.user("bob").send(&body).await);
    app.clear_calls();
    // It is looked for until it is overdue, a second after it was sent, and then sent again.
    let retry = async { app.user("bob").send(&body).await };
    let removal = async {
        while app.calls_to("/channel/m").is_empty() {
            tokio::task::yield_now().await;
        }
        app.user("alice").remove("g", &["bob"]).await.ok();
    };
    let (told, ()) = tokio::join!(retry, removal);
    told.fails(403, "not_a_member");
    assert!(app.calls_to(SEND).is_empty());
    // Back again, he is answered as before: the first one may be there.
    app.user("alice").add("g", &["bob"]).await.ok();
    app.user("bob").send(&body).await.ok();
    assert_eq!(app.state().messages(2, "g").len(), 1);
}
