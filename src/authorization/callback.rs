//! Mode `callback`: the application's backend decides on permissions. Knows the request, its signature and the meaning of answers, but not
//! the gateway's other checks.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::Semaphore;
use url::Url;

use super::denial::Denial;
use super::fact_cache::{CacheKey, Fact, FactCache};
use crate::config;
use crate::context::current_request_id;
use crate::domain::{Channel, ChannelId, Uid};
use crate::telemetry::Metrics;

/// Maximum concurrent calls; further ones wait, within their own deadline.
const MAX_CONCURRENT_QUERIES: usize = 64;
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Characters of a reason that are logged.
const MAX_REASON_CHARS: usize = 200;
/// How long an idle connection is kept. Short, since a connection that the backend closes first costs the next call a retry.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a user wants to do; [`Action::name`] is what the callback receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message.
    MessageSend,
    /// Read a history.
    MessageSync,
    /// Create a group.
    ChannelCreate,
    /// Delete a group.
    ChannelDelete,
    /// See a group's record.
    ChannelInfo,
    /// List a group's subscribers.
    ChannelSubscribers,
    /// Add subscribers.
    SubscriberAdd,
    /// Remove subscribers, oneself included.
    SubscriberRemove,
    /// Add managers.
    ManagerAdd,
    /// Remove managers.
    ManagerRemove,
    /// Transfer a group's ownership.
    OwnerTransfer,
    /// Revoke a user's connect tokens; only for the audit, the callback is not called.
    TokenRevoke,
}

impl Action {
    /// The name in the callback's body and in the audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageSend => "message.send",
            Self::MessageSync => "message.sync",
            Self::ChannelCreate => "channel.create",
            Self::ChannelDelete => "channel.delete",
            Self::ChannelInfo => "channel.info",
            Self::ChannelSubscribers => "channel.subscribers",
            Self::SubscriberAdd => "subscriber.add",
            Self::SubscriberRemove => "subscriber.remove",
            Self::ManagerAdd => "manager.add",
            Self::ManagerRemove => "manager.remove",
            Self::OwnerTransfer => "owner.transfer",
            Self::TokenRevoke => "token.revoke",
        }
    }

    /// Whether an answer may be cached: never one about a change.
    fn is_cacheable(self) -> bool {
        matches!(
            self,
            Self::MessageSend | Self::MessageSync | Self::ChannelInfo | Self::ChannelSubscribers
        )
    }
}

/// Why there is no usable answer. The texts contain neither the backend's address nor its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// No connection.
    #[error("the callback cannot be reached")]
    Connect,
    /// No answer within `callback_timeout`, including the wait for a permit.
    #[error("the callback did not answer in time")]
    Timeout,
    /// The connection was lost.
    #[error("the callback's answer was lost")]
    Lost,
    /// Another status than 200.
    #[error("the callback answered with status {0}")]
    Status(u16),
    /// Not `{"allow": true|false}`, or too large.
    #[error("the callback's answer is malformed")]
    Malformed,
}

impl CallbackError {
    /// The name in metrics.
    fn outcome(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Status(_) => "status",
            Self::Malformed => "malformed",
        }
    }
}

/// What is asked: the body of a call, and the cache key of one without targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    uid: Uid,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Uid>,
    action: Action,
    channel_id: String,
    channel_type: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Uid>,
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl CacheKey for Query {
    fn invalidation_id(&self) -> &str {
        &self.channel_id
    }
}

/// The backend's answer.
#[derive(Debug, Clone)]
struct Decision {
    /// `None` allows.
    refusal: Option<Arc<str>>,
    /// Bytes of the strings in it and in its question.
    bytes: usize,
}

impl Fact for Decision {
    fn memberships(&self) -> usize {
        self.bytes.div_ceil(8)
    }
}

#[derive(Deserialize)]
struct Answer {
    allow: bool,
    reason: Option<String>,
}

/// The application's backend and its cached answers.
pub struct Callback {
    client: Arc<CallbackClient>,
    answers: Arc<FactCache<Query, Decision, CallbackError>>,
}

impl Callback {
    /// A client for the callback; `None` without its address or its secret. Makes no call.
    ///
    /// # Errors
    /// When the TLS back end cannot be set up.
    pub fn new(
        settings: &config::Authorization,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, reqwest::Error> {
        let (Some(url), Some(secret)) = (&settings.callback_url, &settings.callback_secret) else {
            return Ok(None);
        };
        let url = url.as_url().clone();
        let http = crate::http_client::client_for([&url])
            .tcp_nodelay(true)
            .pool_max_idle_per_host(MAX_CONCURRENT_QUERIES)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        let client = CallbackClient {
            http,
            url,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()),
            timeout: settings.callback_timeout,
            permits: Semaphore::new(MAX_CONCURRENT_QUERIES),
            metrics: Arc::clone(metrics),
        };
        let (ttl, size) = (settings.cache_ttl, settings.cache_members);
        let lost = CallbackError::Lost;
        Ok(Some(Self {
            client: Arc::new(client),
            answers: FactCache::new("callback", ttl, size, lost, Arc::clone(metrics)),
        }))
    }

    /// Asks whether `uid` may do `action` in `channel` to `targets`; `actor` is the admin that acts on behalf of `uid`.
    ///
    /// Answers about messages, `channel.info` and `channel.subscribers`, which have no targets, are cached, and concurrent callers share one
    /// call. Everything else is asked each time.
    ///
    /// # Errors
    /// [`Denial::Refused`] where the backend refuses, [`Denial::CallbackFailed`] without a usable answer.
    pub async fn ask(
        &self,
        action: Action,
        uid: &Uid,
        actor: Option<&Uid>,
        channel: &Channel,
        targets: &[Uid],
    ) -> Result<(), Denial> {
        let query = Query {
            uid: uid.clone(),
            actor: actor.cloned(),
            action,
            channel_id: channel.id().to_owned(),
            channel_type: channel.channel_type().number(),
            targets: targets.to_vec(),
        };
        let answer = if action.is_cacheable() && targets.is_empty() {
            let look_up = || {
                let (client, query) = (Arc::clone(&self.client), query.clone());
                async move { client.ask(&query).await }
            };
            self.answers.get(&query, look_up).await
        } else {
            self.client.ask(&query).await
        };
        match answer.map_err(Denial::CallbackFailed)?.refusal {
            None => Ok(()),
            Some(reason) => Err(Denial::Refused(reason)),
        }
    }

    /// As [`FactCache::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.answers.size()
    }

    /// The gateway has changed the group, or is about to: earlier answers about it are not used again.
    pub(super) fn group_changed(&self, group: &ChannelId) {
        self.answers.invalidate(group.as_str());
    }
}

/// Shows neither the address nor the key.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// The HTTP client of the callback.
struct CallbackClient {
    http: reqwest::Client,
    url: Url,
    key: hmac::Key,
    timeout: Duration,
    permits: Semaphore,
    metrics: Arc<Metrics>,
}

impl CallbackClient {
    async fn ask(&self, query: &Query) -> Result<Decision, CallbackError> {
        let began = Instant::now();
        let answer = self.query(query).await;
        let outcome = match &answer {
            Ok(Decision { refusal: None, .. }) => "allowed",
            Ok(_) => "refused",
            Err(error) => error.outcome(),
        };
        let external = &self.metrics.external;
        external.callback_called(query.action.name(), outcome, began.elapsed());
        answer
    }

    async fn query(&self, query: &Query) -> Result<Decision, CallbackError> {
        // Strings and numbers in a struct cannot fail to serialise; if they did, no call would be made.
        let body: Bytes = serde_json::to_vec(query)
            .map_err(|_| CallbackError::Lost)?
            .into();
        let question_bytes = body.len();
        let exchange = async {
            let permit = self.permits.acquire().await;
            let _permit = permit.map_err(|_| CallbackError::Lost)?;
            match self.exchange(body.clone()).await {
                // The backend may have just closed an idle connection. Repeating a query does no harm.
                Err(CallbackError::Lost) => self.exchange(body).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        let refusal = read(&answer.unwrap_or(Err(CallbackError::Timeout))?)?;
        let bytes = question_bytes + refusal.as_ref().map_or(0, |reason| reason.len());
        Ok(Decision { refusal, bytes })
    }

    /// Sends one request, and returns the body of a 200.
    async fn exchange(&self, body: Bytes) -> Result<BytesMut, CallbackError> {
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("x-signature", self.signature(unix_seconds(), &body));
        if let Some(id) = current_request_id() {
            request = request.header("x-request-id", id);
        }
        let response = request.body(body).send().await;
        let mut response = response.map_err(|error| classify(&error))?;
        if response.status() != StatusCode::OK {
            return Err(CallbackError::Status(response.status().as_u16()));
        }
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CallbackError::Malformed);
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<raw body>">`.
    fn signature(&self, seconds: u64, body: &[u8]) -> String {
        use std::fmt::Write as _;
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        let mut text = format!("t={seconds},v1=");
        for byte in context.sign().as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Parses an answer into a refusal's reason. Only a complete, well-formed `allow` of `true` permits.
fn read(body: &[u8]) -> Result<Option<Arc<str>>, CallbackError> {
    // serde would also accept an array for a struct.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(CallbackError::Malformed);
    }
    let Answer { allow, reason } =
        serde_json::from_slice(body).map_err(|_| CallbackError::Malformed)?;
    Ok((!allow).then(|| {
        let reason = reason.unwrap_or_default();
        let printable = reason.chars().filter(|c| !c.is_control());
        printable.take(MAX_REASON_CHARS).collect::<String>().into()
    }))
}

fn classify(error: &reqwest::Error) -> CallbackError {
    if error.is_connect() {
        CallbackError::Connect
    } else {
        CallbackError::Lost
    }
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
