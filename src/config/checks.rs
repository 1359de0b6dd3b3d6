//! What single keys cannot tell: relations between them, weak secrets, and what is legal but dangerous.

use std::net::SocketAddr;
use std::time::Duration;

use super::algorithm::Algorithm;
use super::network::Cidr;
use super::reader::Reader;
use super::secrets::weakness;
use super::settings::{Auth, Settings};
use super::types::{Confirm, Mode, StoreUrl};
use crate::auth::PublicKey;

/// Notes the problems in the reader.
pub(super) fn problems(
    settings: &Settings,
    embedded: bool,
    file_is_whole: bool,
    reader: &mut Reader<'_>,
) {
    let Settings {
        server,
        auth,
        wukongim,
        limits,
        ..
    } = settings;
    if file_is_whole {
        missing_keys(settings, reader);
    }
    public_keys(auth, reader);
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
    if limits.sync_default > limits.sync_max {
        let what = format_args!(
            "must be at most limits.sync_max, which is {}",
            limits.sync_max
        );
        reader.relation("limits.sync_default", &["limits.sync_max"], what);
    }
}

/// Something must check clients' tokens, and something must make IM tokens.
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

/// Every public key is readable, good, and for an algorithm that is taken.
fn public_keys(auth: &Auth, reader: &mut Reader<'_>) {
    const FILES: &str = "auth.jwt_public_keys";
    const ALGORITHMS: &str = "auth.algorithms";
    for (index, file) in auth.jwt_public_keys.iter().enumerate() {
        if let Err(error) = PublicKey::from_file(&reader.cwd().join(file), &auth.algorithms) {
            let what = format_args!("entry {} {error}", index + 1);
            reader.relation(FILES, &[ALGORITHMS], what);
        }
    }
    let symmetric_only = auth.algorithms == [Algorithm::Hs256];
    if auth.jwks_url.is_some() && symmetric_only {
        let what = "must have one that the keys of auth.jwks_url are for: HS256 is for secrets";
        reader.relation(ALGORITHMS, &["auth.jwks_url"], what);
    }
}

/// v3's manager port needs all three of its keys.
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

/// Mode `callback` needs to know whom to ask, and a key.
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

fn weak_secrets(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut look = |key, secret: Option<&_>, label: String| {
        if let Some(what) = secret.and_then(weakness) {
            found.push((key, format!("{label}{what}")));
        }
    };
    look(
        "auth.jwt_secret",
        settings.auth.jwt_secret.as_ref(),
        String::new(),
    );
    for (index, secret) in settings.auth.jwt_previous_secrets.iter().enumerate() {
        look(
            "auth.jwt_previous_secrets",
            Some(secret),
            format!("entry {} ", index + 1),
        );
    }
    look(
        "im_token.secret",
        settings.im_token.secret.as_ref(),
        String::new(),
    );
    found
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

/// What is legal but dangerous, as `key: what`.
pub(super) fn warnings(settings: &Settings, embedded: bool) -> Vec<String> {
    let weak = weak_secrets(settings).into_iter().filter(|_| embedded);
    let weak = weak.map(|(key, what)| format!("{key}: {what}; only --embedded takes it"));
    let dangers = dangers(settings, embedded).into_iter();
    let dangers = dangers.filter(|(is_there, _)| *is_there);
    weak.chain(dangers.map(|(_, text)| text.to_owned()))
        .collect()
}

/// What may be dangerous, each with whether it is there.
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
            server.max_buffered < server.body_limit,
            "server.max_buffered: smaller than server.body_limit: the largest bodies will always get 503",
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
                && !auth.algorithms.contains(&Algorithm::Hs256),
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
