//! All routes: path, handler (whose `#[utoipa::path]` has the rest of the documentation), failure text and cost. A new route requires
//! authentication unless it is listed in `PUBLIC`.

mod channels;
mod chat;
mod config;
mod conversations;
mod docs;
mod health;
mod messages;
mod roles;
mod socket;
mod static_files;
mod subscribers;
mod sync;
mod synced;
mod system;
mod token;

use axum::Router;
use axum::extract::FromRef as _;
use tower::layer::layer_fn;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use crate::http::authenticate::{Authenticate, Authenticator, unknown_path};
use crate::http::errors::ApiError::{
    self, Blocked, ChannelBanned, ChannelDeleted, ChannelExists, ChannelFull, ChannelNotFound,
    Forbidden, MessageConflict, MessageUnconfirmed, NotAMember, NotOwner, NotSupported,
    OwnerCannotLeave, PartialFailure, SendBanned, StoreUnavailable, UpgradeRequired,
};
use crate::http::errors::LocalizedText;
use crate::limits::Cost;
use crate::state::App;

pub use docs::document;

/// The prefix of all paths.
pub const PREFIX: &str = "/api/v1/im";

/// Health checks, which are answered under any load.
const HEALTH: &str = "/api/v1/im/health";
/// The path of sockets.
const SOCKET: &str = "/api/v1/im/ws";
/// Routes without authentication; a socket's user is known from its first frame.
const PUBLIC: [&str; 2] = [HEALTH, SOCKET];

/// Why a message is not sent.
const SEND: &[ApiError] = &[
    Forbidden,
    NotAMember,
    Blocked,
    ChannelBanned,
    SendBanned,
    ChannelNotFound,
    ChannelExists,
    MessageConflict,
    MessageUnconfirmed,
];
/// Errors of all calls about an existing group.
const GROUP: &[ApiError] = &[Forbidden, ChannelNotFound, StoreUnavailable];

/// A handler at its path.
macro_rules! endpoint {
    ($path:literal, $($handler:tt)+) => {
        Endpoint::at($path, || routes!($($handler)+))
    };
}

static ENDPOINTS: [Endpoint; 21] = [
    endpoint!("/api/v1/im/config", config::get_config).says(
        "获取连接配置失败",
        "failed to get the connection configuration",
    ),
    endpoint!("/api/v1/im/token", token::create_token)
        .says("获取Token失败", "failed to get the token")
        .refuses(&[&[Forbidden, StoreUnavailable]])
        .costs(Cost::Fixed(5)),
    endpoint!("/api/v1/im/token/revoke", token::revoke_token)
        .refuses(&[&[Forbidden, StoreUnavailable]])
        .costs(Cost::Fixed(5)),
    endpoint!("/api/v1/im/ws", socket::open_socket)
        .says("建立连接失败", "failed to open the connection")
        .refuses(&[&[Forbidden, UpgradeRequired]]),
    endpoint!("/api/v1/im/message/send", messages::send_message)
        .says("发送消息失败", "failed to send the message")
        .refuses(&[SEND]),
    endpoint!("/api/v1/im/message/sendbatch", messages::send_message_batch)
        .says("批量发送消息失败", "failed to send the batch")
        .refuses(&[SEND, &[PartialFailure]])
        .costs(Cost::ByContent),
    endpoint!("/api/v1/im/message/sync", sync::sync_messages)
        .says("同步消息失败", "failed to sync messages")
        .refuses(&[&[Forbidden, NotAMember, ChannelNotFound]])
        .costs(Cost::ByContent),
    endpoint!(
        "/api/v1/im/conversation/list",
        conversations::list_conversations
    )
    .says("获取会话列表失败", "failed to list the conversations")
    .refuses(&[&[Forbidden, StoreUnavailable]]),
    endpoint!(
        "/api/v1/im/conversation/read",
        conversations::read_conversation
    )
    .says("标记已读失败", "failed to mark as read")
    .refuses(&[&[Forbidden, NotAMember, ChannelNotFound]]),
    endpoint!(
        "/api/v1/im/conversation/delete",
        conversations::delete_conversation
    )
    .says("删除会话失败", "failed to delete the conversation")
    .refuses(&[&[Forbidden, NotAMember, ChannelNotFound, NotSupported]]),
    endpoint!("/api/v1/im/channel/create", channels::create_channel)
        .says("创建频道失败", "failed to create the channel")
        .refuses(&[
            &[Forbidden, StoreUnavailable],
            &[ChannelExists, ChannelDeleted],
        ])
        .costs(Cost::Fixed(5)),
    endpoint!("/api/v1/im/channel/delete", channels::delete_channel)
        .says("删除频道失败", "failed to delete the channel")
        .refuses(&[GROUP, &[NotOwner]]),
    endpoint!(
        "/api/v1/im/channel/subscriber/add",
        channels::add_subscribers
    )
    .says("添加订阅者失败", "failed to add subscribers")
    .refuses(&[GROUP, &[NotOwner, ChannelFull]])
    .costs(Cost::ByContent),
    endpoint!(
        "/api/v1/im/channel/subscriber/remove",
        channels::remove_subscribers
    )
    .says("移除订阅者失败", "failed to remove subscribers")
    .refuses(&[GROUP, &[NotOwner, OwnerCannotLeave]])
    .costs(Cost::ByContent),
    endpoint!("/api/v1/im/channel/info", roles::get_channel_info).refuses(&[GROUP, &[NotAMember]]),
    endpoint!(
        "/api/v1/im/channel/subscribers",
        subscribers::list_subscribers
    )
    .says("获取成员列表失败", "failed to list the subscribers")
    .refuses(&[GROUP, &[NotAMember, NotSupported]]),
    endpoint!("/api/v1/im/channel/manager/add", roles::add_managers)
        .refuses(&[GROUP, &[NotOwner, ChannelFull]])
        .costs(Cost::ByContent),
    endpoint!("/api/v1/im/channel/manager/remove", roles::remove_managers)
        .refuses(&[GROUP, &[NotOwner]])
        .costs(Cost::ByContent),
    endpoint!("/api/v1/im/channel/owner", roles::transfer_ownership)
        .refuses(&[GROUP, &[NotAMember, NotOwner]]),
    endpoint!("/api/v1/im/health", health::get_health).says("服务不可用", "service unavailable"),
    endpoint!("/api/v1/im/system/info", system::get_system_info)
        .says("获取系统信息失败", "failed to get the system information"),
];

/// All routes, without the outermost layer.
pub fn router(app: &App) -> Router<App> {
    let mut router = Router::new();
    let has_sockets = app.settings.socket.enabled;
    let endpoints = ENDPOINTS.iter();
    for endpoint in endpoints.filter(|it| has_sockets || it.route != SOCKET) {
        let (_, _, methods) = (endpoint.handler)();
        // On the methods, not on the path: a wrong method is 405 even without a token.
        let methods = if endpoint.is_public() {
            methods
        } else {
            let by = Authenticator::from_ref(app);
            methods.route_layer(layer_fn(move |route| Authenticate::new(by.clone(), route)))
        };
        router = router.route(endpoint.route, methods);
    }
    if app.settings.docs.enabled {
        router = docs::add_to(router);
    }
    if app.settings.has_chat_page {
        router = router.merge(chat::router());
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

/// A route's properties besides its handler: name in metrics and logs, failures, cost.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The path as in the router; `unknown` for none.
    pub route: &'static str,
    /// The text of its failures.
    pub failure: LocalizedText,
    /// The cost of a call to its user; 1 by default.
    pub cost: Cost,
    /// Its errors, in addition to those common to its kind.
    refusals: &'static [&'static [ApiError]],
    /// The handler with its method and documentation.
    handler: fn() -> UtoipaMethodRouter<App>,
}

impl Endpoint {
    /// Requests to unknown paths.
    pub const UNKNOWN: &Self = &Self::at("unknown", UtoipaMethodRouter::default);

    /// An endpoint without a text of its own.
    const fn at(route: &'static str, handler: fn() -> UtoipaMethodRouter<App>) -> Self {
        Self {
            route,
            failure: LocalizedText {
                zh: "服务内部错误",
                en: "internal service error",
            },
            cost: Cost::Fixed(1),
            refusals: &[],
            handler,
        }
    }

    const fn says(self, zh: &'static str, en: &'static str) -> Self {
        let failure = LocalizedText { zh, en };
        Self { failure, ..self }
    }

    const fn costs(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    const fn refuses(self, refusals: &'static [&'static [ApiError]]) -> Self {
        Self { refusals, ..self }
    }

    fn is_public(&self) -> bool {
        PUBLIC.contains(&self.route)
    }

    /// Whether it is answered under any load: health checks must not be shed.
    pub fn is_exempt(&self) -> bool {
        self.route == HEALTH
    }

    /// The endpoint at this path; no path has parameters.
    pub fn found_at(path: &str) -> &'static Self {
        let pages = docs::endpoints().chain(chat::endpoints());
        let mut all = ENDPOINTS.iter().chain(pages);
        let known = all.find(|endpoint| endpoint.route == path);
        known.unwrap_or(Self::UNKNOWN)
    }

    /// All endpoints, except those of the pages.
    pub fn all() -> &'static [Self] {
        &ENDPOINTS
    }
}
