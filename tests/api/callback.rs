//! Mode `callback`: the application's own backend decides.

mod answers;
mod batch;
mod failures;
mod questions;
mod reentrant;
mod stays;

use wukongim_gateway::config::Settings;

use crate::support::prelude::*;

/// A backend that allows everything, and a gateway that asks it as [`start`] makes it.
async fn asking(dialect: Dialect) -> (Backend, TestApp) {
    let backend = Backend::start().await;
    let app = start(dialect, &backend).await;
    (backend, app)
}

/// A gateway that asks `backend`, in front of the group `g` with alice and bob, which the store does not know, and of the group
/// `owned`, whose owner is olga.
async fn start(dialect: Dialect, backend: &Backend) -> TestApp {
    start_with(dialect, backend, |_| {}).await
}

async fn start_with(
    dialect: Dialect,
    backend: &Backend,
    change: impl FnOnce(&mut Settings) + 'static,
) -> TestApp {
    let builder = TestApp::builder()
        .upstream(dialect)
        .config(backend.decides())
        .config(|settings| settings.authorization.cache_ttl = Duration::from_mins(5));
    let app = builder.config(change).start().await;
    seeds::group(&app, "g", &["alice", "bob"]);
    app.group("owned", "olga", &["alice"]).await;
    backend.asked();
    app
}

/// A gateway that remembers no answer.
fn forgetful(settings: &mut Settings) {
    settings.authorization.cache_ttl = Duration::ZERO;
}

/// Every action the callback decides, each by a user for whom only the callback decides: name, answer.
async fn do_everything(app: &TestApp) -> Vec<(&'static str, Answer)> {
    let alice = app.user("alice");
    vec![
        ("send to a group", alice.send_to_group("g", "x").await),
        ("send to a person", alice.send_to_person("bob", "x").await),
        ("read a group", alice.sync(2, "g", "").await),
        ("read a person", alice.sync(1, "bob", "").await),
        ("create", alice.create_group("new").await),
        ("add", alice.add("owned", &["carol", "dave"]).await),
        ("remove", alice.remove("owned", &["alice"]).await),
        ("see", alice.info("owned").await),
        ("name", alice.manager("add", "owned", &["dave"]).await),
        ("dismiss", alice.manager("remove", "owned", &["dave"]).await),
        ("transfer", alice.transfer_ownership("owned", "carol").await),
        ("send as", send_as(&app.admin(), "bob", "g").await),
        ("delete", alice.delete_group("owned").await),
    ]
}

/// A message to a group as another user.
async fn send_as(actor: &Actor<'_>, from: &str, group: &str) -> Answer {
    actor.send(&as_somebody(from, group)).await
}

fn as_somebody(from: &str, group: &str) -> Value {
    as_user(from, message(2, group, "x"))
}
