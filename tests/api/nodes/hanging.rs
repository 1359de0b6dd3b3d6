//! Hanging nodes: they hold few calls, and other requests do not wait for them.

use wukongim_gateway::config::Settings;

use super::{all_are_known, cluster_with, sends, sends_to};
use crate::support::prelude::*;

/// Longer than a busy machine takes for anything that is not meant to hang.
const TIMEOUT: Duration = Duration::from_secs(3);

fn hasty(settings: &mut Settings) {
    super::impatient(settings);
    settings.wukongim.timeout = TIMEOUT;
}

#[tokio::test]
async fn reads_are_answered_by_another_node() {
    for dialect in [V2, V3] {
        let app = cluster_with(dialect, 2, hasty).await;
        app.user("alice").send_to_group("g", "hi").await.ok();
        all_are_known(&app).await;
        app.others[0].faults().always("/", Fault::Hang);
        for _ in 0..20 {
            let page = app.user("alice").sync(2, "g", "").await.ok();
            assert_eq!(page.as_array().unwrap().len(), 1, "{page}");
        }
        let held = app.others[0].calls_to("/channel/messagesync").len();
        assert!(held <= 5, "it was asked {held} times: {dialect:?}");
    }
}

#[tokio::test]
async fn a_node_that_hangs_keeps_few_of_many_sends_and_v3_has_them_all_done_elsewhere() {
    for dialect in [V2, V3] {
        let app = cluster_with(dialect, 3, hasty).await;
        all_are_known(&app).await;
        app.others[0].faults().always("/", Fault::Hang);
        let alice = app.user("alice");
        let mut failed = 0;
        for _ in 0..20 {
            let sent = join_all((0..10).map(|_| alice.send_to_group("g", "hi"))).await;
            let is_lost = |answer: &&crate::support::answer::Answer| {
                assert!([200, 504].contains(&answer.status), "{answer:#?}");
                answer.status != 200
            };
            failed += sent.iter().filter(is_lost).count();
        }
        let held = sends_to(&app.others[0]).len();
        // A third of the first ten at the most, and perhaps some more before it is ejected.
        assert!(held <= 20, "{dialect:?} {:?}", sends(&app));
        if dialect == V2 {
            assert_eq!(failed, held, "they may have arrived, and are not repeated");
        } else {
            assert!(failed <= held.saturating_sub(5), "{failed} of {held}");
        }
        assert_eq!(app.stored_in("g").len(), 200 - failed, "{dialect:?}");
    }
}

#[tokio::test]
async fn one_that_hangs_from_the_start_is_passed_over() {
    for dialect in [V2, V3] {
        let builder = crate::support::TestApp::builder()
            .upstream(dialect)
            .nodes(2);
        let app = builder.config(hasty).start().await;
        app.faults().always("/", Fault::Hang);
        app.user("alice").create_group("g").await.ok();
        for _ in 0..5 {
            app.user("alice").send_to_group("g", "hi").await.ok();
        }
        assert!(sends_to(&app.upstream).is_empty(), "{dialect:?}");
    }
}
