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
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use url::Url;

use super::denial::Denial;
use super::fact_cache::{CacheKey, Fact, FactCache};
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
            Self::MessageSend | Self::MessageSync | Self::ChannelInfo
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

/// The cache key of a call without targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CachedQuery {
    uid: Uid,
    actor: Option<Uid>,
    action: Action,
    channel: Channel,
}

impl CacheKey for CachedQuery {
    fn invalidation_id(&self) -> &str {
        self.channel.id()
    }
}

/// The backend's answer.
#[derive(Debug, Clone)]
struct Decision {
    /// `None` allows.
    refusal: Option<Arc<str>>,
    /// Bytes of the strings in a cached answer.
    bytes: usize,
}

impl Fact for Decision {
    fn memberships(&self) -> usize {
        self.bytes.div_ceil(8)
    }
}

/// The body of a call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    uid: &'a Uid,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a Uid>,
    action: &'static str,
    channel_id: &'a str,
    channel_type: u8,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    targets: &'a [Uid],
}

#[derive(Deserialize)]
struct Answer {
    allow: bool,
    reason: Option<String>,
}

/// Settings of the callback.
pub struct Settings {
    /// The address; may contain user and password, which are sent as basic authentication.
    pub url: Url,
    /// The key of the signature.
    pub secret: SecretString,
    /// Time limit of one call.
    pub timeout: Duration,
    /// How long answers about messages and `channel.info` are cached.
    pub cache_ttl: Duration,
    /// How many of them are cached, in the unit of `cache_members` (8 bytes; an answer counts as sixteen plus its ids).
    pub cache_members: usize,
}

/// The application's backend and its cached answers.
pub struct Callback {
    client: Arc<CallbackClient>,
    answers: Arc<FactCache<CachedQuery, Decision, CallbackError>>,
}

impl Callback {
    /// A client for the callback. Makes no call.
    ///
    /// # Errors
    /// When the TLS back end cannot be set up.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let Settings {
            url,
            secret,
            timeout,
            cache_ttl,
            cache_members,
        } = settings;
        let http = crate::http_client::client_for([&url])
            .tcp_nodelay(true)
            .pool_max_idle_per_host(MAX_CONCURRENT_QUERIES)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        let client = CallbackClient {
            http,
            url,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()),
            timeout,
            permits: Semaphore::new(MAX_CONCURRENT_QUERIES),
            metrics: Arc::clone(&metrics),
        };
        Ok(Self {
            client: Arc::new(client),
            answers: FactCache::new(
                "callback",
                cache_ttl,
                cache_members,
                CallbackError::Lost,
                metrics,
            ),
        })
    }

    /// Asks whether `uid` may do `action` in `channel` to `targets`; `actor` is the admin that acts on behalf of `uid`.
    ///
    /// Answers about messages and `channel.info`, which have no targets, are cached, and concurrent callers share one call. Everything else
    /// is asked each time.
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
        let body = Body {
            uid,
            actor,
            action: action.name(),
            channel_id: channel.id(),
            channel_type: channel.channel_type().number(),
            targets,
        };
        let answer = if action.is_cacheable() && targets.is_empty() {
            let cached_query = CachedQuery {
                uid: uid.clone(),
                actor: actor.cloned(),
                action,
                channel: channel.clone(),
            };
            let look_up = || {
                let (client, body) = (Arc::clone(&self.client), encode(&body));
                let texts = [uid.as_str(), channel.id(), actor.map_or("", Uid::as_str)];
                let bytes = texts.map(str::len).iter().sum::<usize>();
                async move {
                    let mut decision = client.ask(action, body?).await?;
                    decision.bytes += bytes;
                    Ok(decision)
                }
            };
            self.answers.get(&cached_query, look_up).await
        } else {
            match encode(&body) {
                Ok(body) => self.client.ask(action, body).await,
                Err(error) => Err(error),
            }
        };
        match answer {
            Ok(Decision { refusal: None, .. }) => Ok(()),
            Ok(Decision {
                refusal: Some(reason),
                ..
            }) => Err(Denial::Refused(reason)),
            Err(error) => Err(Denial::CallbackFailed(error)),
        }
    }

    /// As [`FactCache::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.answers.size()
    }

    /// The gateway has changed the group, or is about to: earlier answers about it are not used again.
    pub(super) fn group_changed(&self, group: &ChannelId) {
        self.answers.invalidate_all(group.as_str());
    }
}

/// Shows neither the address nor the key.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

fn encode(body: &Body<'_>) -> Result<Bytes, CallbackError> {
    // Strings and numbers in a struct cannot fail to serialise; if they did, no call would be made.
    let text = serde_json::to_vec(body).map_err(|_| CallbackError::Lost)?;
    Ok(text.into())
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
    async fn ask(&self, action: Action, body: Bytes) -> Result<Decision, CallbackError> {
        let began = Instant::now();
        let answer = self.query(body).await;
        let outcome = match &answer {
            Ok(Decision { refusal: None, .. }) => "allowed",
            Ok(_) => "refused",
            Err(error) => error.outcome(),
        };
        let outside = &self.metrics.external;
        outside.callback_called(action.name(), outcome, began.elapsed());
        answer
    }

    async fn query(&self, body: Bytes) -> Result<Decision, CallbackError> {
        let exchange = async {
            let _permit = self
                .permits
                .acquire()
                .await
                .map_err(|_| CallbackError::Lost)?;
            match self.exchange(body.clone()).await {
                // The backend may have just closed an idle connection. Repeating a query does no harm.
                Err(CallbackError::Lost) => self.exchange(body).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        read(&answer.unwrap_or(Err(CallbackError::Timeout))?)
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
        let mut response = request
            .body(body)
            .send()
            .await
            .map_err(|error| classify(&error))?;
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

/// Parses an answer. Only a complete, well-formed `allow` of `true` permits.
fn read(body: &[u8]) -> Result<Decision, CallbackError> {
    // serde would also accept an array for a struct.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(CallbackError::Malformed);
    }
    let Answer { allow, reason } =
        serde_json::from_slice(body).map_err(|_| CallbackError::Malformed)?;
    let refusal = (!allow).then(|| -> Arc<str> {
        let reason = reason.unwrap_or_default();
        let printable = reason.chars().filter(|c| !c.is_control());
        printable.take(MAX_REASON_CHARS).collect::<String>().into()
    });
    let bytes = refusal.as_ref().map_or(0, |reason| reason.len());
    Ok(Decision { refusal, bytes })
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
