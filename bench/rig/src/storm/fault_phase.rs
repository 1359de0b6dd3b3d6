//! One fault under load: from the steady state before it to the recovery after it, with the measurements.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::Times;
use super::report::Row;
use crate::gateway::Gateway;
use crate::load::Load;
use crate::tally::{Phase, Slowest};
use crate::truth::Witness;
use crate::upstream::Upstream;

/// How long errors of the fault are still allowed after a recovery.
const GRACE: Duration = Duration::from_secs(5);

/// A gateway under load, with its monitors.
pub struct MonitoredGateway {
    gateway: Rc<Gateway>,
    pub load: Rc<Load>,
    health: Rc<Witness>,
    readiness: Rc<Witness>,
    /// The maximum memory and number of tasks since they were last read.
    peaks: Rc<Cell<(u64, u64)>>,
    broken: Rc<RefCell<Option<io::Error>>>,
    ended: Rc<Cell<bool>>,
    offset: Cell<Duration>,
}

impl MonitoredGateway {
    pub fn start(gateway: Gateway, load: Rc<Load>) -> Self {
        let monitored = Self {
            health: Witness::of_health(&gateway.api),
            readiness: Witness::of_readiness(&gateway.ops),
            gateway: Rc::new(gateway),
            load,
            peaks: Rc::default(),
            broken: Rc::default(),
            ended: Rc::default(),
            offset: Cell::default(),
        };
        let (gateway, peaks) = (monitored.gateway.clone(), monitored.peaks.clone());
        let (broken, ended) = (monitored.broken.clone(), monitored.ended.clone());
        spawn_local(async move {
            while !ended.get() {
                match gateway.sample().await {
                    Ok(now) => {
                        let (memory, tasks) = peaks.get();
                        peaks.set((memory.max(now.memory), tasks.max(now.tasks)));
                    }
                    Err(error) => {
                        broken.borrow_mut().get_or_insert(error);
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
        monitored
    }

    /// The gateway and its load, which continues; ends the monitors.
    pub fn end(self) -> (Rc<Gateway>, Rc<Load>) {
        self.health.end();
        self.readiness.end();
        self.ended.set(true);
        (self.gateway, self.load)
    }

    /// Shifts by a varying part of a second, so that faults do not always coincide with the gateway's periodic work.
    async fn shift(&self) {
        let offset = self.offset.get() + Duration::from_millis(370);
        self.offset
            .set(Duration::from_millis(u64::from(offset.subsec_millis())));
        sleep(self.offset.get()).await;
    }

    /// # Errors
    /// When an answer violated the contract, or the gateway is gone.
    fn check(&self) -> Result<(), Box<dyn std::error::Error>> {
        if let Some(error) = self.broken.borrow_mut().take() {
            return Err(error.into());
        }
        self.load.tally.borrow().check()?;
        self.health.check()?;
        self.readiness.check()?;
        Ok(())
    }
}

/// A fault, and the errors that it may cause.
pub struct FaultPhase {
    /// The displayed name.
    pub name: &'static str,
    /// The fault for the fake WuKongIM, and the node (0: all).
    pub fault: (&'static str, usize),
    /// Whether WuKongIM stays healthy.
    pub healthy: bool,
    /// The allowed error codes.
    pub allowed: &'static [&'static str],
    /// Whether `--quick` includes it.
    quick: bool,
}

/// Answers are late: requests pile up, and further ones are refused.
const OVERLOAD_CODES: &[&str] = &["overloaded", "partial_failure"];
/// No answers: outcomes are unknown, lookups fail, and requests pile up.
const TIMEOUT_CODES: &[&str] = &[
    "message_unconfirmed",
    "upstream_timeout",
    "upstream_unavailable",
    "overloaded",
    "partial_failure",
];
/// Connections break, so failures are fast.
const CONNECTION_LOSS_CODES: &[&str] = &[
    "message_unconfirmed",
    "upstream_unavailable",
    "overloaded",
    "partial_failure",
];
const GARBAGE_CODES: &[&str] = &[
    "message_unconfirmed",
    "upstream_unavailable",
    "upstream_error",
    "overloaded",
    "partial_failure",
];

impl FaultPhase {
    /// The faults of a single-node WuKongIM.
    pub fn of_single_node(v3: bool, quick: bool) -> impl Iterator<Item = Self> {
        let phase = |name, fault, healthy, allowed, quick| Self {
            name,
            fault: (fault, 0),
            healthy,
            allowed,
            quick,
        };
        let all = [
            phase("latency × 100", "slow", true, OVERLOAD_CODES, !v3),
            phase(
                "half-answers, then closed",
                "half",
                false,
                CONNECTION_LOSS_CODES,
                false,
            ),
            phase(
                "half-answers, then nothing",
                "stalled",
                false,
                TIMEOUT_CODES,
                false,
            ),
            phase("resets", "reset", false, CONNECTION_LOSS_CODES, false),
            phase("garbage", "garbage", false, GARBAGE_CODES, v3),
            phase("full stop: no answers", "silent", false, TIMEOUT_CODES, !v3),
            phase(
                "full stop: no process",
                "dead",
                false,
                CONNECTION_LOSS_CODES,
                v3,
            ),
        ];
        all.into_iter().filter(move |phase| phase.quick || !quick)
    }

    /// A fault of one node of several.
    pub const fn on_one_of_several(
        name: &'static str,
        fault: &'static str,
        node: usize,
        allowed: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            fault: (fault, node),
            healthy: true,
            allowed,
            quick: true,
        }
    }

    /// Applies the fault and removes it, after a steady phase of the load.
    ///
    /// # Errors
    /// When an answer violated the contract.
    pub async fn run(
        &self,
        monitored: &MonitoredGateway,
        upstream: &Upstream,
        times: Times,
        dialect: &'static str,
    ) -> Result<Row, Box<dyn std::error::Error>> {
        let tally = &monitored.load.tally;
        eprintln!("  {dialect}: {}", self.name);
        monitored.shift().await;
        monitored.peaks.set((0, 0));
        let before = Instant::now() - times.calm;
        let number = tally.borrow_mut().enter(self.allowed);
        let begun = Instant::now();
        upstream.fault(self.fault.1, self.fault.0).await?;
        sleep(times.storm).await;
        monitored.shift().await;
        upstream.fault(self.fault.1, "none").await?;
        let over = Instant::now();
        let recovering = tally.borrow_mut().enter(self.allowed);
        sleep(GRACE).await;
        tally.borrow_mut().enter(&[]);
        sleep(times.recovery).await;
        let end = Instant::now();
        monitored.check()?;

        let tally = tally.borrow();
        let phase = tally.phase(number);
        let usual = tally.usual(before, begun);
        let truth = |witness: &Witness| {
            let down = witness.lied(begun, over, self.healthy);
            let up = witness.lied(over, end, true);
            (down, up)
        };
        let (memory, tasks) = monitored.peaks.get();
        Ok(Row {
            dialect,
            name: self.name,
            answers: phase.answers,
            usual,
            during: tally.rate(begun + times.storm / 4, over),
            failures: phase.failures.clone(),
            slowest: slower(phase, tally.phase(recovering)),
            memory,
            tasks,
            health: truth(&monitored.health),
            readiness: truth(&monitored.readiness),
            back: tally.back(over, usual * 0.9),
            after: tally.rate(over + GRACE, end) / usual,
        })
    }
}

/// The slowest answer of both.
fn slower(one: &Phase, other: &Phase) -> Slowest {
    let slowest = [&one.slowest, &other.slowest];
    let slowest = slowest.into_iter().max_by_key(|slowest| slowest.took);
    slowest.cloned().unwrap_or_default()
}
