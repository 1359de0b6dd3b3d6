//! What `/health` and `/readyz` say while WuKongIM goes and comes, and for how long that is not the truth.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, get};
use crate::contract;

/// How often each is asked.
const EVERY: Duration = Duration::from_millis(100);

struct Told {
    at: Instant,
    healthy: bool,
}

/// The answers of one of the two.
pub struct Witness {
    told: RefCell<Vec<Told>>,
    wrong: RefCell<Option<String>>,
    ended: Cell<bool>,
}

impl Witness {
    /// Of the API at this address.
    pub fn of_health(api: &str) -> Rc<Self> {
        Self::start(api, "/api/v1/im/health", contract::health)
    }

    /// Of the operations port at this address.
    pub fn of_readiness(ops: &str) -> Rc<Self> {
        Self::start(ops, "/readyz", contract::readiness)
    }

    fn start(address: &str, path: &'static str, read: fn(&Answer) -> Option<bool>) -> Rc<Self> {
        let witness = Rc::new(Self {
            told: RefCell::default(),
            wrong: RefCell::default(),
            ended: Cell::new(false),
        });
        let (this, address) = (witness.clone(), address.to_owned());
        spawn_local(async move {
            while !this.ended.get() {
                let (this, address) = (this.clone(), address.clone());
                spawn_local(async move {
                    match get(&address, path).await {
                        Ok(answer) => this.note(read(&answer), || answer.sample()),
                        Err(error) => this.note(None, || error.to_string()),
                    }
                });
                sleep(EVERY).await;
            }
        });
        witness
    }

    fn note(&self, healthy: Option<bool>, sample: impl Fn() -> String) {
        let at = Instant::now();
        match healthy {
            Some(healthy) => self.told.borrow_mut().push(Told { at, healthy }),
            None => *self.wrong.borrow_mut() = Some(sample()),
        }
    }

    /// Asks no more.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// How long after `from` the last answer came before `until` that was not the truth; `None` where hardly any came.
    pub fn lied(&self, from: Instant, until: Instant, healthy: bool) -> Option<Duration> {
        let told = self.told.borrow();
        let between = || told.iter().filter(|told| (from..until).contains(&told.at));
        if between().count() < 3 {
            return None;
        }
        let lie = between().rfind(|told| told.healthy != healthy);
        Some(lie.map_or(Duration::ZERO, |lie| lie.at.duration_since(from)))
    }

    /// # Errors
    /// Where an answer was none that the contract knows.
    pub fn check(&self) -> Result<(), String> {
        match &*self.wrong.borrow() {
            None => Ok(()),
            Some(sample) => Err(format!("health: {sample}")),
        }
    }
}
