//! What a client should do about each code, and what an operator should look at; and docs/ERRORS.md, which is made of it.

use std::sync::LazyLock;

use super::{ApiError, Lang};

/// What to do about an [`ApiError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// What a client does.
    pub client: &'static str,
    /// What an operator looks at.
    pub operator: &'static str,
}

impl ApiError {
    /// What to do about it.
    #[expect(clippy::too_many_lines, reason = "a table, and whole")]
    pub fn advice(self) -> Advice {
        let (client, operator) = match self {
            Self::InvalidRequest => (
                "Correct the fields named in `details`; do not repeat it as it is",
                "Nothing, unless it grows: then `error.fields` of the log names the fields",
            ),
            Self::TokenMissing => (
                "Log in, send `Authorization: Bearer …`",
                "Whether a proxy strips the header",
            ),
            Self::TokenInvalid => (
                "Log in again",
                "`error.cause` of the log (`signature`, `algorithm`, `iss`, `aud`, `nbf`, `exp`, `uid`, `required claim`, …); the keys and claims of `[auth]`, clocks",
            ),
            Self::TokenExpired => (
                "Refresh the token and repeat the request",
                "Clocks, and `auth.leeway`",
            ),
            Self::Forbidden => (
                "Do not repeat it",
                "A ban or an allowlist in WuKongIM; `auth.admin_roles`, `auth.admin_permissions`; a foreign `fromUid`; in mode `callback` the reason in `error.cause`",
            ),
            Self::NotAMember => (
                "Ask to be added, or hand the group over to a member",
                "The group's subscribers in WuKongIM",
            ),
            Self::Blocked => (
                "Do not repeat it",
                "The denylist of the peer or of the group in WuKongIM",
            ),
            Self::ChannelBanned => ("Tell the user", "The group's `ban` in WuKongIM"),
            Self::SendBanned => ("Tell the user", "The group's `send_ban` in WuKongIM"),
            Self::NotOwner => (
                "Leave it to the owner",
                "Who owns the group: the gateway's store",
            ),
            Self::NotFound => (
                "Correct the path",
                "The prefix `/api/v1/im`, and what a proxy makes of paths",
            ),
            Self::ChannelNotFound => (
                "Forget the channel",
                "Whether WuKongIM lost it; its owner can create it again",
            ),
            Self::MethodNotAllowed => ("Use a method of `Allow`", "Nothing"),
            Self::RequestTimeout => (
                "Repeat it on a better connection",
                "Slow clients, a proxy that dribbles; `server.request_timeout`",
            ),
            Self::ChannelExists => (
                "Take another id; of a message: nothing, this conversation has no place in WuKongIM v2",
                "Groups that were made past the gateway belong to nobody: an admin manages them. Of a message: two ids with one key (README, Security)",
            ),
            Self::ChannelDeleted => ("Take another id: this one is spent", "Nothing"),
            Self::ChannelFull => ("Add fewer, or remove somebody", "`limits.group_members`"),
            Self::MessageConflict => (
                "Make a new `clientMsgNo` for a new message",
                "Clients that count instead of drawing random numbers",
            ),
            Self::OwnerCannotLeave => ("Hand the group over first, or delete it", "Nothing"),
            Self::PayloadTooLarge => ("Send less at once", "`server.body_limit`"),
            Self::UnsupportedMediaType => (
                "Send `Content-Type: application/json`, and no `Content-Encoding`: where that was wrong, `message` says so, and the answer has `Accept-Encoding: identity`",
                "Nothing",
            ),
            Self::HeadersTooLarge => (
                "Send smaller headers: a token of 16 KiB at most, fewer cookies. Logging in again does not help",
                "What a proxy adds; what the issuer puts into tokens",
            ),
            Self::RateLimited => (
                "Wait `Retry-After` seconds, and spread calls by `RateLimit-Remaining`. With some of that left it is too much at once: finish requests, and fetch answers, before sending more",
                "`gateway_limited_total` tells which limit; `limits.requests_per_second` and `burst` for users, a quarter of `server.max_in_flight` and `max_buffered` for what a user has at once, a sixteenth of `max_buffered` for what an HTTP/2 connection does not fetch, `anonymous_per_second` for addresses; `server.trusted_proxies`, without which all behind a proxy count as one address",
            ),
            Self::Internal => (
                "Repeat it once, then report the `requestId`",
                "The log line of that request: a bug",
            ),
            Self::UpstreamError => (
                "Repeat it later",
                "`error.cause` of the log; `wukongim.manager_token`; WuKongIM's own log, by `x-request-id`",
            ),
            Self::UpstreamUnavailable => (
                "Repeat it after `Retry-After` seconds",
                "`/readyz`, `gateway_upstream_requests_total{outcome=\"connect\"}`; whether WuKongIM runs and can be reached at `wukongim.api_urls`; in mode `callback` whether the backend answers (`error.cause`)",
            ),
            Self::Overloaded => (
                "Repeat it after `Retry-After` seconds",
                "`gateway_limited_total` tells which limit: `server.max_in_flight`, `max_buffered`, `max_connections` (more replicas), `max_connections_per_address`, or 512 requests about one channel",
            ),
            Self::StoreUnavailable => (
                "Repeat it after `Retry-After` seconds; messages still flow",
                "`degraded` of `/readyz`; the disk or the database behind `store.url`",
            ),
            Self::KeysUnavailable => (
                "Keep the token and repeat the request after `Retry-After` seconds: it may be good",
                "`/readyz`; whether the issuer answers at `auth.jwks_url`",
            ),
            Self::UpstreamTimeout => (
                "Repeat it; a message with the same `clientMsgNo`",
                "`gateway_upstream_request_duration_seconds`; `wukongim.timeout`, `server.request_timeout`",
            ),
            Self::MessageUnconfirmed => (
                "Send it again with the `clientMsgNo` of the answer: it is looked for first, and never stored twice",
                "`gateway_message_confirm_seconds`; WuKongIM's cluster; `wukongim.confirm_timeout`",
            ),
            Self::PartialFailure => (
                "Repeat the entries of `data` that have an `error`, by their own codes",
                "`error.cause` of the log: that of the first one that failed",
            ),
        };
        Advice { client, operator }
    }
}

/// What a row tells beside the code: status, texts, and what to do.
fn cells(error: ApiError) -> [String; 5] {
    let message = error.message();
    let (zh, en) = if error.status().is_server_error() {
        ("*", "*")
    } else {
        (message.in_lang(Lang::Zh), message.in_lang(Lang::En))
    };
    let Advice { client, operator } = error.advice();
    [error.status().as_str(), zh, en, client, operator].map(str::to_owned)
}

static CATALOGUE: LazyLock<String> = LazyLock::new(|| {
    let mut text = [INTRODUCTION, &table_row(&HEAD.map(str::to_owned))].concat()
        + "|---|---|---|---|---|---|\n";
    for error in ApiError::ALL {
        let code = error.code();
        let mut row = vec![format!("<a id=\"{code}\"></a>`{code}`")];
        row.extend(cells(error));
        text += &table_row(&row);
    }
    text
});

fn table_row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// docs/ERRORS.md: every code with its status, its texts and what to do about it.
pub fn catalogue() -> &'static str {
    &CATALOGUE
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let paragraphs = INTRODUCTION.trim_end().split("\n\n");
    let introduction = paragraphs.map(|paragraph| match paragraph.strip_prefix("# ") {
        Some(title) => format!("<h1>{title}</h1>\n"),
        None => format!("<p>{}</p>\n", html(paragraph)),
    });
    let rows = ApiError::ALL.into_iter().map(|error| {
        let code = error.code();
        let cells = cells(error).map(|cell| format!("<td>{}</td>", html(&cell)));
        format!(
            "<tr id=\"{code}\"><td><code>{code}</code></td>{}</tr>\n",
            cells.concat()
        )
    });
    let head = HEAD.map(|head| format!("<th>{head}</th>")).concat();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Error codes</title>\n{}<table border=\"1\" \
         cellpadding=\"4\">\n<tr>{head}</tr>\n{}</table>\n</html>\n",
        introduction.collect::<String>(),
        rows.collect::<String>()
    )
});

/// The same for browsers, as HTML.
pub fn catalogue_page() -> &'static str {
    &PAGE
}

/// What may stand between back-ticks becomes code.
fn html(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let pieces = escaped.split('`').enumerate();
    let marked = pieces.map(|(index, piece)| match index % 2 {
        0 => piece.to_owned(),
        _ => format!("<code>{piece}</code>"),
    });
    marked.collect()
}

const HEAD: [&str; 6] = [
    "code",
    "status",
    "Chinese",
    "English",
    "what a client does",
    "what an operator looks at",
];

const INTRODUCTION: &str = "\
# What a client can be told

Every failure is `{\"success\":false,\"message\":\"…\",\"code\":\"…\",\"requestId\":\"…\"}`, with `details` where fields are wrong. Programs go by
`code`, which never changes; `message` is for people, in Chinese, or in English where `Accept-Language` prefers it. `*`: every 5xx
says the text of its endpoint (`发送消息失败`, `failed to send the message`, …), and the log says why. `requestId` is the
`x-request-id` of the answer, of the log line and of every call to WuKongIM that the request made.

A send that WuKongIM answers with 500 or with nonsense, and whose message is then not found, is 502 `upstream_error` with the
`clientMsgNo` beside `code`: send it again with that number, as after `message_unconfirmed`.

**Without an envelope** are answers to what is no request: 431 for more than 100 header lines or 64 KiB of them, 400 for what is no HTTP.

**`Connection: close`** is on an answer after which nothing more is read on its connection: the rest of a body that was refused before it
had come (more than 64 KiB of it, or it did not come within 100 ms; 429, 503, 408 and an unanswered `Expect`: always). HTTP clients heed it by themselves.

This page is made of `src/http/errors/catalogue.rs`; a test holds it to that.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_every_code_to_link_to() {
        let page = catalogue_page();
        for error in ApiError::ALL {
            assert!(page.contains(&format!("<tr id=\"{}\">", error.code())));
        }
        assert_eq!(
            html("`a<b>` & `c`, d"),
            "<code>a&lt;b&gt;</code> &amp; <code>c</code>, d"
        );
        assert!(!page.contains('`'), "{page}");
    }
}
