//! The client used by the rest of the gateway: it picks a node, knows its generation and uses that generation's protocol.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::HeaderValue;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use url::Url;

use super::call::{Call, Nodes, Policy, Retry, Transport};
use super::dialect::manager_port::Manager;
use super::dialect::{v2, v3};
use super::log_owner::{LogObservation, LogObservations};
use super::page::{ForeignMessages, MESSAGESYNC, Page, PageRequest, Window};
use super::replication;
use super::single_flight::SingleFlight;
use super::sockets::SocketPorts;
use super::{Accepted, Error, Generation, Outgoing, SystemInfo};
use crate::config::{self, HttpUrl};
use crate::context::ByteBudget;
use crate::domain::{Channel, Uid};
use crate::telemetry::Metrics;

/// The client for WuKongIM, shared by all requests.
pub struct Client {
    pub(super) transport: Arc<Transport>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) manager: Option<Manager>,
    pub(super) health: SingleFlight<()>,
    pub(super) system: SingleFlight<SystemInfo>,
    pub(super) topology: replication::TopologyCache,
    /// Whether the warning about an unknown cluster was logged.
    pub(super) cluster_warned: AtomicBool,
    foreign: ForeignMessages,
    pub(super) logs: LogObservations,
    /// The configured maximum payload for v2; without it, the maximum is detected.
    pub(super) v2_payload_limit: Option<usize>,
    pub(super) sockets: SocketPorts,
}

impl Client {
    /// A client for the configured nodes. Makes no call.
    ///
    /// # Errors
    /// When the TLS back end cannot be set up.
    pub fn new(
        settings: &config::Wukongim,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Self::with_workers(settings, 0, metrics, ByteBudget::unbounded())
    }

    /// [`Client::new`] for this many workers, with its answers counted in `byte_budget`.
    ///
    /// # Errors
    /// As there.
    pub fn with_workers(
        settings: &config::Wukongim,
        cores: usize,
        metrics: Arc<Metrics>,
        byte_budget: Arc<ByteBudget>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let token = settings.manager_token.as_ref();
        let mut token = token
            .map(|token| HeaderValue::from_str(token.expose_secret()))
            .transpose()?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        let urls: Vec<Url> = settings
            .api_urls
            .iter()
            .map(HttpUrl::as_url)
            .cloned()
            .collect();
        let manager_url = settings.manager_url.as_ref().map(HttpUrl::as_url);
        let called: Vec<Url> = urls.iter().chain(manager_url).cloned().collect();
        let connect_timeout = settings.connect_timeout;
        let client =
            move || crate::http_client::client_for(&called).connect_timeout(connect_timeout);
        let timeout = settings.timeout;
        let transport = Transport::new(client, timeout, token, cores, metrics, byte_budget)?;
        let transport = Arc::new(transport);
        let nodes = Nodes::new(&urls, settings.version, &transport);
        let account = settings
            .manager_username
            .clone()
            .zip(settings.manager_password.clone());
        let manager = manager_url.zip(account).map(|(url, (username, password))| {
            Manager::new(Arc::clone(&transport), url, username, password)
        });
        Ok(Self {
            transport,
            nodes: Arc::new(nodes),
            manager,
            health: SingleFlight::new(),
            system: SingleFlight::new(),
            topology: replication::TopologyCache::default(),
            cluster_warned: AtomicBool::new(false),
            foreign: ForeignMessages::default(),
            logs: LogObservations::default(),
            v2_payload_limit: settings.v2_payload_limit,
            sockets: SocketPorts::new(settings),
        })
    }

    /// Sends a message. v2's answer does not prove that it is stored, see [`Accepted::seq`]. `is_permitted` is called directly before each
    /// attempt.
    ///
    /// # Errors
    /// [`Error::Withdrawn`] where `is_permitted` returns false.
    pub async fn send<F: Future<Output = bool>>(
        &self,
        message: &Outgoing<'_>,
        is_permitted: impl Fn() -> F,
    ) -> Result<Accepted, Error> {
        let generation = self.generation().await?;
        let policy = Policy {
            call: "message_send",
            retry: match generation {
                Generation::V2 => Retry::Never,
                Generation::V3 => Retry::IdempotencyKey,
            },
            affinity: Some(message.affinity),
        };
        let is_permitted = &is_permitted;
        let send = self.on_node(policy, |node| async move {
            if !is_permitted().await {
                return Err(Error::Withdrawn);
            }
            match generation {
                Generation::V2 => {
                    self.check_payload_size(node, message).await?;
                    let accepted = v2::send(node, message).await?;
                    let entry = self.logs.entry(message.from, message.channel);
                    entry.record(LogObservation::Exists);
                    Ok(accepted)
                }
                Generation::V3 => v3::send(node, message).await,
            }
        });
        send.await
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
        let generation = self.generation().await?;
        let page = self.on_node(Policy::read(MESSAGESYNC), |node| async move {
            let log = match generation {
                Generation::V2 => Some(self.logs.entry(reader, channel)),
                Generation::V3 => None,
            };
            if log.is_some_and(|log| log.seen.is_none())
                && Box::pin(self.has_no_log(node, reader, channel)).await?
            {
                return Ok(Page::default());
            }
            let body = PageRequest::new(reader, channel, window, limit);
            let call = Call::post(MESSAGESYNC, "/channel/messagesync", &body).max_bytes(max_bytes);
            let answer = node.call(call).await?;
            if !answer.status.is_success() {
                return Err(match generation {
                    Generation::V2 => v2::refusal(&answer),
                    Generation::V3 => v3::refusal(&answer),
                });
            }
            let page = Page::read(&answer.body, reader, channel)?;
            if let (Some(log), Some(_)) = (log, page.seq_range) {
                let is_own = !page.messages.is_empty();
                log.record(if is_own {
                    LogObservation::Own
                } else {
                    LogObservation::Exists
                });
            }
            Ok(page)
        });
        let page = page.await?;
        self.foreign.report(&page, channel, &self.transport.metrics);
        Ok(page)
    }

    /// A POST whose answer carries no data.
    pub(super) async fn post_command(
        &self,
        name: &'static str,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        self.post_command_by(Policy::write(name), path, body).await
    }

    /// The same, repeated as `policy` says.
    pub(super) async fn post_command_by(
        &self,
        policy: Policy<'_>,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        let (name, generation) = (policy.call, self.generation().await?);
        let command = self.on_node(policy, |node| async move {
            let answer = node.call(Call::post(name, path, body)).await?;
            match generation {
                Generation::V2 => v2::command_result(&answer),
                Generation::V3 => v3::command_result(&answer),
            }
        });
        command.await
    }
}
