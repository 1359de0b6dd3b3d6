//! The client the rest of the gateway uses: picks the node, knows its generation, speaks its dialect.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::HeaderValue;
use serde::Serialize;

use super::copies;
use super::log_owner::{Seen, SeenLogs};
use super::manager::Manager;
use super::nodes::Nodes;
use super::page::{Foreign, MESSAGESYNC, Page, PageRequest, Window};
use super::plan::{Plan, Repeat};
use super::shared::Shared;
use super::transport::{Answer, Call, Transport};
use super::trip::{Trip, on_node};
use super::{Accepted, Error, Generation, Outgoing, Rejection, SystemInfo, v2, v3};
use crate::config;
use crate::domain::{Channel, Uid};
use crate::memory::Memory;
use crate::telemetry::Metrics;

/// The one client for WuKongIM, shared by everything.
pub struct Client {
    pub(super) transport: Arc<Transport>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) manager: Option<Manager>,
    pub(super) health: Shared<()>,
    pub(super) system: Shared<SystemInfo>,
    pub(super) cluster: copies::Known,
    /// Whether it was said that the cluster does not tell its nodes.
    pub(super) cluster_warned: AtomicBool,
    foreign: Foreign,
    pub(super) logs: SeenLogs,
    /// The largest payload for a v2, whatever it is; where there is none, it is asked what it bears.
    pub(super) v2_payload_limit: Option<usize>,
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
        Self::on_cores(settings, 0, metrics, Memory::unbounded())
    }

    /// [`Client::new`] for this many cores, with its answers counted in `memory`.
    ///
    /// # Errors
    /// As there.
    pub fn on_cores(
        settings: &config::Wukongim,
        cores: usize,
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
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
        let (connect_timeout, timeout) = (settings.connect_timeout, settings.timeout);
        let nodes = Nodes::new(&urls, settings.version, &metrics);
        let called: Vec<_> = urls
            .iter()
            .chain(settings.manager_url.as_ref().map(config::HttpUrl::as_url))
            .cloned()
            .collect();
        let client = move || crate::outbound::client_for(&called).connect_timeout(connect_timeout);
        let transport = Transport::new(client, timeout, token, cores, metrics, memory)?;
        if settings.version == Some(Generation::V3) {
            transport.v3_found();
        }
        Ok(Self {
            transport: Arc::new(transport),
            nodes: Arc::new(nodes),
            manager,
            health: Shared::new(),
            system: Shared::new(),
            cluster: copies::Known::default(),
            cluster_warned: AtomicBool::new(false),
            foreign: Foreign::default(),
            logs: SeenLogs::default(),
            v2_payload_limit: settings.v2_payload_limit,
        })
    }

    /// Shows in the metrics what each node was when last it was asked.
    pub fn show_generations(&self) {
        for node in self.nodes.all() {
            node.show_generation();
        }
    }

    /// The generation that is spoken to at present; asks a node where that is not known.
    pub async fn generation(&self) -> Result<Generation, Error> {
        let mut trip = Trip::begin(self, Plan::read("generation"));
        trip.next().await.map(|(_, generation)| generation)
    }

    /// Sends a message. On v2 the answer is no proof of anything: see [`Accepted::seq`]. `may_go` is asked directly before each
    /// attempt.
    ///
    /// # Errors
    /// [`Error::OtherGeneration`] where it would reach another generation than the one that permitted it; [`Error::Withdrawn`] where
    /// `may_go` says no.
    pub async fn send<F: Future<Output = bool>>(
        &self,
        message: &Outgoing<'_>,
        may_go: impl Fn() -> F,
    ) -> Result<Accepted, Error> {
        let plan = Plan {
            repeat: match message.permitted_by {
                Generation::V2 => Repeat::Never,
                Generation::V3 => Repeat::Numbered,
            },
            wanted: Some(message.permitted_by),
            route: Some(message.route),
            ..Plan::write("message_send")
        };
        on_node!(self, plan, |node, generation| async {
            if !may_go().await {
                return Err(Error::Withdrawn);
            }
            match generation {
                Generation::V2 => {
                    self.is_borne(node, message).await?;
                    let accepted = v2::send(&self.transport, node, message).await?;
                    let entry = self.logs.look(message.from, message.channel);
                    entry.note(Seen::Exists);
                    Ok(accepted)
                }
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
        self.page_by(None, reader, channel, window, limit, max_bytes)
            .await
    }

    /// The same for what `permitted_by`'s rules let this reader see: v2 lets everybody read everything, so it must not be asked
    /// for what was left to v3 to check.
    ///
    /// # Errors
    /// [`Error::OtherGeneration`] where another generation would be asked.
    pub async fn permitted_page(
        &self,
        permitted_by: Generation,
        reader: &Uid,
        channel: &Channel,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, Error> {
        self.page_by(
            Some(permitted_by),
            reader,
            channel,
            window,
            limit,
            max_bytes,
        )
        .await
    }

    async fn page_by(
        &self,
        permitted_by: Option<Generation>,
        reader: &Uid,
        channel: &Channel,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, Error> {
        let plan = Plan {
            wanted: permitted_by,
            ..Plan::read(MESSAGESYNC)
        };
        let page = on_node!(self, plan, |node, generation| async {
            let log = match generation {
                Generation::V2 => Some(self.logs.look(reader, channel)),
                Generation::V3 => None,
            };
            if log.is_some_and(|log| log.seen.is_none())
                && Box::pin(self.has_no_log(node, reader, channel)).await?
            {
                return Ok(Page::default());
            }
            let body = PageRequest::new(reader, channel, window, limit);
            let call = Call::post(MESSAGESYNC, "/channel/messagesync", &body).max_bytes(max_bytes);
            let answer = self.transport.call(node, call).await?;
            if !answer.status.is_success() {
                return Err(refusal(generation, &answer));
            }
            let page = Page::read(&answer.body, reader, channel)?;
            if let (Some(log), Some(_)) = (log, page.span) {
                let is_own = !page.messages.is_empty();
                log.note(if is_own { Seen::Own } else { Seen::Exists });
            }
            Ok(page)
        })?;
        self.foreign.note(&page, channel, &self.transport.metrics);
        Ok(page)
    }

    /// A POST that only does something.
    pub(super) async fn act(
        &self,
        name: &'static str,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        self.act_by(Plan::write(name), path, body).await
    }

    /// The same, repeated as `plan` says.
    pub(super) async fn act_by(
        &self,
        plan: Plan<'_>,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        let name = plan.call;
        on_node!(self, plan, |node, generation| async {
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

fn refusal(generation: Generation, answer: &Answer) -> Error {
    match generation {
        Generation::V3 => v3::refusal(answer),
        Generation::V2 if answer.status == http::StatusCode::BAD_REQUEST => {
            Error::Rejected(Rejection::Other)
        }
        Generation::V2 => Error::Status(answer.status.as_u16()),
    }
}
