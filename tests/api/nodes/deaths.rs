//! Nodes that die under traffic and come back.

use std::collections::HashMap;

use super::{all_are_known, cluster, cluster_with};
use crate::support::prelude::*;

const CHANNELS: usize = 8;

/// Sends to one channel without a break until `nodes` have all died and come back; the numbers of the answered messages and of the
/// others.
async fn traffic(
    app: &TestApp,
    channel: usize,
    over: &std::cell::Cell<bool>,
) -> (Vec<String>, Vec<String>) {
    let alice = app.user("alice");
    let group = format!("g{channel}");
    let (mut answered, mut others) = (Vec::new(), Vec::new());
    let mut n = 0;
    while !over.get() {
        let number = format!("{group}-{n}");
        n += 1;
        let answer = alice.send(&numbered(2, &group, &number, &number)).await;
        match answer.status {
            200 => answered.push(number),
            502..=504 => others.push(number),
            _ => panic!("{answer:#?}"),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    (answered, others)
}

/// Loses answers for a moment, and then is gone for another one.
async fn dies(node: &DevUpstream) {
    node.faults().always("/message/send", Fault::ResetAfter);
    tokio::time::sleep(Duration::from_millis(40)).await;
    node.faults().always("/", Fault::Reset);
    tokio::time::sleep(Duration::from_millis(40)).await;
    node.stop().await;
    node.faults().clear();
    tokio::time::sleep(Duration::from_millis(400)).await;
    node.restart().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn no_acknowledged_message_is_lost_or_doubled_when_one_node_after_the_other_dies() {
    for dialect in [V2, V3] {
        let app = cluster(dialect, 3).await;
        for channel in 0..CHANNELS {
            app.group(&format!("g{channel}"), "alice", &[]).await;
        }
        all_are_known(&app).await;
        let over = std::cell::Cell::new(false);
        let deaths = async {
            for node in app.nodes() {
                dies(node).await;
            }
            over.set(true);
        };
        let all = join_all((0..CHANNELS).map(|channel| traffic(&app, channel, &over)));
        let (sent, ()) = tokio::join!(all, deaths);
        let (answered, others) = sent.iter().fold((0, 0), |(answered, others), all| {
            (answered + all.0.len(), others + all.1.len())
        });
        assert!(answered > others, "{dialect:?} {answered} {others}");
        for (channel, (answered, others)) in sent.into_iter().enumerate() {
            let group = format!("g{channel}");
            let stored = |app: &TestApp| {
                let mut times: HashMap<String, usize> = HashMap::new();
                for (_, number, _) in app.stored_in(&group) {
                    *times.entry(number).or_default() += 1;
                }
                times
            };
            let before = stored(&app);
            for number in &answered {
                assert_eq!(before.get(number), Some(&1), "{dialect:?} {number}");
            }
            // A retry of any other ends in exactly one.
            for number in &others {
                let body = numbered(2, &group, number, number);
                let alice = app.user("alice");
                let mut answer = alice.send(&body).await;
                for _ in 0..20 {
                    if answer.status == 200 {
                        break;
                    }
                    answer = alice.send(&body).await;
                }
                answer.ok();
            }
            for (number, times) in stored(&app) {
                assert_eq!(times, 1, "{dialect:?} {number}");
            }
        }
    }
}

#[tokio::test]
async fn calls_that_never_left_go_elsewhere_at_once_however_many_they_are() {
    for dialect in [V2, V3] {
        // No call is lost, so no timeout may end one on a busy machine.
        let app = cluster_with(dialect, 2, |settings| {
            settings.wukongim.timeout = Duration::from_mins(1);
            settings.wukongim.confirm_timeout = Duration::from_mins(1);
            settings.server.request_timeout = Duration::from_mins(2);
        });
        let app = app.await;
        all_are_known(&app).await;
        app.others[0].stop().await;
        let alice = app.user("alice");
        // Far more than may be repeated: nothing of it was done before.
        let sent = join_all((0..60).map(|_| alice.send_to_group("g", "hi"))).await;
        all_ok(sent);
        assert_eq!(app.stored_in("g").len(), 60, "{dialect:?}");
    }
}
