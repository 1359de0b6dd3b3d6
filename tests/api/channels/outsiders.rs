//! Who leaves a group he is not in costs it nothing.

use crate::support::prelude::*;

#[tokio::test]
async fn leaving_without_membership_is_answered_from_the_cache() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    // The group's turn is taken all the while.
    app.add_fault(Rule::exact("/channel/subscriber_add", Fault::Hold("add".into())).times(1));
    let adding = async { app.user("alice").add("g", &["carol"]).await.ok() };
    let leaving = async {
        app.faults().wait_held("add", 1).await;
        let mallory = app.user("mallory");
        assert_eq!(mallory.remove("g", &["mallory"]).await.ok()["removed"], 0);
        app.clear_calls();
        for _ in 0..20 {
            assert_eq!(mallory.remove("g", &["mallory"]).await.ok()["removed"], 0);
        }
        assert_eq!(app.upstream.calls().len(), 0);
        failure(404, "channel_not_found").is(mallory.remove("nowhere", &["mallory"]).await);
        app.faults().release("add");
    };
    tokio::join!(adding, leaving);
    // Who comes in is in at once, and leaves.
    app.user("alice").add("g", &["mallory"]).await.ok();
    let told = app.user("mallory").remove("g", &["mallory"]).await.ok();
    assert_eq!(told["removed"], 1);
    let mut members = app.state().members("g");
    members.sort();
    assert_eq!(members, ["alice", "bob", "carol"]);
    failure(409, "owner_cannot_leave").is(app.user("alice").remove("g", &["alice"]).await);
    app.user("alice").delete_group("g").await.ok();
    failure(404, "channel_not_found").is(app.user("mallory").remove("g", &["mallory"]).await);
}
