//! Every route on one screen. A new one is protected unless it is listed in `PUBLIC`.

mod channels;
mod config;
mod health;
mod messages;
mod roles;
mod synced;
mod system;
mod token;

use axum::Router;
use axum::routing::{get, post};
use tower::layer::layer_fn;

use crate::app::App;
use crate::auth::{Authenticate, unknown_path};
use crate::error::{ApiError, Text};
use crate::limits::Cost;

/// The routes that need no token.
const PUBLIC: [&str; 1] = ["/api/v1/im/health"];

/// All routes, without the outermost layer.
pub fn router(app: &App) -> Router<App> {
    let endpoints = [
        ("/api/v1/im/config", get(config::get_config)),
        ("/api/v1/im/token", post(token::create_token)),
        ("/api/v1/im/token/revoke", post(token::revoke_token)),
        ("/api/v1/im/message/send", post(messages::send_message)),
        (
            "/api/v1/im/message/sendbatch",
            post(messages::send_message_batch),
        ),
        ("/api/v1/im/message/sync", get(messages::sync_messages)),
        ("/api/v1/im/channel/create", post(channels::create_channel)),
        ("/api/v1/im/channel/delete", post(channels::delete_channel)),
        (
            "/api/v1/im/channel/subscriber/add",
            post(channels::add_subscribers),
        ),
        (
            "/api/v1/im/channel/subscriber/remove",
            post(channels::remove_subscribers),
        ),
        ("/api/v1/im/channel/info", get(roles::get_channel_info)),
        ("/api/v1/im/channel/manager/add", post(roles::add_managers)),
        (
            "/api/v1/im/channel/manager/remove",
            post(roles::remove_managers),
        ),
        ("/api/v1/im/channel/owner", post(roles::transfer_ownership)),
        ("/api/v1/im/health", get(health::get_health)),
        ("/api/v1/im/system/info", get(system::get_system_info)),
    ];
    let mut router = Router::new();
    for (path, methods) in endpoints {
        // On the methods, not on the path: a wrong method is 405 for everybody.
        let methods = if PUBLIC.contains(&path) {
            methods
        } else {
            let app = app.clone();
            methods.route_layer(layer_fn(move |route| Authenticate::new(app.clone(), route)))
        };
        router = router.route(path, methods);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

/// What the outermost layer must know of a route: its name in metrics and logs, what its 5xx answers say, what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The path as in the router; `unknown` for none.
    pub route: &'static str,
    /// The reference's text for its failure.
    pub failure: Text,
    /// What a call costs its user: 1 unless said otherwise.
    pub cost: Cost,
}

static ENDPOINTS: [Endpoint; 16] = [
    Endpoint::new(
        "/api/v1/im/config",
        "获取连接配置失败",
        "failed to get the connection configuration",
    ),
    Endpoint::new(
        "/api/v1/im/token",
        "获取Token失败",
        "failed to get the token",
    )
    .costs(Cost::Fixed(5)),
    Endpoint::beyond_the_reference("/api/v1/im/token/revoke").costs(Cost::Fixed(5)),
    Endpoint::new(
        "/api/v1/im/message/send",
        "发送消息失败",
        "failed to send the message",
    ),
    Endpoint::new(
        "/api/v1/im/message/sendbatch",
        "批量发送消息失败",
        "failed to send the batch",
    )
    .costs(Cost::ByContent),
    Endpoint::new(
        "/api/v1/im/message/sync",
        "同步消息失败",
        "failed to sync messages",
    )
    .costs(Cost::ByContent),
    Endpoint::new(
        "/api/v1/im/channel/create",
        "创建频道失败",
        "failed to create the channel",
    )
    .costs(Cost::Fixed(5)),
    Endpoint::new(
        "/api/v1/im/channel/delete",
        "删除频道失败",
        "failed to delete the channel",
    ),
    Endpoint::new(
        "/api/v1/im/channel/subscriber/add",
        "添加订阅者失败",
        "failed to add subscribers",
    )
    .costs(Cost::ByContent),
    Endpoint::new(
        "/api/v1/im/channel/subscriber/remove",
        "移除订阅者失败",
        "failed to remove subscribers",
    )
    .costs(Cost::ByContent),
    Endpoint::beyond_the_reference("/api/v1/im/channel/info"),
    Endpoint::beyond_the_reference("/api/v1/im/channel/manager/add").costs(Cost::ByContent),
    Endpoint::beyond_the_reference("/api/v1/im/channel/manager/remove").costs(Cost::ByContent),
    Endpoint::beyond_the_reference("/api/v1/im/channel/owner"),
    Endpoint::new("/api/v1/im/health", "服务不可用", "service unavailable"),
    Endpoint::new(
        "/api/v1/im/system/info",
        "获取系统信息失败",
        "failed to get the system information",
    ),
];

impl Endpoint {
    /// Whatever is at no path of the router.
    pub const UNKNOWN: Self = Self::beyond_the_reference("unknown");

    const fn new(route: &'static str, zh: &'static str, en: &'static str) -> Self {
        Self {
            route,
            failure: Text { zh, en },
            cost: Cost::Fixed(1),
        }
    }

    const fn costs(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// Whether it answers whatever the load: who asks whether the gateway is well must hear it.
    pub fn is_never_refused(&self) -> bool {
        PUBLIC.contains(&self.route)
    }

    /// One that the reference has no text for.
    const fn beyond_the_reference(route: &'static str) -> Self {
        Self::new(route, "服务内部错误", "internal service error")
    }

    /// The endpoint at this path, as the router finds it: no path here has a part that varies.
    pub fn at(path: &str) -> Self {
        let known = ENDPOINTS.iter().find(|endpoint| endpoint.route == path);
        known.copied().unwrap_or(Self::UNKNOWN)
    }

    /// All of them.
    pub fn all() -> &'static [Self] {
        &ENDPOINTS
    }
}
