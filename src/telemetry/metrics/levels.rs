//! Levels that are read off only when somebody looks: what is held, kept and open now, and what the process takes of its system.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

use super::{counted, process, timed};

type One = [(&'static str, &'static str); 1];

/// See the module.
pub struct Levels {
    in_flight: Gauge,
    buffered: Gauge,
    numbers: Gauge,
    limiter: Family<One, Gauge>,
    caches: Family<One, Gauge>,
    store: Family<One, Gauge>,
    tasks: Gauge,
    runtimes: Mutex<Vec<Handle>>,
    resident: Gauge,
    files: Gauge,
    cpu: Counter<f64, AtomicU64>,
}

/// What the rooms say of themselves.
pub struct Measured {
    /// Requests that are being worked on.
    pub in_flight: usize,
    /// Bytes of request bodies and upstream answers.
    pub buffered: usize,
    /// Sends whose clientMsgNo is remembered.
    pub numbers: usize,
    /// Users and addresses that have not their full allowance.
    pub limited: [(&'static str, usize); 2],
    /// Entries by cache.
    pub caches: Vec<(&'static str, usize)>,
    /// Connections to the store: `busy` and `idle` ones.
    pub store: [(&'static str, usize); 2],
}

impl Levels {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let bytes = |registry: &mut Registry, name, help| {
            let gauge = Gauge::default();
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
            gauge
        };
        let held = "request bodies and upstream answers held now";
        let limited = "users and addresses that have not their full allowance";
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(now.unwrap_or_default().as_secs_f64());
        let since = "when this process started, since 1970";
        timed(registry, "process_start_time", since, started);
        Self {
            in_flight: counted(
                registry,
                "http_requests_in_flight",
                "requests being worked on",
            ),
            buffered: bytes(registry, "buffered", held),
            numbers: counted(
                registry,
                "idempotency_entries",
                "sends that are remembered by their numbers",
            ),
            limiter: counted(registry, "limiter_entries", limited),
            caches: counted(registry, "cache_entries", "entries of caches"),
            store: counted(registry, "store_connections", "connections to the store"),
            tasks: counted(registry, "tasks", "tasks that have not ended"),
            runtimes: Mutex::default(),
            resident: bytes(registry, "process_resident_memory", "memory in RAM"),
            files: counted(registry, "process_open_fds", "open files"),
            cpu: timed(
                registry,
                "process_cpu",
                "user and system time",
                Counter::default(),
            ),
        }
    }

    /// Counts this runtime's tasks from now on.
    pub fn watch(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    /// Takes what was just measured, and measures the rest.
    pub fn set(&self, measured: &Measured) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.in_flight.set(number(measured.in_flight));
        self.buffered.set(number(measured.buffered));
        self.numbers.set(number(measured.numbers));
        let families = [
            ("kind", &self.limiter, &measured.limited[..]),
            ("cache", &self.caches, &measured.caches),
            ("state", &self.store, &measured.store),
        ];
        for (label, family, values) in families {
            for (value, count) in values {
                let series = family.get_or_create(&[(label, value)]);
                series.set(number(*count));
            }
        }
        // One look at a time, for the processor's time is raised by what has been added to it.
        let runtimes = self.runtimes.lock();
        let tasks = runtimes.iter().map(|r| r.metrics().num_alive_tasks()).sum();
        self.tasks.set(number(tasks));
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.resident.set(number(process::resident_bytes()));
        self.files.set(number(process::open_files()));
        let more = process::cpu_time().as_secs_f64() - self.cpu.get();
        self.cpu.inc_by(more.max(0.0));
    }
}
