//! A failing node out of two, and a channel whose calls hang: checks that other requests succeed.

use std::rc::Rc;

use tokio::time::sleep;

use super::fault_phase::{FaultPhase, MonitoredGateway};
use super::report::Report;
use super::{CONNECTIONS, SHARE, Times, latency, most, name_of};
use crate::gateway::Stage;
use crate::load::Load;
use crate::mix::Mix;
use crate::upstream::Upstream;

/// Allowed answers to a send in flight to the failing node.
const UNKNOWN: &[&str] = &["message_unconfirmed", "partial_failure"];
/// Allowed answers for the channel: no answer came, or too many requests wait for one.
const HOT: &[&str] = &[
    "message_unconfirmed",
    "upstream_timeout",
    "upstream_unavailable",
    "overloaded",
];
const HOT_GROUP: &str = "bench-hot";

const SILENT: FaultPhase =
    FaultPhase::on_one_of_several("one node of two without answers", "silent", 1, UNKNOWN);
const DEAD: FaultPhase =
    FaultPhase::on_one_of_several("one node of two without a process", "dead", 1, UNKNOWN);
const CHANNEL: FaultPhase = FaultPhase::on_one_of_several(
    "one hot channel without answers: the others",
    "channel-bench-hot",
    0,
    &[],
);

pub async fn run(
    stage: &Stage,
    times: Times,
    v3: bool,
    tokens: &Rc<[String]>,
    report: &mut Report,
) -> Result<(), Box<dyn std::error::Error>> {
    let dialect = name_of(v3);
    let upstream = Upstream::start(stage, v3, 20, 2, latency(v3)).await?;
    let gateway = stage.start(30, &upstream.nodes, &[]).await?;
    let most = most(&gateway, times, tokens, dialect).await?;
    // The hot channel comes on top.
    let rate = most / SHARE;
    report.say(format!(
        "{dialect}, two nodes: at most {most:.0} requests/s; the load is {rate:.0} requests/s, and as many on the hot channel"
    ));
    let mix = Mix::new(tokens.clone(), &format!("bulk-{dialect}"));
    let load = Load::new(&gateway.api, mix, CONNECTIONS);
    load.open(rate);
    let hot = Mix::of_group(tokens.clone(), &format!("hot-{dialect}"), HOT_GROUP);
    let hot = Load::new(&gateway.api, hot, CONNECTIONS);
    let monitored = MonitoredGateway::start(gateway, load);
    sleep(times.calm).await;
    for phase in [SILENT, DEAD] {
        let row = phase.run(&monitored, &upstream, times, dialect).await?;
        report.add(row, false);
    }
    hot.tally.borrow_mut().enter(HOT);
    hot.open(rate);
    sleep(times.calm).await;
    let row = CHANNEL.run(&monitored, &upstream, times, dialect).await?;
    report.add(row, false);
    let (_gateway, load) = monitored.end();
    report.promise(
        load.end().await && hot.end().await,
        format!("{dialect}: requests hang"),
    );
    load.tally.borrow().check()?;
    hot.tally.borrow().check()?;
    let tally = hot.tally.borrow();
    let phase = tally.phase(1);
    report.say(format!(
        "{dialect}, hot channel: {} answers, failures {:?}, slowest {:.2} s",
        phase.answers,
        phase.failures,
        phase.slowest.took.as_secs_f64()
    ));
    Ok(())
}
