//! Checks beyond single keys: relations between keys, weak secrets, and valid but dangerous settings.

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
use super::types::{Confirm, HttpUrl, HttpUrlWithPath, Mode, StoreUrl};
use crate::http_client;

/// Adds the errors to the reader.
pub(super) fn problems(
    settings: &Settings,
    embedded: bool,
    is_file_complete: bool,
    check_key: KeyCheck,
    reader: &mut Reader<'_>,
) {
    let Settings {
        server,
        auth,
        wukongim,
        limits,
        ..
    } = settings;
    if is_file_complete {
        missing_keys(settings, reader);
    }
    public_keys(auth, check_key, reader);
    if !embedded {
        for (key, what) in weak_secrets(settings) {
            reader.relation(key, &[], what);
        }
    }
    if collide(server.listen, server.ops_listen) {
        let what = "must be another port than server.listen";
        reader.relation("server.ops_listen", &["server.listen"], what);
    }
    for (index, url) in wukongim.api_urls.iter().enumerate() {
        if wukongim.api_urls[..index].contains(url) {
            let what = format_args!("entry {} is listed twice", index + 1);
            reader.relation("wukongim.api_urls", &[], what);
        }
    }
    manager(settings, reader);
    callback(settings, reader);
    store(settings, reader);
    certificates(settings, reader);
    if limits.sync_default > limits.sync_max {
        let what = format_args!(
            "must be at most limits.sync_max, which is {}",
            limits.sync_max
        );
        reader.relation("limits.sync_default", &["limits.sync_max"], what);
    }
}

/// There must be a key for clients' tokens and one for IM tokens.
fn missing_keys(settings: &Settings, reader: &mut Reader<'_>) {
    const OTHERS: [&str; 2] = ["auth.jwt_public_keys", "auth.jwks_url"];
    let Settings { auth, im_token, .. } = settings;
    if auth.jwt_secret.is_some() {
        return;
    }
    if auth.jwt_public_keys.is_empty() && auth.jwks_url.is_none() {
        let what = "must be set: the key that clients' tokens are signed with, at least 32 bytes (GATEWAY__AUTH__JWT_SECRET or JWT_SECRET); or else auth.jwt_public_keys or auth.jwks_url";
        reader.relation("auth.jwt_secret", &OTHERS, what);
    } else if im_token.secret.is_none() {
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
        if let Err(error) = check_key(&reader.cwd().join(file), &auth.algorithms) {
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

/// v3's manager port needs all three of its settings.
fn manager(settings: &Settings, reader: &mut Reader<'_>) {
    const URL: &str = "wukongim.manager_url";
    const USERNAME: &str = "wukongim.manager_username";
    const PASSWORD: &str = "wukongim.manager_password";
    let wukongim = &settings.wukongim;
    let keys = [
        (URL, wukongim.manager_url.is_some()),
        (USERNAME, wukongim.manager_username.is_some()),
        (PASSWORD, wukongim.manager_password.is_some()),
    ];
    if keys.iter().any(|(_, set)| *set) {
        for (key, _) in keys.iter().filter(|(_, set)| !set) {
            let what = format_args!("must be set: {URL}, {USERNAME} and {PASSWORD} go together");
            reader.relation(key, &[URL, USERNAME, PASSWORD], what);
        }
    }
}

/// Mode `callback` needs an address and a secret.
fn callback(settings: &Settings, reader: &mut Reader<'_>) {
    let authorization = &settings.authorization;
    if authorization.mode != Mode::Callback {
        return;
    }
    let keys = [
        (
            "authorization.callback_url",
            authorization.callback_url.is_some(),
        ),
        (
            "authorization.callback_secret",
            authorization.callback_secret.is_some(),
        ),
    ];
    for (key, _) in keys.iter().filter(|(_, set)| !set) {
        let what = "must be set where authorization.mode is \"callback\"";
        reader.relation(key, &["authorization.mode"], what);
    }
}

/// Checks the files named in `store.url`, since the driver reads them only when it connects.
fn store(settings: &Settings, reader: &mut Reader<'_>) {
    const URL: &str = "store.url";
    let url = match &settings.store.url {
        StoreUrl::Sqlite(path) if reader.cwd().join(path).is_dir() => {
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
        let Some((_, file)) = parameter(name).filter(|(_, text)| !text.starts_with("-----BEGIN"))
        else {
            continue;
        };
        match std::fs::read(reader.cwd().join(&*file)) {
            Err(error) => {
                let what = format_args!("the file of its {name} cannot be read: {error}");
                reader.relation(URL, &[], what);
            }
            Ok(text) if pem::parse_many(&text).is_ok_and(|blocks| !blocks.is_empty()) => {}
            Ok(_) => {
                let what = format_args!("the file of its {name} must be PEM (-----BEGIN …)");
                reader.relation(URL, &[], what);
            }
        }
    }
}

/// https needs CA certificates.
fn certificates(settings: &Settings, reader: &mut Reader<'_>) {
    let Settings {
        auth,
        authorization,
        wukongim,
        telemetry,
        ..
    } = settings;
    let is_https = |url: &Url| url.scheme() == "https";
    let of_page =
        |url: &Option<HttpUrlWithPath>| url.as_ref().is_some_and(|url| is_https(url.as_url()));
    let of_node = |url: &HttpUrl| is_https(url.as_url());
    let callback = authorization.mode == Mode::Callback;
    let keys = [
        ("wukongim.api_urls", wukongim.api_urls.iter().any(of_node)),
        (
            "wukongim.manager_url",
            wukongim.manager_url.iter().any(of_node),
        ),
        ("auth.jwks_url", of_page(&auth.jwks_url)),
        (
            "authorization.callback_url",
            callback && of_page(&authorization.callback_url),
        ),
        (
            "telemetry.otlp_endpoint",
            cfg!(feature = "otel") && of_page(&telemetry.otlp_endpoint),
        ),
    ];
    let https = keys.into_iter().filter(|(_, https)| *https);
    let mut https = https.map(|(key, _)| key).peekable();
    if https.peek().is_none() {
        return;
    }
    let Some(problem) = http_client::https_problem() else {
        return;
    };
    for key in https {
        let what = format_args!(
            "https needs CA certificates, and there are none ({problem}): install the system's (such as Debian's ca-certificates), or name a file with your own in SSL_CERT_FILE"
        );
        reader.relation(key, &[], what);
    }
}

/// All secrets that are used byte for byte: the key, the entry's name, and the secret.
fn secrets(settings: &Settings) -> Vec<(&'static str, String, &SecretString)> {
    let Settings {
        auth,
        authorization,
        wukongim,
        im_token,
        ..
    } = settings;
    let mut found = Vec::new();
    let mut add = |key, entry, secret: Option<_>| {
        found.extend(secret.map(|secret| (key, entry, secret)));
    };
    add("auth.jwt_secret", String::new(), auth.jwt_secret.as_ref());
    for (index, secret) in auth.jwt_previous_secrets.iter().enumerate() {
        let entry = format!("entry {} ", index + 1);
        add("auth.jwt_previous_secrets", entry, Some(secret));
    }
    for (key, secret) in [
        ("im_token.secret", &im_token.secret),
        (
            "authorization.callback_secret",
            &authorization.callback_secret,
        ),
        ("wukongim.manager_token", &wukongim.manager_token),
        ("wukongim.manager_password", &wukongim.manager_password),
    ] {
        add(key, String::new(), secret.as_ref());
    }
    found
}

/// Guessable secrets, and the reason for each.
fn weak_secrets(settings: &Settings) -> Vec<(&'static str, String)> {
    const GUARDED: [&str; 3] = [
        "auth.jwt_secret",
        "auth.jwt_previous_secrets",
        "im_token.secret",
    ];
    let guarded = secrets(settings).into_iter();
    let guarded = guarded.filter(|(key, ..)| GUARDED.contains(key));
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

/// What is legal but dangerous, as `key: what`.
pub(super) fn warnings(settings: &Settings, embedded: bool) -> Vec<String> {
    let weak = weak_secrets(settings).into_iter().filter(|_| embedded);
    let weak = weak.map(|(key, what)| format!("{key}: {what}; only --embedded takes it"));
    let padded = secrets(settings)
        .into_iter()
        .filter(|(_, _, secret)| is_padded(secret))
        .map(|(key, entry, _)| {
            format!("{key}: {entry}has white space or quotes around it, which are part of it")
        });
    let dangers = dangers(settings, embedded).into_iter();
    let dangers = dangers.filter(|(is_there, _)| *is_there);
    weak.chain(padded)
        .chain(dangers.map(|(_, text)| text.to_owned()))
        .collect()
}

/// The dangerous settings, each with whether it applies.
fn dangers(settings: &Settings, embedded: bool) -> Vec<(bool, &'static str)> {
    let Settings {
        server,
        auth,
        authorization,
        wukongim,
        public,
        im_token,
        limits,
        store,
        telemetry,
        ..
    } = settings;
    let callback = authorization.mode == Mode::Callback;
    let callback_secret = authorization.callback_secret.as_ref();
    let weak_callback_secret = callback_secret.and_then(weakness).is_some();
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
            server
                .max_connections_per_address
                .is_some_and(|max_length| max_length > server.max_connections),
            "server.max_connections_per_address: larger than server.max_connections: it does nothing",
        ),
        (
            server.trusted_proxies.iter().any(Cidr::is_everything),
            "server.trusted_proxies: everybody: whoever calls may claim any address",
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
            callback && weak_callback_secret,
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
            public.ws_url.is_none() && !embedded,
            "public.ws_url: unset: clients get what WuKongIM answers, maybe a private address",
        ),
        (
            store.url == StoreUrl::SqliteMemory && !embedded,
            "store.url: in memory: owners and deleted ids of all groups are forgotten at every restart",
        ),
        (
            telemetry.otlp_endpoint.is_some() && !cfg!(feature = "otel"),
            "telemetry.otlp_endpoint: no traces are sent: this binary was built without the feature otel",
        ),
    ]
}
