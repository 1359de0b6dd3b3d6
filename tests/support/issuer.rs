//! An issuer of tokens: a real listener that publishes keys, counts requests, and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wukongim_gateway::config::HttpUrl;

use super::keys::key_set;

/// Publishes at `/keys` until it is dropped.
pub struct Issuer {
    address: String,
    shared: Arc<Shared>,
    _stop: watch::Sender<bool>,
}

struct Shared {
    answer: Mutex<(StatusCode, String)>,
    takes: Mutex<Duration>,
    asked: AtomicUsize,
}

impl Issuer {
    pub async fn start(keys: &[Value]) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new((StatusCode::OK, key_set(keys))),
            takes: Mutex::new(Duration::ZERO),
            asked: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new()
            .route("/keys", get(answer))
            .with_state(shared.clone());
        tokio::spawn(wukongim_gateway::gateway::run(listener, router, stopped));
        Self {
            address,
            shared,
            _stop: stop,
        }
    }

    pub fn url(&self) -> HttpUrl {
        let url = format!("http://{}/keys", self.address);
        url.parse().expect("an address")
    }

    pub fn publishes(&self, keys: &[Value]) {
        self.answers(StatusCode::OK, key_set(keys));
    }

    pub fn is_down(&self) {
        self.answers(StatusCode::BAD_GATEWAY, String::new());
    }

    pub fn answers(&self, status: StatusCode, body: String) {
        *self.shared.answer.lock() = (status, body);
    }

    /// From now on every answer takes so long.
    pub fn takes(&self, time: Duration) {
        *self.shared.takes.lock() = time;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked so often.
    pub async fn was_asked(&self, times: usize) {
        while self.asked() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let takes = *shared.takes.lock();
    tokio::time::sleep(takes).await;
    shared.answer.lock().clone()
}

/// Lets this much time pass at once for the gateway, whose timers are the runtime's. For tests with one thread.
pub async fn time_passes(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
