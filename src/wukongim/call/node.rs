//! One WuKongIM node: its address, and what is known of it. Knows nothing of the other nodes.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use url::Url;

use super::ejection::Ejection;
use super::load::{Load, now_us};
use super::transport::{Answer, Call, Transport};
use crate::telemetry::NodeMeters;
use crate::wukongim::single_flight::SingleFlight;
use crate::wukongim::sockets::SocketRoute;
use crate::wukongim::{Error, Generation};

/// How long a node counts as v3 without a successful answer. v2 permits what v3 would check, and no server restarts within this time, so a
/// v2 that replaced a v3 is detected before it gets a call.
const V3_TTL: Duration = Duration::from_secs(2);
/// How long a node counts as of the other generation before it is probed again.
const OTHER_TTL: Duration = Duration::from_secs(5);
/// The shortest time from one probe to the next that no call waits for.
const BACKGROUND_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Paths without ids; their URLs are built once.
pub(crate) const PATHS: [&str; 11] = [
    "/message/send",
    "/channel/messagesync",
    "/user/token",
    "/channel/subscriber_add",
    "/channel/subscriber_remove",
    "/channel",
    "/conversation/sync",
    "/conversation/channels",
    "/conversation/list",
    "/health",
    "/healthz",
];

/// The generation that this process uses, once it is settled.
pub(crate) type Settled = Arc<OnceLock<Generation>>;

/// Whether calls may use a node, by its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// It is of the generation in use.
    Usable,
    /// It was, but is a v3 that has not answered for [`V3_TTL`]: to be probed before a call.
    Expired,
    /// To be probed before a call.
    Unknown,
    /// It is of the other generation.
    Other,
}

/// One WuKongIM node.
pub(crate) struct Node {
    /// `n1`, `n2`, … by its position in `wukongim.api_urls`: the only name of the node that leaves the process.
    pub(crate) name: Arc<str>,
    base: Url,
    urls: [(&'static str, Url); PATHS.len()],
    pub(crate) transport: Arc<Transport>,
    pub(crate) settled: Settled,
    /// `wukongim.version`.
    pub(crate) configured: Option<Generation>,
    /// As last probed: 2 or 3, 0 while it is not known.
    generation: AtomicU8,
    /// The generation that was last logged.
    logged: AtomicU8,
    /// When it last answered with a success, in microseconds.
    last_success_us: AtomicU64,
    /// When its last probe began, in microseconds; 0 before the first.
    last_probe_us: AtomicU64,
    pub(crate) probing: SingleFlight<Generation>,
    /// Whether this v2 accepts large payloads.
    pub(crate) large_payloads: SingleFlight<bool>,
    /// Its socket port.
    pub(crate) socket_route: SingleFlight<SocketRoute>,
    /// Whether the last log entry said that it accepts only small payloads.
    pub(crate) is_limited: AtomicBool,
    pub(crate) load: Load,
    pub(crate) ejection: Ejection,
    pub(crate) meters: NodeMeters,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        base: Url,
        transport: Arc<Transport>,
        configured: Option<Generation>,
        settled: Settled,
    ) -> Self {
        let name: Arc<str> = format!("n{}", index + 1).into();
        let meters = transport.metrics.node(&name);
        Self {
            name,
            urls: PATHS.map(|path| (path, join_url(&base, path).unwrap_or_else(|| base.clone()))),
            base,
            transport,
            settled,
            configured,
            generation: AtomicU8::new(0),
            logged: AtomicU8::new(0),
            last_success_us: AtomicU64::new(0),
            last_probe_us: AtomicU64::new(0),
            probing: SingleFlight::new(),
            large_payloads: SingleFlight::new(),
            socket_route: SingleFlight::new(),
            is_limited: AtomicBool::new(false),
            load: Load::default(),
            ejection: Ejection::new(meters.ejections.clone(), meters.ejected.clone()),
            meters,
        }
    }

    /// The URL of `path_and_query` on this node.
    pub(crate) fn url(&self, path_and_query: &str) -> Result<Url, Error> {
        match self.urls.iter().find(|(path, _)| *path == path_and_query) {
            Some((_, url)) => Ok(url.clone()),
            // Ids are percent-encoded before, and `.` and `..` are not valid ids, so joining cannot leave the base path.
            None => join_url(&self.base, path_and_query).ok_or(Error::Decode("url")),
        }
    }

    /// The host of its API; an IPv6 address is in brackets.
    pub(crate) fn host(&self) -> &str {
        // Its scheme is http or https, which have one.
        self.base.host_str().unwrap_or_default()
    }

    /// Carries out one call on this node.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Error> {
        self.transport.call(self, call).await
    }

    /// Whether a call may use this node.
    pub(crate) fn eligibility(&self) -> Eligibility {
        let is_recent = |at: &AtomicU64, ttl: Duration| {
            u128::from(now_us().saturating_sub(at.load(Relaxed))) < ttl.as_micros()
        };
        match (self.generation(), self.settled.get()) {
            (Some(found), Some(used)) if found == *used => {
                if found == Generation::V2 || is_recent(&self.last_success_us, V3_TTL) {
                    Eligibility::Usable
                } else {
                    Eligibility::Expired
                }
            }
            (Some(_), Some(_)) if is_recent(&self.last_probe_us, OTHER_TTL) => Eligibility::Other,
            _ => Eligibility::Unknown,
        }
    }

    /// The generation that the last probe found, where it is not the one in use.
    pub(crate) fn other_generation(&self) -> Option<Generation> {
        let settled = self.settled.get()?;
        self.generation().filter(|found| found != settled)
    }

    fn generation(&self) -> Option<Generation> {
        match self.generation.load(Relaxed) {
            2 => Some(Generation::V2),
            3 => Some(Generation::V3),
            _ => None,
        }
    }

    /// Stores what a probe found, and logs it where that is new.
    pub(crate) fn set_generation(&self, found: Generation) {
        self.generation.store(number(found), Relaxed);
        self.meters.generation.set(number(found).into());
        self.log_generation();
    }

    /// Logs the node's generation once the one in use is settled, where it is not the one logged last.
    pub(crate) fn log_generation(&self) {
        let (Some(used), Some(generation)) = (self.settled.get(), self.generation()) else {
            return;
        };
        if self.logged.swap(number(generation), Relaxed) == number(generation) {
            return;
        }
        if generation == *used {
            tracing::info!(node = %self.name, ?generation, "wukongim found");
        } else {
            tracing::error!(
                node = %self.name,
                ?generation,
                ?used,
                "wukongim node is of another generation and is not used"
            );
        }
    }

    /// The node has answered a call with a success.
    pub(crate) fn record_success_time(&self) {
        self.last_success_us.store(now_us(), Relaxed);
    }

    /// Another generation may run at this address now: probe it before the next call.
    pub(crate) fn forget_generation(&self) {
        self.forget_payload_support();
        self.generation.store(0, Relaxed);
        self.meters.generation.set(0);
    }

    /// Forgets the payload support: another v2 may answer at this address from now on.
    pub(crate) fn forget_payload_support(&self) {
        self.large_payloads.forget_if(|_, _| true);
    }

    /// Whether to probe its generation in the background now; if so, that counts as the start of the probe.
    pub(crate) fn take_due_probe(&self) -> bool {
        let (last, now) = (self.last_probe_us.load(Relaxed), now_us().max(1));
        let age_us = u128::from(now.saturating_sub(last));
        (last == 0 || age_us >= BACKGROUND_PROBE_INTERVAL.as_micros())
            && self.eligibility() == Eligibility::Unknown
            && !self.ejection.is_ejected()
            && self
                .last_probe_us
                .compare_exchange(last, now, Relaxed, Relaxed)
                .is_ok()
    }

    /// A probe begins.
    pub(crate) fn record_probe(&self) {
        self.last_probe_us.store(now_us().max(1), Relaxed);
    }
}

fn number(generation: Generation) -> u8 {
    match generation {
        Generation::V2 => 2,
        Generation::V3 => 3,
    }
}

fn join_url(base: &Url, path_and_query: &str) -> Option<Url> {
    base.join(path_and_query.trim_start_matches('/')).ok()
}

/// The URL with a slash at its end, so that paths are joined below it.
pub(crate) fn as_directory(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}
