//! Scripted faults: which calls fail, how, and how often.
//!
//! Every rule that matches a call applies to it; if two answer it, the first one added does.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::reply::Storing;

/// A kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The call waits before it is processed.
    Delay(Duration),
    /// The call waits, unprocessed, until [`Faults::release`] is called with this name.
    Hold(String),
    /// The call is processed, and its answer waits until [`Faults::release`] is called with this name.
    HoldAnswer(String),
    /// Not processed; this status with this body, as JSON.
    Status(u16, String),
    /// Not processed; 200 with something that is not JSON.
    Garbage,
    /// Not processed; these bytes as they are, and the connection is closed.
    Raw(Bytes),
    /// Not processed; the connection is reset.
    Reset,
    /// Processed; the connection is reset.
    ResetAfter,
    /// Processed; the connection is closed in the middle of the answer's body.
    HalfAnswer,
    /// Processed; half of the answer's body, and then nothing.
    StalledAnswer,
    /// Not processed and never answered.
    Hang,
    /// v2 sends only: 200 with an id, and the message is never stored.
    DropMessage,
    /// v2 sends only: 200 with an id, and the message is stored, with the seq of that moment, this much later.
    StoreLate(Duration),
    /// Each of these in turn, one for each call.
    InTurn(Vec<Fault>),
}

/// A fault and the calls it applies to.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Option<String>,
    path: String,
    exact: bool,
    containing: Option<String>,
    skip: usize,
    left: Option<usize>,
    /// How often it has applied.
    turn: usize,
    fault: Fault,
}

impl Rule {
    /// For every call whose path (with its query) begins with `path_prefix`, until the faults are cleared.
    pub fn new(path_prefix: impl Into<String>, fault: Fault) -> Self {
        Self {
            method: None,
            path: path_prefix.into(),
            exact: false,
            containing: None,
            skip: 0,
            left: None,
            turn: 0,
            fault,
        }
    }

    /// For calls of exactly this path, whatever their query: `/channel` without `/channel/info`.
    pub fn exact(path: impl Into<String>, fault: Fault) -> Self {
        Self {
            exact: true,
            ..Self::new(path, fault)
        }
    }

    /// Only calls with this method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only calls with this text in their body or query.
    #[must_use]
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.containing = Some(text.into());
        self
    }

    /// Lets the first `calls` matching calls pass.
    #[must_use]
    pub fn skip(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    /// Applies to `calls` calls, then no more.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.left = Some(calls);
        self
    }

    fn matches(&self, method: &str, target: &str, body: &[u8]) -> bool {
        let path = target.split('?').next().unwrap_or(target);
        let path_fits = if self.exact {
            path == self.path
        } else {
            target.starts_with(&self.path)
        };
        path_fits
            && self.method.as_deref().is_none_or(|wanted| wanted == method)
            && self
                .containing
                .as_deref()
                .is_none_or(|text| target.contains(text) || contains(body, text.as_bytes()))
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// The faults of one call.
#[derive(Debug, Default)]
pub(super) struct CallFaults {
    pub(super) delay: Duration,
    pub(super) holds: Vec<String>,
    pub(super) instead: Option<Fault>,
    pub(super) answer_holds: Vec<String>,
    pub(super) after: Option<Fault>,
    pub(super) storing: Storing,
}

impl CallFaults {
    fn add(&mut self, fault: &Fault, turn: usize) {
        match fault {
            Fault::Delay(delay) => self.delay += *delay,
            Fault::Hold(name) => self.holds.push(name.clone()),
            Fault::HoldAnswer(name) => self.answer_holds.push(name.clone()),
            Fault::DropMessage => self.storing = Storing::Never,
            Fault::StoreLate(late) => self.storing = Storing::Late(*late),
            Fault::InTurn(faults) => self.add(&faults[turn % faults.len()], 0),
            Fault::ResetAfter | Fault::HalfAnswer | Fault::StalledAnswer => {
                self.after.get_or_insert_with(|| fault.clone());
            }
            Fault::Status(..) | Fault::Garbage | Fault::Raw(_) | Fault::Reset | Fault::Hang => {
                self.instead.get_or_insert_with(|| fault.clone());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Hold {
    released: bool,
    waiting: usize,
}

/// The faults of one upstream.
#[derive(Debug)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    holds: Mutex<HashMap<String, Hold>>,
    /// Counts changes of `holds`, to wake the waiting calls.
    changes: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Mutex::default(),
            holds: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Faults {
    /// Adds a rule. Resets a released `Hold` of the same name.
    pub fn add(&self, rule: Rule) {
        if let Fault::Hold(name) | Fault::HoldAnswer(name) = &rule.fault {
            self.holds.lock().entry(name.clone()).or_default().released = false;
        }
        self.rules.lock().push(rule);
    }

    /// `fault` for every call whose path begins with `path_prefix`, until [`clear`](Self::clear).
    pub fn always(&self, path_prefix: &str, fault: Fault) {
        self.add(Rule::new(path_prefix, fault));
    }

    /// `fault` for the next call whose path begins with `path_prefix`.
    pub fn once(&self, path_prefix: &str, fault: Fault) {
        self.add(Rule::new(path_prefix, fault).times(1));
    }

    /// Removes all rules and releases all held calls.
    pub fn clear(&self) {
        self.rules.lock().clear();
        for hold in self.holds.lock().values_mut() {
            hold.released = true;
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Releases every call held under `name`, and does not hold later ones.
    pub fn release(&self, name: &str) {
        self.holds
            .lock()
            .entry(name.to_owned())
            .or_default()
            .released = true;
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until at least `calls` calls are held under `name`.
    pub async fn wait_held(&self, name: &str, calls: usize) {
        self.wait_for(|holds| holds.get(name).is_some_and(|hold| hold.waiting >= calls))
            .await;
    }

    /// The number of rules that can still apply.
    pub fn remaining(&self) -> usize {
        self.rules.lock().len()
    }

    /// Waits, counted as held, until `name` is released.
    pub(super) async fn hold(&self, name: &str) {
        // The count must be decremented also when this future is dropped.
        let _waiting = Waiting::new(self, name);
        self.wait_for(|holds| holds.get(name).is_none_or(|hold| hold.released))
            .await;
    }

    async fn wait_for(&self, done: impl Fn(&HashMap<String, Hold>) -> bool) {
        let mut changes = self.changes.subscribe();
        while !done(&self.holds.lock()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn count(&self, name: &str, change: impl FnOnce(&mut usize)) {
        change(
            &mut self
                .holds
                .lock()
                .entry(name.to_owned())
                .or_default()
                .waiting,
        );
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes the faults for one call from the rules.
    pub(super) fn take_for_call(&self, method: &str, target: &str, body: &[u8]) -> CallFaults {
        let mut call_faults = CallFaults::default();
        let mut rules = self.rules.lock();
        for rule in rules
            .iter_mut()
            .filter(|rule| rule.matches(method, target, body))
        {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if let Some(left) = &mut rule.left {
                let Some(less) = left.checked_sub(1) else {
                    continue;
                };
                *left = less;
            }
            call_faults.add(&rule.fault, rule.turn);
            rule.turn += 1;
        }
        rules.retain(|rule| rule.left != Some(0));
        call_faults
    }
}

struct Waiting<'a> {
    faults: &'a Faults,
    name: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(faults: &'a Faults, name: &'a str) -> Self {
        faults.count(name, |waiting| *waiting += 1);
        Self { faults, name }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.faults.count(self.name, |waiting| *waiting -= 1);
    }
}
