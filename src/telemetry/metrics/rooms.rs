//! What single rooms count. Each series is made once, by its room, so that nothing is looked up by labels while requests are served.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{counted, seconds, timed};

/// One label and its value.
type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn outcomes<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    names: [&'static str; N],
) -> [Counter; N] {
    let family: Family<One, Counter> = counted(registry, name, help);
    names.map(|outcome| family.get_or_create(&[("outcome", outcome)]).clone())
}

/// `gateway_messages_total`: what clients were told of their messages, those of batches one by one.
pub struct MessageMeters {
    /// Stored, or with `wukongim.confirm = "accepted"` accepted.
    pub sent: Counter,
    /// The sender may not.
    pub denied: Counter,
    /// Its number was used for another payload.
    pub conflict: Counter,
    /// WuKongIM did not take it.
    pub failed: Counter,
    /// Perhaps stored.
    pub unconfirmed: Counter,
}

impl MessageMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let names = ["sent", "denied", "conflict", "failed", "unconfirmed"];
        let help = "messages by what their clients were told of them";
        let [sent, denied, conflict, failed, unconfirmed] =
            outcomes(registry, "messages", help, names);
        Self {
            sent,
            denied,
            conflict,
            failed,
            unconfirmed,
        }
    }
}

/// `gateway_idempotency_lookups_total`: what the number of a message meant that was to be sent to v2.
pub struct NumberMeters {
    /// Never seen within the window.
    pub new: Counter,
    /// Stored before: the first answer was given again.
    pub repeated: Counter,
    /// Sent before, outcome unknown: it was looked for.
    pub unknown: Counter,
    /// Used for another payload.
    pub conflict: Counter,
    /// Being sent just then: it was waited for.
    pub busy: Counter,
    /// `gateway_idempotency_forgotten_total`: entries dropped before their window ended, since the table was full.
    pub forgotten: Counter,
}

impl NumberMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let names = ["new", "repeated", "unknown", "conflict", "busy"];
        let help = "numbers of messages by what was known of them";
        let [new, repeated, unknown, conflict, busy] =
            outcomes(registry, "idempotency_lookups", help, names);
        let help = "remembered sends dropped before their window ended";
        let forgotten = counted(registry, "idempotency_forgotten", help);
        Self {
            new,
            repeated,
            unknown,
            conflict,
            busy,
            forgotten,
        }
    }
}

/// The API's connections. Those refused count as `gateway_limited_total{limit="connections"}`.
#[derive(Clone, Default)]
pub struct ConnectionMeters {
    /// `gateway_connections`.
    pub open: Gauge,
    /// `gateway_connections_opened_total`.
    pub opened: Counter,
}

impl ConnectionMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        Self {
            open: counted(registry, "connections", "open connections"),
            opened: counted(
                registry,
                "connections_opened",
                "connections that were taken",
            ),
        }
    }
}

/// What the store is asked. Made by the store, which is there before the registry.
#[derive(Clone)]
pub struct StoreMeters {
    asked: Family<Two, Counter>,
    durations: Histograms<One>,
}

impl Default for StoreMeters {
    fn default() -> Self {
        Self {
            asked: Family::default(),
            durations: Histograms::new_with_constructor(seconds),
        }
    }
}

impl StoreMeters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "questions to the store";
        registry.register("store_requests", help, self.asked.clone());
        let help = "time of a question to the store";
        timed(
            registry,
            "store_request_duration",
            help,
            self.durations.clone(),
        );
    }

    /// Counts one question.
    pub fn asked(&self, call: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("call", call), ("outcome", outcome)];
        self.asked.get_or_create(&labels).inc();
        let duration = self.durations.get_or_create(&[("call", call)]);
        duration.observe(took.as_secs_f64());
    }
}

/// What is asked of others than WuKongIM and the store.
pub struct OutsideMeters {
    callback: Family<Two, Counter>,
    callback_durations: Histogram,
    fetches: Family<One, Counter>,
    /// `gateway_jwks_keys`: usable keys of the issuer.
    pub keys: Gauge,
}

impl OutsideMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let help = "time of a question to the application's backend, waiting for a place included";
        Self {
            callback: counted(
                registry,
                "callback_requests",
                "questions to the application's backend",
            ),
            callback_durations: timed(registry, "callback_request_duration", help, seconds()),
            fetches: counted(registry, "jwks_fetches", "fetches of the issuer's keys"),
            keys: counted(registry, "jwks_keys", "usable keys of the issuer"),
        }
    }

    /// Counts one question to the application's backend.
    pub fn callback_asked(&self, action: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("action", action), ("outcome", outcome)];
        self.callback.get_or_create(&labels).inc();
        self.callback_durations.observe(took.as_secs_f64());
    }

    /// Counts one fetch of the issuer's keys.
    pub fn keys_fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}
