//! The application's backend in mode `callback`: records every request and gives scripted answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use wukongim_gateway::config::{Mode, Settings};

/// The key of the questions' signatures.
pub const SECRET: &str = "a-callback-secret-that-is-long-enough";

/// How a question is answered.
#[derive(Clone)]
pub enum Reply {
    Body(u16, String),
    Redirect(String),
    /// `allow` followed by more white space than anybody should read.
    Endless,
    Hang,
    /// Allowed, once the backend is let go.
    Held,
}

impl Reply {
    pub fn allow(allow: bool) -> Self {
        Self::Body(200, json!({ "allow": allow }).to_string())
    }
}

/// A question as it came.
#[derive(Debug, Clone)]
pub struct Question {
    pub target: String,
    pub headers: HeaderMap,
    pub raw: Bytes,
    pub body: Value,
}

type Rule = Box<dyn Fn(&Value) -> Reply + Send + Sync>;

pub struct Backend {
    shared: Arc<Shared>,
    pub url: String,
}

struct Shared {
    questions: Mutex<Vec<Question>>,
    rule: Mutex<Rule>,
    go: Semaphore,
}

impl Backend {
    /// One that allows everything.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            questions: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Reply::allow(true))),
            go: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            shared,
            url: format!("http://{address}/im/callback"),
        }
    }

    /// Makes a gateway ask this backend.
    pub fn decides(&self) -> impl FnOnce(&mut Settings) + 'static {
        let url = self.url.clone();
        move |settings| {
            let authorization = &mut settings.authorization;
            authorization.mode = Mode::Callback;
            authorization.callback_url = Some(url.parse().expect("an address"));
            authorization.callback_secret = Some(SECRET.to_owned().into());
            // Longer than anything takes on a busy machine; tests of the timeout set their own.
            authorization.callback_timeout = Duration::from_secs(9);
        }
    }

    /// Answers by this rule from now on.
    pub fn answers(&self, rule: impl Fn(&Value) -> Reply + Send + Sync + 'static) {
        *self.shared.rule.lock() = Box::new(rule);
    }

    /// Answers `held` held questions, those to come included.
    pub fn let_go(&self, held: usize) {
        self.shared.go.add_permits(held);
    }

    /// The questions so far, forgotten then.
    pub fn asked(&self) -> Vec<Question> {
        std::mem::take(&mut self.shared.questions.lock())
    }

    /// The bodies of the questions so far, forgotten then.
    pub fn bodies(&self) -> Vec<Value> {
        self.asked()
            .into_iter()
            .map(|question| question.body)
            .collect()
    }

    /// How many questions came since they were last forgotten.
    pub fn count(&self) -> usize {
        self.shared.questions.lock().len()
    }

    /// Waits until so many questions came.
    pub async fn wait_for(&self, count: usize) {
        let come = async {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let come = tokio::time::timeout(Duration::from_secs(20), come).await;
        assert!(come.is_ok(), "{} of {count}", self.count());
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let raw = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a body");
    let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    let reply = (shared.rule.lock())(&body);
    shared.questions.lock().push(Question {
        target: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        raw,
        body,
    });
    let (status, location, body) = match reply {
        Reply::Body(status, body) => (status, None, Body::from(body)),
        Reply::Redirect(to) => (307, Some(to), Body::empty()),
        Reply::Endless => {
            let body = format!("{{\"allow\":true}}{}", " ".repeat(1024 * 1024));
            (200, None, Body::from(body))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Held => {
            shared.go.acquire().await.expect("open").forget();
            (200, None, Body::from(r#"{"allow":true}"#))
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(to) = location {
        response = response.header("location", to);
    }
    response.body(body).expect("a response")
}
