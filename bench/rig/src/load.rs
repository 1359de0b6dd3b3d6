//! A load generator that judges every answer: requests at a steady rate whatever becomes of those before (as from many people), or
//! as fast as the gateway answers. What came of them is in `tally`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::client::{Answer, Connection};
use crate::contract::judge;
use crate::mix::{Asked, Kind, Mix};
use crate::tally::Tally;

/// A request without an answer for so long hangs, whatever the gateway's `request_timeout`.
const HANGS: Duration = Duration::from_secs(20);
/// How long a client waits before it retries a message with an unknown outcome.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Messages that wait to be sent again at the most.
const WAITING: usize = 2000;
/// How much a load that fell behind catches up at most, so that it does not become a flood.
const ARREARS: f64 = 0.1;
/// How often requests are sent.
const TICK: Duration = Duration::from_millis(1);

/// See the module.
pub struct Load {
    address: String,
    mix: RefCell<Mix>,
    /// Used in turn, so that none lies idle for long.
    connections: RefCell<VecDeque<Connection>>,
    places: Semaphore,
    repeats: RefCell<VecDeque<(Instant, Asked)>>,
    pub tally: RefCell<Tally>,
    under_way: Cell<usize>,
    ended: Cell<bool>,
}

impl Load {
    /// Over at most `connections` connections to the gateway at `address`.
    pub fn new(address: &str, mix: Mix, connections: usize) -> Rc<Self> {
        Rc::new(Self {
            address: address.to_owned(),
            mix: RefCell::new(mix),
            connections: RefCell::default(),
            places: Semaphore::new(connections),
            repeats: RefCell::default(),
            tally: RefCell::new(Tally::new()),
            under_way: Cell::new(0),
            ended: Cell::new(false),
        })
    }

    /// As many requests as `connections` clients can make that wait for each answer, for this time; a second.
    pub async fn closed(self: &Rc<Self>, connections: usize, time: Duration) -> f64 {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let this = self.clone();
            clients.spawn_local(async move {
                let mut count = 0_u32;
                while began.elapsed() < time {
                    let asked = this.mix.borrow_mut().next();
                    this.one(asked).await;
                    count += 1;
                }
                count
            });
        }
        let counts = clients.join_all().await;
        f64::from(counts.iter().sum::<u32>()) / began.elapsed().as_secs_f64()
    }

    /// `rate` requests a second until [`Self::end`].
    pub fn open(self: &Rc<Self>, rate: f64) {
        let this = self.clone();
        spawn_local(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let began = Instant::now();
            let mut sent = 0.0_f64;
            while !this.ended.get() {
                ticks.tick().await;
                let due = began.elapsed().as_secs_f64() * rate;
                sent = sent.max(due - ARREARS * rate);
                while sent < due {
                    sent += 1.0;
                    let asked = this.next();
                    let this = this.clone();
                    spawn_local(async move { this.one(asked).await });
                }
            }
        });
    }

    /// And `count` wide batches at once, every so often, until then.
    pub fn bursts(self: &Rc<Self>, count: usize, every: Duration) {
        let this = self.clone();
        spawn_local(async move {
            while !this.ended.get() {
                sleep(every).await;
                for _ in 0..count {
                    let asked = this.mix.borrow_mut().wide_batch();
                    let this = this.clone();
                    spawn_local(async move { this.one(asked).await });
                }
            }
        });
    }

    /// No more requests. Waits for the answers, and closes the connections; false where some did not come.
    pub async fn end(&self) -> bool {
        self.ended.set(true);
        let began = Instant::now();
        while self.under_way.get() > 0 && began.elapsed() < HANGS {
            sleep(Duration::from_millis(10)).await;
        }
        self.connections.borrow_mut().clear();
        self.under_way.get() == 0
    }

    /// A new request, or where it would be a send, every other time one that waits to be sent again.
    fn next(&self) -> Asked {
        let new = self.mix.borrow_mut().next();
        let is_send = matches!(new.kind, Kind::SendToGroup | Kind::SendToPerson);
        let mut repeats = self.repeats.borrow_mut();
        let is_due = |(since, _): &(Instant, Asked)| since.elapsed() >= BACK_OFF;
        if is_send
            && self.tally.borrow().asked().is_multiple_of(2)
            && repeats.front().is_some_and(is_due)
            && let Some((_, asked)) = repeats.pop_front()
        {
            return asked;
        }
        new
    }

    async fn one(&self, mut asked: Asked) {
        let Ok(_place) = self.places.acquire().await else {
            return;
        };
        self.under_way.set(self.under_way.get() + 1);
        let at = self.tally.borrow_mut().ask();
        let judged = match timeout(HANGS, self.exchange(&asked.bytes)).await {
            Ok(Ok(answer)) => {
                let tally = self.tally.borrow();
                judge(&asked, &answer, |code| tally.may_say(&at, code))
            }
            Ok(Err(error)) => Err(format!("{:?}: {error}", asked.kind)),
            Err(_) => Err(format!("{:?}: hangs", asked.kind)),
        };
        self.under_way.set(self.under_way.get() - 1);
        let failed = judged.as_ref().is_ok_and(|judged| judged.failed.is_some());
        self.tally.borrow_mut().answered(&at, asked.kind, judged);
        let is_send = matches!(asked.kind, Kind::SendToGroup | Kind::SendToPerson);
        let mut repeats = self.repeats.borrow_mut();
        if is_send && failed && repeats.len() < WAITING {
            asked.repeated = true;
            repeats.push_back((Instant::now(), asked));
        }
    }

    async fn exchange(&self, request: &[u8]) -> io::Result<Answer> {
        let mut connection = match self.idle() {
            Some(connection) => connection,
            None => Connection::open(&self.address).await?,
        };
        let answer = connection.ask(request).await?;
        if answer.header("connection").is_none() {
            self.connections.borrow_mut().push_back(connection);
        }
        Ok(answer)
    }

    fn idle(&self) -> Option<Connection> {
        let mut connections = self.connections.borrow_mut();
        while let Some(connection) = connections.pop_front() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }
}
