//! The gateway under load while WuKongIM is slow, broken or gone, and whether it keeps what it promises then.

mod bulkheads;
mod fault_phase;
mod report;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::fault_phase::{FaultPhase, MonitoredGateway};
use self::report::Report;
use crate::gateway::{Gateway, Sample, Stage};
use crate::load::Load;
use crate::mix::Mix;
use crate::upstream::Upstream;

/// Clients that wait for each answer while the maximum is measured.
const CLIENTS: usize = 64;
/// What of the maximum the load is: a gateway works on 2,048 requests at once, so that a machine which stands still for half a second
/// would be seen as an overload at twice of that.
const SHARE: f64 = 3.0;
/// Connections of an open-loop load: more than a gateway's `max_in_flight`.
const CONNECTIONS: usize = 4000;
/// How long one gateway takes to come to rest at the most.
const REST: Duration = Duration::from_secs(30);

/// How long everything takes.
#[derive(Clone, Copy)]
pub struct Times {
    /// Finding the maximum.
    most: Duration,
    /// Without a fault, before each.
    calm: Duration,
    /// Each fault.
    storm: Duration,
    /// After it, from when on nothing may be wrong any more.
    recovery: Duration,
    quick: bool,
}

impl Times {
    const FULL: Self = Self {
        most: Duration::from_secs(8),
        calm: Duration::from_secs(10),
        storm: Duration::from_mins(1),
        recovery: Duration::from_secs(10),
        quick: false,
    };
    /// To see that it works.
    const QUICK: Self = Self {
        most: Duration::from_secs(2),
        calm: Duration::from_secs(3),
        storm: Duration::from_secs(3),
        recovery: Duration::from_secs(2),
        quick: true,
    };
}

/// All of it; the table is printed. The verdict: whether all promises were kept.
///
/// # Errors
/// Where an answer was not one that the contract allows, or something could not be measured: then no figure is printed.
pub async fn run(stage: &Stage, quick: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let times = if quick { Times::QUICK } else { Times::FULL };
    let tokens = stage.tokens()?;
    let mut report = Report::default();
    #[expect(
        clippy::disallowed_methods,
        reason = "the gateway's rule; this is a bench"
    )]
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |dialect, part| {
        let part = format!("{dialect}-{part}");
        only.as_ref().is_none_or(|only| *only == part)
    };
    for v3 in [false, true] {
        if wanted(name_of(v3), "faults") {
            one_node(stage, times, v3, &tokens, &mut report).await?;
        }
        if wanted(name_of(v3), "bulkheads") && !(v3 && quick) {
            bulkheads::run(stage, times, v3, &tokens, &mut report).await?;
        }
    }
    print!("{report}");
    Ok(report.is_kept())
}

/// A name for a dialect.
fn name_of(v3: bool) -> &'static str {
    if v3 { "v3" } else { "v2" }
}

/// How long the fake WuKongIM takes for each answer when nothing is wrong: what a real one takes for a send, but not less than a
/// timer can tell.
fn latency(v3: bool) -> Duration {
    Duration::from_millis(if v3 { 6 } else { 1 })
}

/// One gateway, one node, one fault after the other.
async fn one_node(
    stage: &Stage,
    times: Times,
    v3: bool,
    tokens: &Rc<[String]>,
    report: &mut Report,
) -> Result<(), Box<dyn std::error::Error>> {
    let dialect = name_of(v3);
    let upstream = Upstream::start(stage, v3, 0, 1, latency(v3)).await?;
    let gateway = stage.start(10, &upstream.nodes, &[]).await?;
    let most = most(&gateway, times, tokens, dialect).await?;
    let before = at_rest(&gateway, &upstream).await?;
    let rate = most / SHARE;
    report.say(format!(
        "{dialect}: at most {most:.0} requests/s with {CLIENTS} clients; the load is {rate:.0} requests/s"
    ));

    let mix = Mix::new(tokens.clone(), &format!("storm-{dialect}"));
    let load = Load::new(&gateway.api, mix, CONNECTIONS);
    load.open(rate);
    let monitored = MonitoredGateway::start(gateway, load);
    sleep(times.calm).await;
    for phase in FaultPhase::of_single_node(v3, times.quick) {
        let row = phase.run(&monitored, &upstream, times, dialect).await?;
        report.add(row, true);
    }
    let (gateway, load) = monitored.end();
    report.promise(load.end().await, format!("{dialect}: requests hang"));
    load.tally.borrow().check()?;
    let taken = upstream.sends();
    let told = load.tally.borrow().sent();
    report.promise(
        told <= taken,
        format!("{dialect}: {told} messages are told to be stored, {taken} arrived"),
    );
    let after = at_rest(&gateway, &upstream).await?;
    report.rest(dialect, before, after);
    for gauge in [
        "gateway_http_requests_in_flight",
        "gateway_upstream_in_flight",
    ] {
        let left = gateway.metric(gauge).await?;
        report.promise(left == 0, format!("{dialect}: {gauge} is {left} at rest"));
    }
    Ok(())
}

/// Requests a second of clients that wait for each answer.
async fn most(
    gateway: &Gateway,
    times: Times,
    tokens: &Rc<[String]>,
    run: &str,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mix = Mix::new(tokens.clone(), &format!("most-{run}"));
    let load = Load::new(&gateway.api, mix, CLIENTS);
    let most = load.closed(CLIENTS, times.most).await;
    load.end().await;
    load.tally.borrow().check()?;
    Ok(most)
}

/// The resources of an idle gateway, once they are steady. Its connections to WuKongIM are closed by then.
async fn at_rest(gateway: &Gateway, upstream: &Upstream) -> io::Result<Sample> {
    upstream.drop_connections().await?;
    let began = Instant::now();
    let mut steady = 0;
    let mut last = gateway.sample().await?;
    while steady < 4 && began.elapsed() < REST {
        sleep(Duration::from_millis(500)).await;
        let now = gateway.sample().await?;
        steady = if (now.tasks, now.files) == (last.tasks, last.files) {
            steady + 1
        } else {
            0
        };
        last = now;
    }
    Ok(last)
}
