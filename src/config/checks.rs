//! Checks beyond single keys: relations between keys, weak secrets, and valid but dangerous settings.

use std::cell::LazyCell;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::KeyCheck;
use super::algorithm::Algorithm;
use super::network::Cidr;
use super::reader::Reader;
use super::secrets::weakness;
use super::settings::{Auth, Settings};
use super::types::{Confirm, HttpUrl, Mode, StoreUrl};
use crate::http_client;

/// The path of the gateway's WebSocket.
const SOCKET_PATH: &str = "/api/v1/im/ws";

/// Adds the errors to the reader.
pub(super) fn problems(
    settings: &Settings,
    embedded: bool,
    check_key: KeyCheck,
    reader: &mut Reader<'_>,
) {
    let (server, limits) = (&settings.server, &settings.limits);
    if reader.is_file_complete {
        missing_keys(settings, reader);
    }
    public_keys(&settings.auth, check_key, reader);
    if !embedded {
        for (key, what) in weak_secrets(settings) {
            reader.relation(key, &[], what);
        }
    }
    if collide(server.listen, server.ops_listen) {
        let what = "must be another port than server.listen";
        reader.relation("server.ops_listen", &["server.listen"], what);
    }
    let tcp_listen = settings.socket.tcp_listen;
    let others = [server.listen, server.ops_listen];
    if tcp_listen.is_some_and(|own| others.iter().any(|other| collide(own, *other))) {
        let what = "must be another port than server.listen and server.ops_listen";
        let keys = ["server.listen", "server.ops_listen"];
        reader.relation("socket.tcp_listen", &keys, what);
    }
    let api_urls = &settings.wukongim.api_urls;
    for (index, url) in api_urls.iter().enumerate() {
        if api_urls[..index].contains(url) {
            let what = format_args!("entry {} is listed twice", index + 1);
            reader.relation("wukongim.api_urls", &[], what);
        }
    }
    keys_that_belong_together(settings, reader);
    store(settings, reader);
    certificates(settings, reader);
    if limits.sync_default > limits.sync_max {
        let max = limits.sync_max;
        let what = format_args!("must be at most limits.sync_max, which is {max}");
        reader.relation("limits.sync_default", &["limits.sync_max"], what);
    }
}

/// There must be a key for clients' tokens and one for IM tokens.
fn missing_keys(settings: &Settings, reader: &mut Reader<'_>) {
    const OTHERS: [&str; 2] = ["auth.jwt_public_keys", "auth.jwks_url"];
    let auth = &settings.auth;
    if auth.jwt_secret.is_some() {
        return;
    }
    if auth.jwt_public_keys.is_empty() && auth.jwks_url.is_none() {
        let what = "must be set: the key that clients' tokens are signed with, at least 32 bytes (GATEWAY__AUTH__JWT_SECRET or JWT_SECRET); or else auth.jwt_public_keys or auth.jwks_url";
        reader.relation("auth.jwt_secret", &OTHERS, what);
    } else if settings.im_token.secret.is_none() {
        let what = "must be set: there is no auth.jwt_secret to derive it from";
        reader.relation("im_token.secret", &["auth.jwt_secret"], what);
    }
}

/// Every public key must be readable, valid, and for an allowed algorithm.
fn public_keys(auth: &Auth, check_key: KeyCheck, reader: &mut Reader<'_>) {
    const FILES: &str = "auth.jwt_public_keys";
    const ALGORITHMS: &str = "auth.algorithms";
    for (index, file) in auth.jwt_public_keys.iter().enumerate() {
        reader.warn_if_others_write(FILES, file);
        if let Err(error) = check_key(&reader.cwd.join(file), &auth.algorithms) {
            let what = format_args!("entry {} {error}", index + 1);
            reader.relation(FILES, &[ALGORITHMS], what);
        }
    }
    let symmetric_only = auth.algorithms == [Algorithm::HS256];
    if auth.jwks_url.is_some() && symmetric_only {
        let what = "must have one that the keys of auth.jwks_url are for: HS256 is for secrets";
        reader.relation(ALGORITHMS, &["auth.jwks_url"], what);
    }
}

/// v3's manager port needs all three of its settings, and mode `callback` an address and a secret.
fn keys_that_belong_together(settings: &Settings, reader: &mut Reader<'_>) {
    let (wukongim, authorization) = (&settings.wukongim, &settings.authorization);
    let username = wukongim.manager_username.is_some();
    let password = wukongim.manager_password.is_some();
    let manager = [
        ("wukongim.manager_url", wukongim.manager_url.is_some()),
        ("wukongim.manager_username", username),
        ("wukongim.manager_password", password),
    ];
    if manager.iter().any(|(_, is_set)| *is_set) {
        let keys @ [url, username, password] = manager.map(|(key, _)| key);
        let what = format!("must be set: {url}, {username} and {password} go together");
        for (key, _) in manager.iter().filter(|(_, is_set)| !is_set) {
            reader.relation(key, &keys, &what);
        }
    }
    let url = authorization.callback_url.is_some();
    let secret = authorization.callback_secret.is_some();
    let callback = [
        ("authorization.callback_url", url),
        ("authorization.callback_secret", secret),
    ];
    for (key, is_set) in callback {
        if authorization.mode == Mode::Callback && !is_set {
            let what = "must be set where authorization.mode is \"callback\"";
            reader.relation(key, &["authorization.mode"], what);
        }
    }
}

/// Checks the files named in `store.url`, since the driver reads them only when it connects.
fn store(settings: &Settings, reader: &mut Reader<'_>) {
    const URL: &str = "store.url";
    let url = match &settings.store.url {
        StoreUrl::Sqlite(path) if reader.cwd.join(path).is_dir() => {
            return reader.relation(URL, &[], "is a folder: must be a file");
        }
        StoreUrl::Postgres(url) => url,
        StoreUrl::Sqlite(_) | StoreUrl::SqliteMemory => return,
    };
    // It has been parsed before.
    let Ok(url) = Url::parse(url) else { return };
    let parameter = |name| url.query_pairs().find(|(key, _)| key == name);
    if parameter("sslcert").is_some() != parameter("sslkey").is_some() {
        reader.relation(URL, &[], "sslcert and sslkey go together");
    }
    for name in ["sslrootcert", "sslcert", "sslkey"] {
        // The driver accepts the text of a certificate as well as a path.
        let file = parameter(name).filter(|(_, text)| !text.starts_with("-----BEGIN"));
        let Some((_, file)) = file else { continue };
        let what = match std::fs::read(reader.cwd.join(&*file)) {
            Ok(text) if pem::parse_many(&text).is_ok_and(|blocks| !blocks.is_empty()) => continue,
            Ok(_) => format!("the file of its {name} must be PEM (-----BEGIN …)"),
            Err(error) => format!("the file of its {name} cannot be read: {error}"),
        };
        reader.relation(URL, &[], what);
    }
}

/// https needs CA certificates.
fn certificates(settings: &Settings, reader: &mut Reader<'_>) {
    let is_https = |url: &HttpUrl| url.as_url().scheme() == "https";
    let any = |url: &Option<HttpUrl>| url.as_ref().is_some_and(is_https);
    let (wukongim, authorization) = (&settings.wukongim, &settings.authorization);
    let callback = authorization.mode == Mode::Callback && any(&authorization.callback_url);
    let traces = cfg!(feature = "otel") && any(&settings.telemetry.otlp_endpoint);
    let keys = [
        ("wukongim.api_urls", wukongim.api_urls.iter().any(is_https)),
        ("wukongim.manager_url", any(&wukongim.manager_url)),
        ("auth.jwks_url", any(&settings.auth.jwks_url)),
        ("authorization.callback_url", callback),
        ("telemetry.otlp_endpoint", traces),
    ];
    let problem = LazyCell::new(http_client::https_problem);
    for (key, _) in keys.into_iter().filter(|(_, https)| *https) {
        if let Some(problem) = &*problem {
            let what = format_args!(
                "https needs CA certificates, and there are none ({problem}): install the system's (such as Debian's ca-certificates), or name a file with your own in SSL_CERT_FILE"
            );
            reader.relation(key, &[], what);
        }
    }
}

/// All secrets that are used byte for byte: the key, the entry's name, and the secret.
fn secrets(settings: &Settings) -> impl Iterator<Item = (&'static str, String, &SecretString)> {
    let (auth, wukongim) = (&settings.auth, &settings.wukongim);
    let callback_secret = &settings.authorization.callback_secret;
    let previous = auth.jwt_previous_secrets.iter().enumerate();
    let previous = previous.map(|(index, secret)| {
        let entry = format!("entry {} ", index + 1);
        ("auth.jwt_previous_secrets", entry, secret)
    });
    let first = auth.jwt_secret.iter();
    let first = first.map(|secret| ("auth.jwt_secret", String::new(), secret));
    let others = [
        ("im_token.secret", &settings.im_token.secret),
        ("authorization.callback_secret", callback_secret),
        ("wukongim.manager_token", &wukongim.manager_token),
        ("wukongim.manager_password", &wukongim.manager_password),
    ];
    let others = others.into_iter();
    let others = others.filter_map(|(key, secret)| Some((key, String::new(), secret.as_ref()?)));
    first.chain(previous).chain(others)
}

/// Guessable secrets, and the reason for each.
fn weak_secrets(settings: &Settings) -> Vec<(&'static str, String)> {
    const GUARDED: [&str; 3] = [
        "auth.jwt_secret",
        "auth.jwt_previous_secrets",
        "im_token.secret",
    ];
    let guarded = secrets(settings).filter(|(key, ..)| GUARDED.contains(key));
    guarded
        .filter_map(|(key, entry, secret)| Some((key, format!("{entry}{}", weakness(secret)?))))
        .collect()
}

/// Whether a secret is surrounded by quotes or white space, which are rarely meant to be part of it.
fn is_padded(secret: &SecretString) -> bool {
    let text = secret.expose_secret();
    let quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    text.trim() != text || quoted('"') || quoted('\'')
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

/// Whether this WebSocket address has another path than the gateway's.
fn is_past_the_gateway(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.path() != SOCKET_PATH)
}

/// What is legal but dangerous, as `key: what`.
pub(super) fn warnings(settings: &Settings, embedded: bool) -> Vec<String> {
    let weak = weak_secrets(settings).into_iter().filter(|_| embedded);
    let weak = weak.map(|(key, what)| format!("{key}: {what}; only --embedded takes it"));
    let padded = secrets(settings).filter(|(_, _, secret)| is_padded(secret));
    let padded = padded.map(|(key, entry, _)| {
        format!("{key}: {entry}has white space or quotes around it, which are part of it")
    });
    let dangers = dangers(settings, embedded).into_iter();
    let dangers = dangers.filter(|(is_there, _)| *is_there);
    let dangers = dangers.map(|(_, text)| text.to_owned());
    weak.chain(padded).chain(dangers).collect()
}

/// The dangerous settings, each with whether it applies.
fn dangers(settings: &Settings, embedded: bool) -> Vec<(bool, &'static str)> {
    let (server, limits) = (&settings.server, &settings.limits);
    let (auth, im_token) = (&settings.auth, &settings.im_token);
    let (authorization, wukongim) = (&settings.authorization, &settings.wukongim);
    let (public, socket) = (&settings.public, &settings.socket);
    let is_larger = |limit| limit > server.max_connections;
    let callback = authorization.mode == Mode::Callback;
    let callback_secret = authorization.callback_secret.as_ref();
    let traces = settings.telemetry.otlp_endpoint.is_some();
    vec![
        (
            !server.ops_listen.ip().is_loopback(),
            "server.ops_listen: reachable from other machines: must not be published, nothing there asks for a token",
        ),
        (
            limits.payload.div_ceil(3) * 4 >= server.body_limit,
            "server.body_limit: smaller than one message with the largest payload in base64 (limits.payload): large ones will get 413",
        ),
        (
            server.max_buffered / 4 < server.body_limit,
            "server.max_buffered: a quarter of it, which is what one user may hold, is smaller than server.body_limit: the largest bodies will always get 429",
        ),
        (
            server.max_connections_per_address.is_some_and(is_larger),
            "server.max_connections_per_address: larger than server.max_connections: it does nothing",
        ),
        (
            server.trusted_proxies.iter().any(Cidr::is_everything),
            "server.trusted_proxies: contains every address: any client may claim any address",
        ),
        (
            wukongim.timeout + wukongim.confirm_timeout > server.request_timeout,
            "server.request_timeout: shorter than wukongim.timeout and wukongim.confirm_timeout together: sends will be answered as unconfirmed before they can tell what happened",
        ),
        (
            wukongim.connect_timeout > wukongim.timeout,
            "wukongim.connect_timeout: longer than wukongim.timeout, which ends the call first",
        ),
        (
            auth.jwt_secret.is_some()
                && !auth.algorithms.is_empty()
                && !auth.algorithms.contains(&Algorithm::HS256),
            "auth.algorithms: without HS256 auth.jwt_secret checks no token",
        ),
        (
            auth.jwks_refresh > Duration::from_mins(5),
            "auth.jwks_refresh: a key that the issuer has removed is still good for this long",
        ),
        (
            authorization.mode == Mode::Open,
            "authorization.mode: open: every valid token may read, send to and manage every channel",
        ),
        (
            callback && callback_secret.and_then(weakness).is_some(),
            "authorization.callback_secret: shorter than 32 bytes, or printed in documentation: others may sign questions to the backend",
        ),
        (
            callback && authorization.callback_timeout >= server.request_timeout,
            "authorization.callback_timeout: not shorter than server.request_timeout: requests will be cut before they can tell what happened",
        ),
        (
            authorization.cache_ttl > Duration::from_mins(1),
            "authorization.cache_ttl: on other replicas a removed member goes on reading for this long",
        ),
        (
            wukongim.confirm == Confirm::Accepted,
            "wukongim.confirm: accepted: messages that WuKongIM drops are answered as sent, and messageSeq is 0 on v2",
        ),
        (
            im_token.secret.is_none() && !auth.jwt_previous_secrets.is_empty(),
            "im_token.secret: derived from auth.jwt_secret while auth.jwt_previous_secrets is set: that rotation changes every IM token",
        ),
        (
            public.manager_url.is_some(),
            "public.manager_url: every user is shown the address of the management page",
        ),
        (
            public.ws_url.is_none() && !socket.enabled && !embedded,
            "public.ws_url: unset: clients get what WuKongIM answers, maybe a private address",
        ),
        (
            socket.enabled && public.ws_url.as_deref().is_some_and(is_past_the_gateway),
            "public.ws_url: its path is not /api/v1/im/ws: clients connect past the gateway, where none of its rules hold",
        ),
        (
            socket.enabled && socket.tcp_listen.is_some() && public.tcp_addr.is_none(),
            "socket.tcp_listen: public.tcp_addr is unset: clients are not told this address",
        ),
        (
            settings.store.url == StoreUrl::SqliteMemory && !embedded,
            "store.url: in memory: owners and deleted ids of all groups are forgotten at every restart",
        ),
        (
            traces && !cfg!(feature = "otel"),
            "telemetry.otlp_endpoint: no traces are sent: this binary was built without the feature otel",
        ),
    ]
}
