//! All errors of the API, one row each: status, code, texts in both languages, and what to do. docs/ERRORS.md is generated from these.

use http::StatusCode;

use super::LocalizedText;

/// What is fixed about an [`ApiError`].
#[derive(Debug, Clone, Copy)]
struct Row {
    status: StatusCode,
    code: &'static str,
    message: LocalizedText,
    advice: Advice,
}

/// What to do about an [`ApiError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// What a client does.
    pub client: &'static str,
    /// What an operator looks at.
    pub operator: &'static str,
}

/// Used where no endpoint is known; else the endpoint's own text is the message of a 5xx.
const INTERNAL: (&str, &str) = ("服务内部错误", "internal service error");

macro_rules! errors {
    ($(
        $(#[$about:meta])*
        $Error:ident => $status:ident, $code:literal, $message:expr, client: $client:literal, operator: $operator:literal;
    )*) => {
        /// All errors of the API. Status and code of each never change; docs/ERRORS.md has a row for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ApiError {
            $($(#[$about])* $Error,)*
        }

        impl ApiError {
            /// All errors, in the order of docs/ERRORS.md.
            pub const ALL: [Self; ROWS.len()] = [$(Self::$Error),*];
        }

        /// By discriminant.
        static ROWS: [Row; [$($code),*].len()] = [$(Row {
            status: StatusCode::$status,
            code: $code,
            message: LocalizedText { zh: $message.0, en: $message.1 },
            advice: Advice { client: $client, operator: $operator },
        }),*];
    };
}

errors! {
    /// Malformed JSON, or a missing, wrongly typed or out-of-range field.
    InvalidRequest => BAD_REQUEST, "invalid_request", ("请求参数有误", "the request is invalid"),
        client: "Correct the fields named in `details`; do not repeat it as it is",
        operator: "Nothing, unless there are many: `error.fields` of the log names the fields";
    /// No bearer token.
    TokenMissing => UNAUTHORIZED, "token_missing", ("缺少访问令牌", "an access token is required"),
        client: "Log in, send `Authorization: Bearer …`",
        operator: "Whether a proxy strips the header";
    /// A token with an invalid signature or invalid claims.
    TokenInvalid => UNAUTHORIZED, "token_invalid", ("访问令牌无效", "the access token is invalid"),
        client: "Log in again",
        operator: "`error.cause` of the log (`signature`, `algorithm`, `iss`, `aud`, `nbf`, `exp`, `uid`, `required claim`, …); the keys and claims of `[auth]`, clocks";
    /// A valid token that has expired.
    TokenExpired => UNAUTHORIZED, "token_expired", ("访问令牌已过期", "the access token has expired"),
        client: "Refresh the token and repeat the request",
        operator: "Clocks, and `auth.leeway`";
    /// Not permitted, without a more specific reason.
    Forbidden => FORBIDDEN, "forbidden", ("没有权限", "this is not allowed"),
        client: "Do not repeat it",
        operator: "A ban or an allowlist in WuKongIM; `auth.admin_roles`, `auth.admin_permissions`; a foreign `fromUid`; in mode `callback` the reason in `error.cause`";
    /// The caller is not a subscriber of the group.
    NotAMember => FORBIDDEN, "not_a_member", ("不是该群成员", "not a member of this group"),
        client: "Ask to be added; for a transfer: choose a member",
        operator: "The group's subscribers in WuKongIM";
    /// The caller is on a denylist.
    Blocked => FORBIDDEN, "blocked", ("已被对方或该群屏蔽", "you have been blocked"),
        client: "Do not repeat it",
        operator: "The denylist of the peer or of the group in WuKongIM";
    /// The group is banned: messages to it are not stored.
    ChannelBanned => FORBIDDEN, "channel_banned", ("频道已被封禁", "the channel is banned"),
        client: "Tell the user",
        operator: "The group's `ban` in WuKongIM";
    /// The sender is banned from sending.
    SendBanned => FORBIDDEN, "send_banned", ("已被禁止发言", "sending is banned"),
        client: "Tell the user",
        operator: "The group's `send_ban` in WuKongIM";
    /// Only the owner or an admin may.
    NotOwner => FORBIDDEN, "not_owner", ("只有群主可以执行此操作", "only the owner may do this"),
        client: "Do not repeat it",
        operator: "The group's owner in the gateway's store";
    /// Unknown path.
    NotFound => NOT_FOUND, "not_found", ("接口不存在", "no such path"),
        client: "Correct the path",
        operator: "The prefix `/api/v1/im`; a proxy that rewrites paths";
    /// Unknown or deleted channel.
    ChannelNotFound => NOT_FOUND, "channel_not_found", ("频道不存在", "the channel does not exist"),
        client: "Remove the channel from the client",
        operator: "Whether WuKongIM lost it; its owner can create it again";
    /// Known path, wrong method.
    MethodNotAllowed => METHOD_NOT_ALLOWED, "method_not_allowed", ("请求方法不被允许", "the method is not allowed"),
        client: "Use a method of `Allow`",
        operator: "Nothing";
    /// The client did not finish its request in time.
    RequestTimeout => REQUEST_TIMEOUT, "request_timeout", ("请求未能及时完成", "the request was not finished in time"),
        client: "Repeat it on a better connection",
        operator: "Slow clients, a slow proxy; `server.request_timeout`";
    /// The id is taken.
    ChannelExists => CONFLICT, "channel_exists", ("频道已存在", "the channel exists already"),
        client: "Use another id; for a message: nothing, another channel has this conversation's key in WuKongIM v2",
        operator: "A group that was not created through the gateway has no owner: an admin manages it. For a message: two ids with one key (README, Security)";
    /// The id was deleted and is never used again.
    ChannelDeleted => CONFLICT, "channel_deleted", ("频道已被删除", "the channel was deleted"),
        client: "Use another id: this one is never used again",
        operator: "Nothing";
    /// The group would have more members than allowed.
    ChannelFull => CONFLICT, "channel_full", ("群成员已满", "the group is full"),
        client: "Add fewer users, or remove some",
        operator: "`limits.group_members`";
    /// The client_msg_no was used for another payload.
    MessageConflict => CONFLICT, "message_conflict", ("消息编号已用于其他内容", "this clientMsgNo was used for another payload"),
        client: "Generate a new `clientMsgNo` for a new message",
        operator: "Clients that use counters instead of random numbers";
    /// The owner cannot be removed.
    OwnerCannotLeave => CONFLICT, "owner_cannot_leave", ("群主不能退出", "the owner cannot leave"),
        client: "Transfer the group first, or delete it",
        operator: "Nothing";
    /// The body is larger than `server.body_limit`.
    PayloadTooLarge => PAYLOAD_TOO_LARGE, "payload_too_large", ("请求体过大", "the request body is too large"),
        client: "Send a smaller body",
        operator: "`server.body_limit`";
    /// A body without a JSON content type.
    UnsupportedMediaType => UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", ("请求体必须是JSON", "the request body must be JSON"),
        client: "Send `Content-Type: application/json`, and no `Content-Encoding`: if that was wrong, `message` says so, and the answer has `Accept-Encoding: identity`",
        operator: "Nothing";
    /// The path is for WebSocket connections only.
    UpgradeRequired => UPGRADE_REQUIRED, "upgrade_required", ("该接口只接受WebSocket连接", "this path takes WebSocket connections only"),
        client: "Connect by WebSocket over HTTP/1.1, as the SDKs do",
        operator: "A proxy that drops `Upgrade` and `Connection`, or speaks HTTP/2 to the gateway (docs/TLS.md)";
    /// The headers are larger than the gateway reads.
    HeadersTooLarge => REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", ("请求头过大", "the request headers are too large"),
        client: "Send smaller headers: a token of 16 KiB at most, fewer cookies. Logging in again does not help",
        operator: "Headers added by a proxy; claims added by the issuer";
    /// A user or an address asks for more than its limit.
    RateLimited => TOO_MANY_REQUESTS, "rate_limited", ("请求过于频繁", "too many requests"),
        client: "Wait `Retry-After` seconds, and spread calls by `RateLimit-Remaining`. If that is not 0, too much is in flight: finish requests, and read answers, before sending more",
        operator: "`gateway_limited_total` names the limit; `limits.requests_per_second` and `burst` for users, a quarter of `server.max_in_flight` and `max_buffered` for what a user has in flight, a sixteenth of `max_buffered` for what an HTTP/2 connection does not read, `anonymous_per_second` for addresses; `server.trusted_proxies`, without which all clients behind a proxy count as one address";
    /// A bug or a panic.
    Internal => INTERNAL_SERVER_ERROR, "internal", INTERNAL,
        client: "Repeat it once, then report the `requestId`",
        operator: "The log line of that request: a bug";
    /// This WuKongIM, or this way of running it, cannot do it.
    NotSupported => NOT_IMPLEMENTED, "not_supported", INTERNAL,
        client: "Do not repeat it: leave the function out for this deployment",
        operator: "docs/WUKONGIM.md: on v3 `wukongim.manager_url` for the members of a group; in a v2 cluster with `managerToken` no conversation can be deleted";
    /// WuKongIM's answer was malformed or an unexpected error, or it refused the gateway's own credentials.
    UpstreamError => BAD_GATEWAY, "upstream_error", INTERNAL,
        client: "Repeat it later",
        operator: "`error.cause` of the log; `wukongim.manager_token`; WuKongIM's own log, by `x-request-id`";
    /// WuKongIM cannot be reached or is in maintenance.
    UpstreamUnavailable => SERVICE_UNAVAILABLE, "upstream_unavailable", INTERNAL,
        client: "Repeat it after `Retry-After` seconds",
        operator: "`/readyz`, `gateway_upstream_requests_total{outcome=\"connect\"}`; whether WuKongIM runs and can be reached at `wukongim.api_urls`; in mode `callback` whether the backend answers (`error.cause`)";
    /// The gateway is overloaded.
    Overloaded => SERVICE_UNAVAILABLE, "overloaded", INTERNAL,
        client: "Repeat it after `Retry-After` seconds",
        operator: "`gateway_limited_total` names the limit: `server.max_in_flight`, `max_buffered`, `max_connections` (more replicas), `max_connections_per_address`, or 512 requests about one channel";
    /// The store is unavailable.
    StoreUnavailable => SERVICE_UNAVAILABLE, "store_unavailable", INTERNAL,
        client: "Repeat it after `Retry-After` seconds; messages can still be sent",
        operator: "`degraded` of `/readyz`; the disk or the database behind `store.url`";
    /// The issuer's keys are unavailable, and the token may be valid.
    KeysUnavailable => SERVICE_UNAVAILABLE, "keys_unavailable", INTERNAL,
        client: "Keep the token and repeat the request after `Retry-After` seconds: it may be valid",
        operator: "`/readyz`; whether the issuer answers at `auth.jwks_url`";
    /// WuKongIM did not answer in time.
    UpstreamTimeout => GATEWAY_TIMEOUT, "upstream_timeout", INTERNAL,
        client: "Repeat it, a message with the same `clientMsgNo`",
        operator: "`gateway_upstream_request_duration_seconds`; `wukongim.timeout`, `server.request_timeout`";
    /// Sent, but not confirmed in time.
    MessageUnconfirmed => GATEWAY_TIMEOUT, "message_unconfirmed", INTERNAL,
        client: "Send it again with the `clientMsgNo` of the answer: the gateway searches for it first, and never stores it twice",
        operator: "`gateway_message_confirm_seconds`; WuKongIM's cluster; `wukongim.confirm_timeout`";
    /// Some messages of a batch were sent, others were not.
    PartialFailure => MULTI_STATUS, "partial_failure", ("批量发送消息失败", "failed to send the batch"),
        client: "Repeat the entries of `data` that have an `error`, as their codes say",
        operator: "`error.cause` of the log: the first failed message's";
}

impl ApiError {
    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// The code in the envelope; never translated and never changed.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// One sentence for the client. A 5xx has its endpoint's text instead.
    pub fn message(self) -> LocalizedText {
        self.row().message
    }

    /// What to do about it.
    pub fn advice(self) -> Advice {
        self.row().advice
    }

    /// Seconds for `Retry-After` on temporary errors; [`Failure::retry_after_s`](super::Failure::retry_after_s) has precedence.
    pub fn retry_after_s(self) -> Option<u32> {
        match self {
            // The keys are not fetched again sooner.
            Self::KeysUnavailable => Some(10),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }
}
