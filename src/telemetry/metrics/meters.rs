//! Metrics of single modules. Each series is created once, so that no labels are looked up while requests are served.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{register, register_seconds, seconds};

/// One label with its value.
type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn outcomes<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    names: [&'static str; N],
) -> [Counter; N] {
    let family: Family<One, Counter> = register(registry, name, help);
    names.map(|outcome| family.get_or_create(&[("outcome", outcome)]).clone())
}

/// `gateway_messages_total`: messages by the result that clients got, batches message by message.
pub struct MessageMeters {
    /// Stored, or with `wukongim.confirm = "accepted"` accepted.
    pub sent: Counter,
    /// The sender was not permitted.
    pub denied: Counter,
    /// Its client_msg_no was used for another payload.
    pub conflict: Counter,
    /// WuKongIM did not accept it.
    pub failed: Counter,
    /// Possibly stored.
    pub unconfirmed: Counter,
}

impl MessageMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let names = ["sent", "denied", "conflict", "failed", "unconfirmed"];
        let help = "messages by the result that clients got";
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

/// `gateway_idempotency_lookups_total`: lookups of client_msg_no before sends to v2, by result.
pub struct IdempotencyMeters {
    /// Not seen within the window.
    pub new: Counter,
    /// Stored before: the first answer was repeated.
    pub repeated: Counter,
    /// Sent before with an unknown outcome: it was searched for.
    pub unknown: Counter,
    /// Used for another payload.
    pub conflict: Counter,
    /// Being sent by another request, which was awaited.
    pub busy: Counter,
    /// `gateway_idempotency_forgotten_total`: entries evicted before their window ended, since the store was full.
    pub evicted: Counter,
}

impl IdempotencyMeters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let names = ["new", "repeated", "unknown", "conflict", "busy"];
        let help = "lookups of client_msg_no before sends, by result";
        let [new, repeated, unknown, conflict, busy] =
            outcomes(registry, "idempotency_lookups", help, names);
        let help = "remembered sends evicted before their window ended";
        let evicted = register(registry, "idempotency_forgotten", help);
        Self {
            new,
            repeated,
            unknown,
            conflict,
            busy,
            evicted,
        }
    }
}

/// The API's connections. Refused ones count as `gateway_limited_total{limit="connections"}`.
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
            open: register(registry, "connections", "open connections"),
            opened: register(registry, "connections_opened", "accepted connections"),
        }
    }
}

/// Queries to the store. Created by the store, which exists before the registry.
#[derive(Clone)]
pub struct StoreMeters {
    requests: Family<Two, Counter>,
    durations: Histograms<One>,
}

impl Default for StoreMeters {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Histograms::new_with_constructor(seconds),
        }
    }
}

impl StoreMeters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "queries to the store";
        registry.register("store_requests", help, self.requests.clone());
        let help = "time of a query to the store";
        register_seconds(
            registry,
            "store_request_duration",
            help,
            self.durations.clone(),
        );
    }

    /// Counts one query.
    pub fn observe(&self, call: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("call", call), ("outcome", outcome)];
        self.requests.get_or_create(&labels).inc();
        let duration = self.durations.get_or_create(&[("call", call)]);
        duration.observe(took.as_secs_f64());
    }
}

/// Calls to systems other than WuKongIM and the store.
pub struct ExternalMetrics {
    callback: Family<Two, Counter>,
    callback_durations: Histogram,
    fetches: Family<One, Counter>,
    /// `gateway_jwks_keys`: usable keys of the issuer.
    pub keys: Gauge,
}

impl ExternalMetrics {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let help = "time of a call to the application's backend, including the wait for a permit";
        Self {
            callback: register(
                registry,
                "callback_requests",
                "calls to the application's backend",
            ),
            callback_durations: register_seconds(
                registry,
                "callback_request_duration",
                help,
                seconds(),
            ),
            fetches: register(registry, "jwks_fetches", "fetches of the issuer's keys"),
            keys: register(registry, "jwks_keys", "usable keys of the issuer"),
        }
    }

    /// Counts one call to the application's backend.
    pub fn callback_called(&self, action: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("action", action), ("outcome", outcome)];
        self.callback.get_or_create(&labels).inc();
        self.callback_durations.observe(took.as_secs_f64());
    }

    /// Counts one fetch of the issuer's keys.
    pub fn keys_fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}
