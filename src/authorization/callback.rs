//! Mode `callback`: the application's own backend says who may do what. Knows the question, its signature and what an answer
//! means; not what the gateway checks besides.

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
use super::lookups::{Fact, Lookups, Subject};
use crate::domain::{Channel, ChannelId, Uid};
use crate::telemetry::Metrics;
use crate::wukongim::current_request_id;

/// Questions that may be open at the same time; further ones wait, within their own deadline.
const OPEN_QUESTIONS: usize = 64;
/// The largest answer that is read.
const ANSWER_BYTES: usize = 16 * 1024;
/// Characters of a reason that are kept for the log.
const REASON_CHARS: usize = 200;
/// How long an unused connection is kept. Short, since a backend that closes it first costs the next question a second try.
const IDLE: Duration = Duration::from_secs(4);

/// What somebody wants to do; the names are those of the question.
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
    /// Name managers.
    ManagerAdd,
    /// Dismiss managers.
    ManagerRemove,
    /// Hand a group over.
    OwnerTransfer,
    /// Revoke somebody's connect tokens; for the audit alone, the backend is not asked.
    TokenRevoke,
}

impl Action {
    /// The name in a question and in the audit.
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

    /// Whether an answer may be used again: never one about a change.
    fn is_remembered(self) -> bool {
        matches!(
            self,
            Self::MessageSend | Self::MessageSync | Self::ChannelInfo
        )
    }
}

/// Why there is no answer. None of the texts holds the backend's address or words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No connection.
    #[error("the callback cannot be reached")]
    Connect,
    /// Nothing within `callback_timeout`, waiting for a place among the open questions included.
    #[error("the callback did not answer in time")]
    Timeout,
    /// The connection was lost.
    #[error("the callback's answer was lost")]
    Lost,
    /// Another status than 200.
    #[error("the callback answered with status {0}")]
    Status(u16),
    /// No `{"allow": true|false}`, or too much of it.
    #[error("the callback's answer is malformed")]
    Malformed,
}

impl NoAnswer {
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

/// A question without targets, whose answer may be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    uid: Uid,
    actor: Option<Uid>,
    action: Action,
    channel: Channel,
}

impl Subject for Question {
    fn changes_with(&self) -> &str {
        self.channel.id()
    }
}

/// The backend's answer.
#[derive(Debug, Clone)]
struct Verdict {
    /// `None` allows.
    refusal: Option<Arc<str>>,
    /// Bytes of the texts that a remembered answer keeps.
    bytes: usize,
}

impl Fact for Verdict {
    fn memberships(&self) -> usize {
        self.bytes.div_ceil(8)
    }
}

/// The body of a question.
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

/// How the backend is asked.
pub struct Settings {
    /// Where; may hold user and password, which are sent as basic authentication.
    pub url: Url,
    /// The key of the signature.
    pub secret: SecretString,
    /// How long one question may take.
    pub timeout: Duration,
    /// For how long answers about messages and `channel.info` are believed.
    pub cache_ttl: Duration,
    /// How many of them are kept, in the unit of `cache_members` (8 bytes; an answer counts as sixteen and its ids).
    pub cache_members: usize,
}

/// The application's backend and its remembered answers.
pub struct Callback {
    line: Arc<Line>,
    answers: Arc<Lookups<Question, Verdict, NoAnswer>>,
}

impl Callback {
    /// A way to ask. Nothing is asked yet.
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
        let http = crate::outbound::client_for([&url])
            .tcp_nodelay(true)
            .pool_max_idle_per_host(OPEN_QUESTIONS)
            .pool_idle_timeout(IDLE)
            .build()?;
        let line = Line {
            http,
            url,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()),
            timeout,
            places: Semaphore::new(OPEN_QUESTIONS),
            metrics: Arc::clone(&metrics),
        };
        Ok(Self {
            line: Arc::new(line),
            answers: Lookups::new(
                "callback",
                cache_ttl,
                cache_members,
                NoAnswer::Lost,
                metrics,
            ),
        })
    }

    /// Asks whether `uid` may do `action` in `channel` to `targets`; `actor` is the admin who acts for him.
    ///
    /// Answers about messages and `channel.info` are remembered by all but the targets, which those have none of, and asked
    /// once for all who wait for the same one. Everything else is asked each time.
    ///
    /// # Errors
    /// [`Denial::Refused`] where the backend says no, [`Denial::NoAnswer`] where it says nothing usable.
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
        let answer = if action.is_remembered() && targets.is_empty() {
            let question = Question {
                uid: uid.clone(),
                actor: actor.cloned(),
                action,
                channel: channel.clone(),
            };
            let look_up = || {
                let (line, body) = (Arc::clone(&self.line), encode(&body));
                let texts = [uid.as_str(), channel.id(), actor.map_or("", Uid::as_str)];
                let bytes = texts.map(str::len).iter().sum::<usize>();
                async move {
                    let mut verdict = line.ask(action, body?).await?;
                    verdict.bytes += bytes;
                    Ok(verdict)
                }
            };
            self.answers.get(&question, look_up).await
        } else {
            match encode(&body) {
                Ok(body) => self.line.ask(action, body).await,
                Err(error) => Err(error),
            }
        };
        match answer {
            Ok(Verdict { refusal: None, .. }) => Ok(()),
            Ok(Verdict {
                refusal: Some(reason),
                ..
            }) => Err(Denial::Refused(reason)),
            Err(error) => Err(Denial::NoAnswer(error)),
        }
    }

    /// As [`Lookups::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.answers.size()
    }

    /// The gateway has changed the group, or begins to: what the backend said of it before is not used again.
    pub(super) fn group_changed(&self, group: &ChannelId) {
        self.answers.all_changed(group.as_str());
    }
}

/// Neither the address nor the key.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

fn encode(body: &Body<'_>) -> Result<Bytes, NoAnswer> {
    // Texts and numbers in a struct: it cannot fail, and where it did nobody would have been asked.
    let text = serde_json::to_vec(body).map_err(|_| NoAnswer::Lost)?;
    Ok(text.into())
}

/// The way to the backend.
struct Line {
    http: reqwest::Client,
    url: Url,
    key: hmac::Key,
    timeout: Duration,
    places: Semaphore,
    metrics: Arc<Metrics>,
}

impl Line {
    async fn ask(&self, action: Action, body: Bytes) -> Result<Verdict, NoAnswer> {
        let began = Instant::now();
        let answer = self.question(body).await;
        let outcome = match &answer {
            Ok(Verdict { refusal: None, .. }) => "allowed",
            Ok(_) => "refused",
            Err(error) => error.outcome(),
        };
        let outside = &self.metrics.outside;
        outside.callback_asked(action.name(), outcome, began.elapsed());
        answer
    }

    async fn question(&self, body: Bytes) -> Result<Verdict, NoAnswer> {
        let asking = async {
            let _place = self.places.acquire().await.map_err(|_| NoAnswer::Lost)?;
            match self.exchange(body.clone()).await {
                // Perhaps a kept connection that the backend was just closing. Asking twice does no harm.
                Err(NoAnswer::Lost) => self.exchange(body).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        read(&answer.unwrap_or(Err(NoAnswer::Timeout))?)
    }

    /// One question on the wire, and the body of a 200.
    async fn exchange(&self, body: Bytes) -> Result<BytesMut, NoAnswer> {
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
            return Err(NoAnswer::Status(response.status().as_u16()));
        }
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if answer.len() + chunk.len() > ANSWER_BYTES {
                return Err(NoAnswer::Malformed);
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

/// What the body of an answer says. Only a whole, well-formed `allow` of `true` allows.
fn read(body: &[u8]) -> Result<Verdict, NoAnswer> {
    // serde also reads a struct out of an array.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(NoAnswer::Malformed);
    }
    let Answer { allow, reason } = serde_json::from_slice(body).map_err(|_| NoAnswer::Malformed)?;
    let refusal = (!allow).then(|| -> Arc<str> {
        let reason = reason.unwrap_or_default();
        let printable = reason.chars().filter(|c| !c.is_control());
        printable.take(REASON_CHARS).collect::<String>().into()
    });
    let bytes = refusal.as_ref().map_or(0, |reason| reason.len());
    Ok(Verdict { refusal, bytes })
}

fn classify(error: &reqwest::Error) -> NoAnswer {
    if error.is_connect() {
        NoAnswer::Connect
    } else {
        NoAnswer::Lost
    }
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
