//! One fault under load: from the calm before it to the recovery after it, and what was seen.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::Times;
use super::report::Row;
use crate::gateway::{Gateway, Upstream};
use crate::load::Load;
use crate::tally::{Phase, Slowest};
use crate::truth::Witness;

/// After a recovery what was wrong may still be told for this long.
const GRACE: Duration = Duration::from_secs(5);

/// A gateway under load, and those who watch it.
pub struct Watched {
    gateway: Rc<Gateway>,
    pub load: Rc<Load>,
    health: Rc<Witness>,
    readiness: Rc<Witness>,
    /// The most memory since it was last looked at, and the most tasks.
    peaks: Rc<Cell<(u64, u64)>>,
    broken: Rc<RefCell<Option<io::Error>>>,
    ended: Rc<Cell<bool>>,
    offset: Cell<Duration>,
}

impl Watched {
    pub fn start(gateway: Gateway, load: Rc<Load>) -> Self {
        let watched = Self {
            health: Witness::of_health(&gateway.api),
            readiness: Witness::of_readiness(&gateway.ops),
            gateway: Rc::new(gateway),
            load,
            peaks: Rc::default(),
            broken: Rc::default(),
            ended: Rc::default(),
            offset: Cell::default(),
        };
        let (gateway, peaks) = (watched.gateway.clone(), watched.peaks.clone());
        let (broken, ended) = (watched.broken.clone(), watched.ended.clone());
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
        watched
    }

    /// The gateway and its load, which goes on; the others watch no more.
    pub fn end(self) -> (Rc<Gateway>, Rc<Load>) {
        self.health.end();
        self.readiness.end();
        self.ended.set(true);
        (self.gateway, self.load)
    }

    /// Each time another part of a second: what the gateway does once a second must not always be met at the same moment.
    async fn shift(&self) {
        let offset = self.offset.get() + Duration::from_millis(370);
        self.offset
            .set(Duration::from_millis(u64::from(offset.subsec_millis())));
        sleep(self.offset.get()).await;
    }

    /// # Errors
    /// Where an answer was none that the contract allows, or the gateway is gone.
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

/// A fault, and what may be told of it.
pub struct Spell {
    /// For people.
    pub name: &'static str,
    /// For the fake WuKongIM: what, and on which node (0: all).
    pub fault: (&'static str, usize),
    /// Whether WuKongIM is well all the same.
    pub well: bool,
    /// The codes that may be told.
    pub allowed: &'static [&'static str],
    /// Whether a quick look has it.
    quick: bool,
}

/// Answers come late: requests pile up, and the last ones are refused.
const CROWD: &[&str] = &["overloaded", "partial_failure"];
/// No answer comes: nothing is known of what was sent, nothing can be looked up, and requests pile up.
const SILENCE: &[&str] = &[
    "message_unconfirmed",
    "upstream_timeout",
    "upstream_unavailable",
    "overloaded",
    "partial_failure",
];
/// Connections break: nobody waits for long.
const LOSS: &[&str] = &[
    "message_unconfirmed",
    "upstream_unavailable",
    "overloaded",
    "partial_failure",
];
const NONSENSE: &[&str] = &[
    "message_unconfirmed",
    "upstream_unavailable",
    "upstream_error",
    "overloaded",
    "partial_failure",
];

impl Spell {
    /// Those of a WuKongIM of one node.
    pub fn of_one_node(v3: bool, quick: bool) -> impl Iterator<Item = Self> {
        let spell = |name, fault, well, allowed, quick| Self {
            name,
            fault: (fault, 0),
            well,
            allowed,
            quick,
        };
        let all = [
            spell("latency × 100", "slow", true, CROWD, !v3),
            spell("half-answers, then closed", "half", false, LOSS, false),
            spell(
                "half-answers, then nothing",
                "stalled",
                false,
                SILENCE,
                false,
            ),
            spell("resets", "reset", false, LOSS, false),
            spell("garbage", "garbage", false, NONSENSE, v3),
            spell("full stop: no answers", "silent", false, SILENCE, !v3),
            spell("full stop: no process", "dead", false, LOSS, v3),
        ];
        all.into_iter().filter(move |spell| spell.quick || !quick)
    }

    /// One of some nodes.
    pub const fn on_one_of_several(
        name: &'static str,
        fault: &'static str,
        node: usize,
        allowed: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            fault: (fault, node),
            well: true,
            allowed,
            quick: true,
        }
    }

    /// Casts it and takes it away. The load has been calm for a while.
    ///
    /// # Errors
    /// Where an answer was none that the contract allows.
    pub async fn cast(
        &self,
        watched: &Watched,
        upstream: &Upstream,
        times: Times,
        dialect: &'static str,
    ) -> Result<Row, Box<dyn std::error::Error>> {
        let tally = &watched.load.tally;
        eprintln!("  {dialect}: {}", self.name);
        watched.shift().await;
        watched.peaks.set((0, 0));
        let before = Instant::now() - times.calm;
        let number = tally.borrow_mut().enter(self.allowed);
        let begun = Instant::now();
        upstream.fault(self.fault.1, self.fault.0).await?;
        sleep(times.storm).await;
        watched.shift().await;
        upstream.fault(self.fault.1, "none").await?;
        let over = Instant::now();
        let recovering = tally.borrow_mut().enter(self.allowed);
        sleep(GRACE).await;
        tally.borrow_mut().enter(&[]);
        sleep(times.recovery).await;
        let end = Instant::now();
        watched.check()?;

        let tally = tally.borrow();
        let phase = tally.phase(number);
        let usual = tally.usual(before, begun);
        let truth = |witness: &Witness| {
            let down = witness.lied(begun, over, self.well);
            let up = witness.lied(over, end, true);
            (down, up)
        };
        let (memory, tasks) = watched.peaks.get();
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
            health: truth(&watched.health),
            readiness: truth(&watched.readiness),
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
