//! The client the rest of the gateway uses: picks the node, knows its generation, speaks its dialect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use serde::Serialize;

use super::detect::{generation_of, health};
use super::manager::Manager;
use super::nodes::{Node, Nodes};
use super::page::{self, Page, PageRequest, Window};
use super::transport::{Answer, Call, Transport};
use super::{
    Accepted, ChannelState, Error, Generation, MemberList, Outgoing, Rejection, RouteInfo,
    SystemInfo, v2, v3,
};
use crate::config;
use crate::domain::{Channel, ChannelId, ChannelType, Uid};
use crate::telemetry::Metrics;

/// For how long an answer to "are you well?" is believed: one probe a second at most.
const HEALTH_HOLDS: Duration = Duration::from_secs(1);
/// A probe that takes longer is a "no": health tells the truth within two seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(900);
/// v3 takes 2.9 ms for each uid added (seen on a running server): 0.3 s a call.
const V3_CHUNK: usize = 100;

/// Adding or removing subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Make them subscribers.
    Add,
    /// Make them none.
    Remove,
}

/// The one client for WuKongIM, shared by everything.
pub struct Client {
    pub(super) transport: Transport,
    pub(super) nodes: Nodes,
    manager: Option<Manager>,
    health: tokio::sync::Mutex<Option<(Instant, Result<(), Error>)>>,
}

/// Carries out a call on the first node that can be reached. A call goes to another node only where it was never sent; it is
/// made once more on the same node where a plain 404 or 405 shows that another generation answers there now.
macro_rules! on_node {
    ($client:expr, |$node:ident, $generation:ident| $call:expr) => {{
        let client = $client;
        let mut outcome = Err(Error::Connect);
        'nodes: for $node in client.nodes.in_order() {
            for again in [false, true] {
                let $generation = match generation_of(&client.transport, $node).await {
                    Ok(generation) => generation,
                    Err(error) => {
                        client.nodes.rest($node);
                        outcome = Err(error);
                        continue 'nodes;
                    }
                };
                outcome = $call.await;
                match &outcome {
                    Err(Error::Connect) => {
                        client.nodes.rest($node);
                        continue 'nodes;
                    }
                    Err(Error::Status(404 | 405)) => {
                        $node.forget_generation();
                        if again {
                            break 'nodes;
                        }
                    }
                    Err(Error::Decode(_)) => {
                        $node.forget_generation();
                        break 'nodes;
                    }
                    _ => break 'nodes,
                }
            }
        }
        outcome
    }};
}

impl Client {
    /// A client for the configured nodes. Nothing is called yet.
    ///
    /// # Errors
    /// When the TLS back end cannot be set up.
    pub fn new(
        settings: &config::Wukongim,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        use secrecy::ExposeSecret as _;
        let token = match &settings.manager_token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(token.expose_secret())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let manager = match (
            &settings.manager_url,
            &settings.manager_username,
            &settings.manager_password,
        ) {
            (Some(url), Some(username), Some(password)) => Some(Manager::new(
                url.as_url().clone(),
                username.clone(),
                password.clone(),
            )),
            _ => None,
        };
        let urls: Vec<url::Url> = settings
            .api_urls
            .iter()
            .map(|url| url.as_url().clone())
            .collect();
        Ok(Self {
            transport: Transport::new(settings.connect_timeout, settings.timeout, token, metrics)?,
            nodes: Nodes::new(&urls, settings.version),
            manager,
            health: tokio::sync::Mutex::new(None),
        })
    }

    /// The generation of the node that calls go to at present; probes it where that is not known.
    pub async fn generation(&self) -> Result<Generation, Error> {
        let mut outcome = Err(Error::Connect);
        for node in self.nodes.in_order() {
            outcome = generation_of(&self.transport, node).await;
            if outcome.is_ok() {
                break;
            }
            self.nodes.rest(node);
        }
        outcome
    }

    /// Whether v3's manager port is configured, which tells true counts and members.
    pub fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// Whether any node is well. Asked at most once a second, however many want to know; a "no" comes within a second.
    pub async fn health(&self) -> Result<(), Error> {
        let mut cached = self.health.lock().await;
        if let Some((at, result)) = &*cached
            && at.elapsed() < HEALTH_HOLDS
        {
            return result.clone();
        }
        let probes = self.nodes.all().iter().map(|node| {
            let probe = tokio::time::timeout(HEALTH_TIMEOUT, health(&self.transport, node));
            Box::pin(async move {
                match probe.await {
                    Ok(result) => result,
                    Err(_) => Err(Error::Timeout),
                }
            })
        });
        let result = match futures_util::future::select_ok(probes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        *cached = Some((Instant::now(), result.clone()));
        result
    }

    /// Sends a message. On v2 the answer is no proof of anything: see [`Accepted::seq`].
    pub async fn send(&self, message: &Outgoing<'_>) -> Result<Accepted, Error> {
        on_node!(self, |node, generation| async {
            match generation {
                Generation::V2 => v2::send(&self.transport, node, message).await,
                Generation::V3 => v3::send(&self.transport, node, message).await,
            }
        })
    }

    /// Reads at most `limit` messages of `channel` as `reader` sees it, in an answer of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the page has more bytes: ask for fewer messages.
    pub async fn page(
        &self,
        reader: &Uid,
        channel: &Channel,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, Error> {
        let page = on_node!(self, |node, generation| async {
            let body = PageRequest::new(reader, channel, window, limit);
            let call =
                Call::post("messagesync", "/channel/messagesync", &body).max_bytes(max_bytes);
            let answer = self.transport.call(node, call).await?;
            if !answer.status.is_success() {
                return Err(refusal(generation, &answer));
            }
            page::read(&answer, reader, channel)
        })?;
        let foreign = page.received - page.messages.len();
        if foreign > 0 {
            self.transport
                .metrics
                .foreign_messages
                .inc_by(foreign as u64);
            tracing::warn!(
                channel.id = channel.id(),
                foreign,
                "messages of another channel dropped from a page"
            );
        }
        Ok(page)
    }

    /// Creates the group with one subscriber. On an existing group this would clear its flags: look first.
    pub async fn create_group(&self, group: &ChannelId, subscriber: &Uid) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            channel_id: &'a str,
            channel_type: u8,
            subscribers: [&'a str; 1],
        }
        let body = Body {
            channel_id: group.as_str(),
            channel_type: 2,
            subscribers: [subscriber.as_str()],
        };
        self.act("channel_create", "/channel", &body).await
    }

    /// Disbands the group. [`Rejection::NotFound`] on v3 where there is none; v2 never minds.
    pub async fn disband_group(&self, group: &ChannelId) -> Result<(), Error> {
        self.act("channel_delete", "/channel/delete", &GroupBody::new(group))
            .await
    }

    /// Removes every subscriber of the group, which neither generation does when it disbands.
    pub async fn remove_all_subscribers(&self, group: &ChannelId) -> Result<(), Error> {
        self.act(
            "subscriber_remove_all",
            "/channel/subscriber_remove_all",
            &GroupBody::new(group),
        )
        .await
    }

    /// Adds or removes subscribers; how many changed, where WuKongIM tells (v3's manager port alone does).
    ///
    /// Adding creates the group where there is none: look first. On v3 the uids go in pieces of 100.
    pub async fn change_subscribers(
        &self,
        change: MemberChange,
        group: &ChannelId,
        uids: &[&str],
    ) -> Result<Option<u64>, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            channel_id: &'a str,
            channel_type: u8,
            subscribers: &'a [&'a str],
        }
        let (name, path) = match change {
            MemberChange::Add => ("subscriber_add", "/channel/subscriber_add"),
            MemberChange::Remove => ("subscriber_remove", "/channel/subscriber_remove"),
        };
        let generation = self.generation().await?;
        let chunk = if generation == Generation::V3 {
            V3_CHUNK
        } else {
            uids.len().max(1)
        };
        let mut changed = None;
        for uids in uids.chunks(chunk) {
            if let (Generation::V3, Some(manager)) = (generation, &self.manager) {
                let add = change == MemberChange::Add;
                let count = on_node!(self, |node, _generation| manager.change_subscribers(
                    &self.transport,
                    node,
                    group,
                    uids,
                    add
                ))?;
                changed = Some(changed.unwrap_or(0) + count);
            } else {
                let body = Body {
                    channel_id: group.as_str(),
                    channel_type: 2,
                    subscribers: uids,
                };
                self.act(name, path, &body).await?;
            }
        }
        Ok(changed)
    }

    /// A list of a channel, whole; `None` where this WuKongIM does not tell (v3 without its manager port).
    pub async fn list(
        &self,
        list: MemberList,
        channel_type: ChannelType,
        id: &str,
    ) -> Result<Option<Vec<String>>, Error> {
        on_node!(self, |node, generation| async {
            match (generation, &self.manager) {
                (Generation::V2, _) => v2::list(&self.transport, node, list, channel_type, id)
                    .await
                    .map(Some),
                (Generation::V3, Some(manager)) => manager
                    .list(&self.transport, node, list, channel_type, id)
                    .await
                    .map(Some),
                (Generation::V3, None) => Ok(None),
            }
        })
    }

    /// A group's state; on v3 from the manager port, else by a send that must be refused.
    pub async fn group_state(&self, group: &ChannelId) -> Result<ChannelState, Error> {
        on_node!(self, |node, generation| async {
            match (generation, &self.manager) {
                (Generation::V2, _) => {
                    v2::channel_state(&self.transport, node, ChannelType::Group, group.as_str())
                        .await
                }
                (Generation::V3, Some(manager)) => {
                    manager.group_state(&self.transport, node, group).await
                }
                (Generation::V3, None) => v3::probe_group(&self.transport, node, group).await,
            }
        })
    }

    /// Whether the user is banned. v3 knows no such thing and bans nobody.
    pub async fn user_is_banned(&self, uid: &Uid) -> Result<bool, Error> {
        on_node!(self, |node, generation| async {
            match generation {
                Generation::V2 => {
                    let state =
                        v2::channel_state(&self.transport, node, ChannelType::Person, uid.as_str())
                            .await?;
                    Ok(state.banned)
                }
                Generation::V3 => Ok(false),
            }
        })
    }

    /// Whether anything at all lies under this id: a record, members or messages, be they of another channel whose id has
    /// the same hash (v2). To be asked before anything is written under an id.
    pub async fn group_is_occupied(&self, group: &ChannelId) -> Result<bool, Error> {
        if self.group_state(group).await?.occupied {
            return Ok(true);
        }
        on_node!(self, |node, generation| async {
            match generation {
                Generation::V2 => {
                    let (members, max) = tokio::join!(
                        v2::list(
                            &self.transport,
                            node,
                            MemberList::Subscribers,
                            ChannelType::Group,
                            group.as_str()
                        ),
                        v2::max_message_seq(&self.transport, node, group),
                    );
                    Ok(!members?.is_empty() || max? > 0)
                }
                Generation::V3 => Ok(false),
            }
        })
    }

    /// The addresses for `uid` to connect to.
    pub async fn route(&self, uid: &Uid) -> Result<RouteInfo, Error> {
        on_node!(self, |node, _generation| v2::route(
            &self.transport,
            node,
            uid
        ))
    }

    /// Version, uptime and connections over all nodes that answer; an error when none does.
    pub async fn system_info(&self) -> Result<SystemInfo, Error> {
        let asked = self.nodes.all().iter().map(|node| self.node_info(node));
        let mut whole: Option<SystemInfo> = None;
        let mut failure = Error::Connect;
        for result in futures_util::future::join_all(asked).await {
            match (result, &mut whole) {
                (Ok(info), None) => whole = Some(info),
                (Ok(info), Some(sum)) => {
                    sum.connections += info.connections;
                    sum.uptime_s = sum.uptime_s.max(info.uptime_s);
                    sum.version = sum.version.take().or(info.version);
                }
                (Err(error), _) => failure = error,
            }
        }
        whole.ok_or(failure)
    }

    async fn node_info(&self, node: &Node) -> Result<SystemInfo, Error> {
        match generation_of(&self.transport, node).await? {
            Generation::V2 => v2::system_info(&self.transport, node).await,
            Generation::V3 => v3::system_info(&self.transport, node).await,
        }
    }

    /// A POST that only does something.
    pub(super) async fn act(
        &self,
        name: &'static str,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        on_node!(self, |node, generation| async {
            let answer = self
                .transport
                .call(node, Call::post(name, path, body))
                .await?;
            match generation {
                Generation::V2 => v2::done(&answer),
                Generation::V3 => v3::done(&answer),
            }
        })
    }
}

/// The body of calls about a group as a whole.
#[derive(Serialize)]
struct GroupBody<'a> {
    channel_id: &'a str,
    channel_type: u8,
}

impl<'a> GroupBody<'a> {
    fn new(group: &'a ChannelId) -> Self {
        Self {
            channel_id: group.as_str(),
            channel_type: 2,
        }
    }
}

fn refusal(generation: Generation, answer: &Answer) -> Error {
    match generation {
        Generation::V3 => v3::refusal(answer),
        Generation::V2 if answer.status == http::StatusCode::BAD_REQUEST => {
            Error::Rejected(Rejection::Other)
        }
        Generation::V2 => Error::Status(answer.status.as_u16()),
    }
}
