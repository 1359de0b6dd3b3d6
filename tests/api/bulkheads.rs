//! A channel with too many requests, or whose node hangs, uses up only its own limit.

use wukongim_gateway::domain::{ChannelId, ConversationKey};
use wukongim_gateway::limits::channel_limiter::Permit;

use crate::support::prelude::*;

/// The groups `hot` and `calm` of alice and bob. Nothing is cached, so every request causes a lookup.
async fn start(dialect: Dialect) -> TestApp {
    let app = TestApp::with(dialect, |settings| {
        settings.authorization.cache_ttl = Duration::ZERO;
    })
    .await;
    app.group("hot", "alice", &["bob"]).await;
    app.group("calm", "alice", &["bob"]).await;
    app
}

/// All permits of `hot` but `left`, until they are dropped.
fn all_but(app: &TestApp, left: usize) -> Vec<Permit> {
    let hot = ConversationKey::Group(ChannelId::parse("hot", 9).unwrap());
    let mut permits: Vec<Permit> =
        std::iter::from_fn(|| app.app.channel_limiter.try_acquire(&hot)).collect();
    permits.truncate(permits.len() - left);
    permits
}

/// The kinds of requests for a group, by bob; "remove" of somebody who is none, by its owner.
const ASKED: [&str; 5] = ["send", "batch", "sync", "info", "remove"];

async fn ask(app: &TestApp, what: &str, group: &str) -> Answer {
    let bob = app.user("bob");
    match what {
        "send" => bob.send_to_group(group, "hi").await,
        "batch" => bob.send_batch(&[message(2, group, "hi")]).await,
        "remove" => app.user("alice").remove(group, &["nobody"]).await,
        "sync" => bob.sync(2, group, "").await,
        _ => {
            let path = format!("/channel/info?channelId={group}&channelType=2");
            bob.get(&path).await
        }
    }
}

#[tokio::test]
async fn a_channel_that_is_full_is_refused_at_once_and_others_are_served() {
    for dialect in [V2, V3] {
        let app = start(dialect).await;
        let permits = all_but(&app, 0);
        for what in ASKED {
            let calls = app.upstream.calls().len();
            let refused = ask(&app, what, "hot").await.fails(503, "overloaded");
            assert_eq!(refused.header("retry-after"), "1");
            assert_eq!(app.upstream.calls().len(), calls, "{what} was asked");
            ask(&app, what, "calm").await.ok();
        }
        drop(permits);
        for what in ASKED {
            ask(&app, what, "hot").await.ok();
        }
    }
}

#[tokio::test]
async fn a_request_waiting_for_a_channels_members_holds_a_permit() {
    for (dialect, what) in [V2, V3]
        .into_iter()
        .flat_map(|dialect| ASKED.map(|what| (dialect, what)))
    {
        let app = start(dialect).await;
        let _places = all_but(&app, 1);
        let held = Rule::new("/", Fault::Hold("held".into())).containing("hot");
        app.faults().add(held);
        let others = async {
            app.faults().wait_held("held", 1).await;
            ask(&app, "send", "hot").await.fails(503, "overloaded");
            ask(&app, "send", "calm").await.ok();
            app.faults().release("held");
        };
        let (waited, ()) = tokio::join!(ask(&app, what, "hot"), others);
        waited.ok();
        app.faults().clear();
        ask(&app, "send", "hot").await.ok();
    }
}
