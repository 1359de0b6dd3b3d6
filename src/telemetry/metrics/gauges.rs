//! Gauges that are set only when metrics are scraped: buffered bytes, cache sizes, connections, and the process's resources.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::families::{Label, register};
use super::process;
use crate::telemetry::log_writer::dropped_lines;

/// The gauges.
pub struct Gauges {
    in_flight: Gauge,
    buffered: Gauge,
    remembered_sends: Gauge,
    limiter: Family<[Label; 1], Gauge>,
    caches: Family<[Label; 1], Gauge>,
    store: Family<[Label; 1], Gauge>,
    log_dropped: Family<[Label; 1], Counter>,
    tasks: Gauge,
    runtimes: Mutex<Vec<Handle>>,
    resident: Gauge,
    files: Gauge,
    cpu: Counter<f64, AtomicU64>,
}

/// Current values, as reported by the modules.
pub struct GaugeSnapshot {
    /// Requests that are being worked on.
    pub in_flight: usize,
    /// Bytes of request bodies and upstream answers.
    pub buffered: usize,
    /// Entries of the idempotency store.
    pub remembered_sends: usize,
    /// Users and addresses whose buckets are not full.
    pub limiter_entries: [(&'static str, usize); 2],
    /// Entries by cache.
    pub caches: Vec<(&'static str, usize)>,
    /// Connections to the store: `busy` and `idle` ones.
    pub store: [(&'static str, usize); 2],
}

impl Gauges {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let all = registry;
        let started: Gauge<f64, AtomicU64> =
            register(all, "process_start_time_seconds", "start, since 1970");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        started.set(now.unwrap_or_default().as_secs_f64());
        Self {
            in_flight: register(all, "http_requests_in_flight", "requests in progress"),
            buffered: register(all, "buffered_bytes", "request bodies and upstream answers"),
            remembered_sends: register(all, "idempotency_entries", "remembered sends"),
            limiter: register(all, "limiter_entries", "buckets that are not full"),
            caches: register(all, "cache_entries", "entries of caches"),
            store: register(all, "store_connections", "connections to the store"),
            log_dropped: register(all, "log_lines_dropped", "lines that were not written"),
            tasks: register(all, "tasks", "tasks that have not ended"),
            runtimes: Mutex::default(),
            resident: register(all, "process_resident_memory_bytes", "memory in RAM"),
            files: register(all, "process_open_fds", "open files"),
            cpu: register(all, "process_cpu_seconds", "user and system time"),
        }
    }

    /// Includes this runtime's tasks in the gauge.
    pub fn track_runtime(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    /// Sets the gauges to `snapshot`, and those of the process to current values.
    pub fn set(&self, snapshot: &GaugeSnapshot) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.in_flight.set(number(snapshot.in_flight));
        self.buffered.set(number(snapshot.buffered));
        self.remembered_sends.set(number(snapshot.remembered_sends));
        let families = [
            ("kind", &self.limiter, &snapshot.limiter_entries[..]),
            ("cache", &self.caches, &snapshot.caches),
            ("state", &self.store, &snapshot.store),
        ];
        for (label, family, values) in families {
            for (value, count) in values {
                let series = family.get_or_create(&[(label, value)]);
                series.set(number(*count));
            }
        }
        // Under the lock: counters are increased by the difference to their last value.
        let runtimes = self.runtimes.lock();
        let tasks = runtimes.iter().map(|r| r.metrics().num_alive_tasks()).sum();
        self.tasks.set(number(tasks));
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.resident.set(number(process::resident_bytes()));
        self.files.set(number(process::open_files()));
        let more = process::cpu_time().as_secs_f64() - self.cpu.get();
        self.cpu.inc_by(more.max(0.0));
        for (kind, count) in dropped_lines() {
            let counter = self.log_dropped.get_or_create(&[("kind", kind)]);
            counter.inc_by((count as u64).saturating_sub(counter.get()));
        }
    }
}
