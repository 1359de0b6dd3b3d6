//! Metrics of single modules. Each series is created once, so that no labels are looked up while requests are served.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::families::{Label, Seconds, register};

/// Registers a counter with the label `outcome`; the result makes the one of each.
fn outcomes(
    all: &mut Registry,
    name: &str,
    help: &str,
) -> impl Fn(&'static str) -> Counter + use<> {
    let family: Family<[Label; 1], Counter> = register(all, name, help);
    move |outcome| family.get_or_create(&[("outcome", outcome)]).clone()
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
    pub(super) fn registered(all: &mut Registry) -> Self {
        let help = "messages by the result that clients got";
        let outcome = outcomes(all, "messages", help);
        Self {
            sent: outcome("sent"),
            denied: outcome("denied"),
            conflict: outcome("conflict"),
            failed: outcome("failed"),
            unconfirmed: outcome("unconfirmed"),
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
    pub(super) fn registered(all: &mut Registry) -> Self {
        let help = "lookups of client_msg_no before sends, by result";
        let outcome = outcomes(all, "idempotency_lookups", help);
        Self {
            new: outcome("new"),
            repeated: outcome("repeated"),
            unknown: outcome("unknown"),
            conflict: outcome("conflict"),
            busy: outcome("busy"),
            evicted: register(all, "idempotency_forgotten", "sends evicted early"),
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
    pub(super) fn registered(all: &mut Registry) -> Self {
        Self {
            open: register(all, "connections", "open connections"),
            opened: register(all, "connections_opened", "accepted connections"),
        }
    }
}

/// Queries to the store. Created by the store, which exists before the registry.
#[derive(Clone, Default)]
pub struct StoreMeters {
    requests: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Seconds>,
}

impl StoreMeters {
    pub(super) fn register(&self, all: &mut Registry) {
        let (requests, durations) = (self.requests.clone(), self.durations.clone());
        all.register("store_requests", "queries to the store", requests);
        let (name, help) = ("store_request_duration", "time of a query to the store");
        all.register_with_unit(name, help, Unit::Seconds, durations);
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
    callback: Family<[Label; 2], Counter>,
    callback_durations: Seconds,
    fetches: Family<[Label; 1], Counter>,
    /// `gateway_jwks_keys`: usable keys of the issuer.
    pub keys: Gauge,
}

impl ExternalMetrics {
    pub(super) fn registered(all: &mut Registry) -> Self {
        Self {
            callback: register(all, "callback_requests", "calls to the backend"),
            callback_durations: register(all, "callback_request_duration_seconds", "time of one"),
            fetches: register(all, "jwks_fetches", "fetches of the issuer's keys"),
            keys: register(all, "jwks_keys", "usable keys of the issuer"),
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
