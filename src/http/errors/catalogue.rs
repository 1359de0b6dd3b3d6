//! docs/ERRORS.md, and the same as HTML.

use std::sync::LazyLock;

use super::{Advice, ApiError, Lang};

/// The cells of a row after the code: status, texts, and what to do.
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

/// Text between back-ticks becomes code.
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
    "what an operator checks",
];

const INTRODUCTION: &str = "\
# Error codes

Every failure is `{\"success\":false,\"message\":\"…\",\"code\":\"…\",\"requestId\":\"…\"}`, with `details` if fields are invalid. Programs use
`code`, which never changes; `message` is for users, in Chinese, or in English if `Accept-Language` prefers it. `*`: a 5xx has
the text of its endpoint (`发送消息失败`, `failed to send the message`, …), and the log has the cause. `requestId` is the
`x-request-id` of the answer, of the log line and of every call to WuKongIM that the request made.

A send that WuKongIM answers with 500 or with a malformed answer, and whose message is then not found, is 502 `upstream_error` with
the `clientMsgNo` next to `code`: send it again with that number, as after `message_unconfirmed`.

**Without an envelope** are only answers to invalid HTTP: 431 for more than 100 header lines or 64 KiB of them, 400 for the rest.

**`Connection: close`** is set if the gateway reads no further requests on the connection, because an unread part of the body is left:
more than 64 KiB, or not received within 100 ms, and always with 429, 503, 408 and an unanswered `Expect`. HTTP clients handle it
themselves.

This page is generated from `src/http/errors/codes.rs`; a test keeps it up to date.

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
