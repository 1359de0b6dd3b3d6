//! The open sockets of this process: how many there are, whose they are, and how each is told to end. Knows no protocol.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::auth::DeviceFlag;
use crate::config;
use crate::domain::Uid;

/// Sockets closed per second when the gateway stops, unless the time is too short for that: the SDKs reconnect after exactly 3 s.
const CLOSED_PER_SECOND: u32 = 500;

/// Why the gateway ends a socket whose client and WuKongIM are fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// Its token was revoked.
    Revoked,
    /// Its user has opened more than `socket.per_user`.
    Replaced,
    /// The gateway stops.
    Drain,
}

/// All sockets of this process.
pub struct Sockets {
    max: u32,
    permits: Arc<Semaphore>,
    per_user: usize,
    users: Mutex<HashMap<Uid, Vec<OpenSocket>>>,
    last_id: AtomicU64,
    closing: watch::Sender<bool>,
}

/// A socket that is connected to WuKongIM.
struct OpenSocket {
    id: u64,
    device: DeviceFlag,
    end: oneshot::Sender<EndSignal>,
}

/// A socket's part in the list; it leaves the list when this is dropped.
pub struct Registration {
    sockets: Arc<Sockets>,
    uid: Uid,
    id: u64,
    /// Ready when the socket must end.
    pub end: oneshot::Receiver<EndSignal>,
}

impl Sockets {
    /// No sockets yet.
    pub fn new(settings: &config::Socket) -> Arc<Self> {
        let max = settings.max_connections;
        Arc::new(Self {
            max: u32::try_from(max).unwrap_or(u32::MAX),
            permits: Arc::new(Semaphore::new(max)),
            per_user: settings.per_user,
            users: Mutex::default(),
            last_id: AtomicU64::new(0),
            closing: watch::Sender::new(false),
        })
    }

    /// A place for one more socket, from its upgrade on; `None` when there are `socket.max_connections`, or the gateway stops.
    pub fn try_admit(&self) -> Option<OwnedSemaphorePermit> {
        if *self.closing.borrow() {
            return None;
        }
        self.permits.clone().try_acquire_owned().ok()
    }

    /// The places for sockets, for a listener of its own.
    pub fn permits(&self) -> Arc<Semaphore> {
        self.permits.clone()
    }

    /// Adds a socket whose token was verified. Beyond `socket.per_user` the user's oldest one of the same device flag ends, else the oldest
    /// of all.
    pub fn register(self: &Arc<Self>, uid: &Uid, device: DeviceFlag) -> Registration {
        let (end_sender, end) = oneshot::channel();
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let mut users = self.users.lock();
        let open = users.entry(uid.clone()).or_default();
        // In the order of their registration.
        if open.len() >= self.per_user {
            let same_device = open.iter().position(|socket| socket.device == device);
            let replaced = open.remove(same_device.unwrap_or(0));
            let _ = replaced.end.send(EndSignal::Replaced);
        }
        if *self.closing.borrow() {
            // Too late for `close_all`, perhaps.
            let _ = end_sender.send(EndSignal::Drain);
        } else {
            open.push(OpenSocket {
                id,
                device,
                end: end_sender,
            });
        }
        Registration {
            sockets: Arc::clone(self),
            uid: uid.clone(),
            id,
            end,
        }
    }

    /// Ends the user's sockets on these devices, whose tokens are revoked.
    pub fn end_revoked(&self, uid: &Uid, devices: &[DeviceFlag]) {
        let mut users = self.users.lock();
        let Some(open) = users.get_mut(uid) else {
            return;
        };
        for revoked in open.extract_if(.., |socket| devices.contains(&socket.device)) {
            let _ = revoked.end.send(EndSignal::Revoked);
        }
    }

    /// Admits no more sockets, and ends those that are not connected to WuKongIM yet: see [`Self::closing`].
    pub fn refuse_new(&self) {
        self.closing.send_replace(true);
    }

    /// Returns when [`Self::refuse_new`] was called.
    pub async fn closing(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Ends all sockets, 500 a second or as fast as `time` requires, and returns when the last one is closed.
    pub async fn close_all(&self, time: Duration) {
        self.refuse_new();
        let open: Vec<OpenSocket> = self
            .users
            .lock()
            .drain()
            .flat_map(|(_, open)| open)
            .collect();
        let count = u32::try_from(open.len()).unwrap_or(u32::MAX).max(1);
        // The last tenth is for those that close slowly.
        let gap = (time.mul_f64(0.9) / count).min(Duration::from_secs(1) / CLOSED_PER_SECOND);
        let began = Instant::now();
        for (number, socket) in (0_u32..).zip(open) {
            sleep_until(began + gap * number).await;
            let _ = socket.end.send(EndSignal::Drain);
        }
        // All of them are back when no socket has one.
        let _ = self.permits.acquire_many(self.max).await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut users = self.sockets.users.lock();
        if let Some(open) = users.get_mut(&self.uid) {
            open.retain(|socket| socket.id != self.id);
            if open.is_empty() {
                users.remove(&self.uid);
            }
        }
    }
}
