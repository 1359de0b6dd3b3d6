//! What came of a load's requests, by tenths of a second and by phases. Knows nothing of how they are made.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::Judged;
use crate::mix::Kind;

const SLOT: Duration = Duration::from_millis(100);
/// Slots that make a second.
const SECOND: usize = 10;
/// Answers that were wrong are kept, so many.
const SAMPLES: usize = 5;

/// See the module.
pub struct Tally {
    began: Instant,
    /// Successes of what needs WuKongIM.
    good: Vec<u32>,
    phases: Vec<Phase>,
    asked: u64,
    sent: u64,
    wrong: Vec<String>,
    wrongs: u64,
}

/// A phase in which the same failures are allowed.
pub struct Phase {
    allowed: &'static [&'static str],
    /// Answers to requests of this phase.
    pub answers: u64,
    pub failures: BTreeMap<&'static str, u64>,
    pub slowest: Slowest,
}

/// The slowest answer.
#[derive(Clone, Default)]
pub struct Slowest {
    pub took: Duration,
    /// To what, and what it said.
    pub what: String,
}

/// When a request was made.
pub struct At {
    when: Instant,
    phase: usize,
}

impl Tally {
    /// In a phase in which nothing may fail.
    pub fn new() -> Self {
        let mut tally = Self {
            began: Instant::now(),
            good: Vec::new(),
            phases: Vec::new(),
            asked: 0,
            sent: 0,
            wrong: Vec::new(),
            wrongs: 0,
        };
        tally.enter(&[]);
        tally
    }

    /// Begins a phase in which these codes are allowed; returns its number.
    pub fn enter(&mut self, allowed: &'static [&'static str]) -> usize {
        self.phases.push(Phase {
            allowed,
            answers: 0,
            failures: BTreeMap::new(),
            slowest: Slowest::default(),
        });
        self.phases.len() - 1
    }

    pub fn phase(&self, number: usize) -> &Phase {
        &self.phases[number]
    }

    /// Requests so far.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    pub fn ask(&mut self) -> At {
        self.asked += 1;
        At {
            when: Instant::now(),
            phase: self.phases.len() - 1,
        }
    }

    /// Whether a request that was made then may be told this now: what holds for any phase it lived in.
    pub fn may_say(&self, at: &At, code: &str) -> bool {
        let mut phases = self.phases[at.phase..].iter();
        phases.any(|phase| phase.allowed.contains(&code))
    }

    /// Messages that are stored, going by the answers.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn answered(&mut self, at: &At, kind: Kind, judged: Result<Judged, String>) {
        let phase = &mut self.phases[at.phase];
        phase.answers += 1;
        let took = at.when.elapsed();
        if took > phase.slowest.took {
            let said = match &judged {
                Ok(judged) => judged.failed.unwrap_or("done"),
                Err(_) => "wrong",
            };
            phase.slowest = Slowest {
                took,
                what: format!("{kind:?}: {said}"),
            };
        }
        let judged = match judged {
            Ok(judged) => judged,
            Err(why) => {
                self.wrongs += 1;
                if self.wrong.len() < SAMPLES {
                    self.wrong.push(why);
                }
                return;
            }
        };
        self.sent += judged.sent as u64;
        match judged.failed {
            Some(code) => *phase.failures.entry(code).or_default() += 1,
            None if matches!(kind, Kind::Invalid | Kind::Anonymous) => {}
            None => {
                let slot = self.slot(Instant::now());
                if self.good.len() <= slot {
                    self.good.resize(slot + 1, 0);
                }
                self.good[slot] += 1;
            }
        }
    }

    fn slot(&self, at: Instant) -> usize {
        let slot = at.duration_since(self.began).as_millis() / SLOT.as_millis();
        usize::try_from(slot).unwrap_or(0)
    }

    /// Successes a second between two times.
    pub fn rate(&self, from: Instant, until: Instant) -> f64 {
        let (from, until) = (self.slot(from), self.slot(until));
        let slots = from..until.max(from + 1);
        let length = f64::from(u32::try_from(slots.len()).unwrap_or(u32::MAX));
        let good: u32 = slots.filter_map(|slot| self.good.get(slot)).sum();
        f64::from(good) / length * SLOT.as_secs_f64().recip()
    }

    /// Successes in the middle one of the seconds between two times.
    pub fn usual(&self, from: Instant, until: Instant) -> f64 {
        let (from, until) = (self.slot(from), self.slot(until).min(self.good.len()));
        let seconds = self.good.get(from..until).unwrap_or_default();
        let mut seconds: Vec<u32> = seconds
            .chunks_exact(SECOND)
            .map(|second| second.iter().sum())
            .collect();
        seconds.sort_unstable();
        f64::from(seconds.get(seconds.len() / 2).copied().unwrap_or(0))
    }

    /// How long after `from` the first whole second ends that has `least` successes.
    pub fn back(&self, from: Instant, least: f64) -> Option<Duration> {
        // What is left of the slot in which it is still belongs to what was before.
        let first = self.slot(from) + 1;
        let second = |start: usize| {
            let slots = self.good.get(start..start + SECOND)?;
            Some(f64::from(slots.iter().sum::<u32>()))
        };
        let mut starts = (first..).map_while(|start| Some((start, second(start)?)));
        let (start, _) = starts.find(|(_, good)| *good >= least)?;
        let end = self.began + SLOT * u32::try_from(start + SECOND).unwrap_or(u32::MAX);
        Some(end.duration_since(from))
    }

    /// Answers that the contract does not allow.
    ///
    /// # Errors
    /// Where there were any, with samples.
    pub fn check(&self) -> Result<(), String> {
        match self.wrongs {
            0 => Ok(()),
            count => Err(format!(
                "{count} of {} answers are wrong:\n  {}",
                self.asked,
                self.wrong.join("\n  ")
            )),
        }
    }
}
