//! The page of a chat, only with `--embedded`: HTML, style and script of its own. It makes no token; the one it uses is in the fragment of
//! its address, which browsers send to no server. It calls only the gateway it was loaded from.

use axum::Router;

use super::Endpoint;
use super::static_files::{self, StaticFile};
use crate::state::App;

/// The content security policy. `'self'` in `connect-src` covers the socket of the same host and port. Trusted types keep the script from
/// making HTML of a text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page itself first; its links are relative to `/api/v1/im/`.
static FILES: [StaticFile; 4] = [
    StaticFile::at(
        "/api/v1/im/chat",
        "text/html; charset=utf-8",
        include_bytes!("chat/index.html"),
    ),
    StaticFile::at(
        "/api/v1/im/chat/chat.js",
        "text/javascript; charset=utf-8",
        include_bytes!("chat/chat.js"),
    ),
    StaticFile::at(
        "/api/v1/im/chat/socket.js",
        "text/javascript; charset=utf-8",
        include_bytes!("chat/socket.js"),
    ),
    StaticFile::at(
        "/api/v1/im/chat/chat.css",
        "text/css; charset=utf-8",
        include_bytes!("chat/chat.css"),
    ),
];

/// Their names in metrics and logs.
pub(super) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    FILES.iter().map(|file| &file.endpoint)
}

pub(super) fn router() -> Router<App> {
    static_files::router(&FILES, POLICY)
}
