//! Every key there is: its name, type, meaning and what is allowed, in one place. Defaults are in `config/default.toml`.
//!
//! A new key is one line here, one entry with a comment in `config/default.toml`, and one sample in the tests.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tracing::Level;

use super::algorithm::Algorithm;
use super::kinds::{
    Show, address, checked, duration, header_secret, list, one_of, optional, parsed, ratio, secret,
    size, text, whole, yes_or_no,
};
use super::network::{Cidr, WebOrigin};
use super::reader::Reader;
use super::types::{
    Confirm, DeviceLevels, DuplicateCheck, Generation, GroupIds, HttpUrl, LogFormat, Mode, PageUrl,
    StoreUrl, is_host_and_port, is_public_url,
};
use crate::domain::caps;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const WEEK: Duration = Duration::from_hours(7 * 24);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// Makes the structs and, from the same lines, what reads them: `field: Type = kind`.
macro_rules! sections {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $( $(#[$key_doc:meta])* $key:ident: $Type:ty = $kind:expr; )*
        }
    )*) => {
        /// What is in force. `Debug` shows no secret.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $( $(#[$section_doc])* pub $section: $Section, )*
        }

        impl Settings {
            /// Reads every key, and only then gives up, so that all problems are found at once.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $( let $section = $Section::read(reader); )*
                Some(Self { $( $section: $section?, )* })
            }
        }

        $(
            $(#[$section_doc])*
            #[derive(Debug, Clone)]
            pub struct $Section {
                $( $(#[$key_doc])* pub $key: $Type, )*
            }

            impl $Section {
                fn read(reader: &mut Reader<'_>) -> Option<Self> {
                    $( let $key = reader.read(
                        concat!(stringify!($section), ".", stringify!($key)),
                        &$kind,
                    ); )*
                    Some(Self { $( $key: $key?, )* })
                }
            }
        )*
    };
}

sections! {
    /// The listeners and their bounds.
    server: Server {
        /// Address of the API (`0.0.0.0:8080`; `127.0.0.1:8080` with `--embedded`).
        listen: SocketAddr = address();
        /// Address of the operations port (`127.0.0.1:9464`).
        ops_listen: SocketAddr = address();
        /// The longest one request may take (10 s).
        request_timeout: Duration = duration(MS, HOUR);
        /// How long a request's head may take, from its first byte, and a new connection's first head at all (10 s).
        header_timeout: Duration = duration(MS, HOUR);
        /// How long a connection may lie idle between requests, and an answer while nothing of it is fetched (75 s).
        idle_timeout: Duration = duration(MS, HOUR);
        /// Connections at once; more are refused (10,000).
        max_connections: usize = whole(1, 1_000_000);
        /// Connections of one address at once, 0 for any number; more are refused, but for `trusted_proxies` (a quarter of
        /// `max_connections`).
        max_connections_per_address: Option<usize> = optional(whole(0, 1_000_000));
        /// Requests worked on at once, a quarter of them of one user; more are refused (2,048).
        max_in_flight: usize = whole(1, 1_000_000);
        /// Bytes of request bodies and upstream answers held at once, a quarter of them of one user; beyond it requests are refused
        /// (256 MiB).
        max_buffered: usize = size(64 * GIB);
        /// The largest request body in bytes (1 MiB; at most 64 MiB).
        body_limit: usize = size(64 * MIB);
        /// Whether HTTP/2 is spoken to clients that begin with it, without TLS (no).
        http2: bool = yes_or_no();
        /// How long to serve on while saying "not ready" (0 s).
        shutdown_delay: Duration = duration(Duration::ZERO, 10 * MINUTE);
        /// How long running requests may take to finish then (20 s).
        drain_timeout: Duration = duration(Duration::ZERO, HOUR);
        /// Who may say in `X-Forwarded-For` or `Forwarded` for whom he speaks (nobody).
        trusted_proxies: Vec<Cidr> = list(0, parsed(Show::Plain));
        /// Threads that serve requests; `None` (the default) is one a core.
        worker_threads: Option<usize> = workers();
    }

    /// Browsers of other origins.
    cors: Cors {
        /// Whose pages may call (none).
        allowed_origins: Vec<WebOrigin> = list(0, parsed(Show::Plain));
        /// How long a browser may keep a preflight's answer (1 h).
        max_age: Duration = duration(Duration::ZERO, 24 * HOUR);
    }

    /// Whose tokens are good.
    auth: Auth {
        /// The HS256 key, 32 bytes or more; `None` only where there are other keys.
        jwt_secret: Option<SecretString> = optional(secret());
        /// Former keys that are still accepted (none).
        jwt_previous_secrets: Vec<SecretString> = list(0, secret());
        /// PEM files with a public key each, relative to the working directory (none); every one is readable and good after a
        /// successful `load`.
        jwt_public_keys: Vec<String> = list(0, text());
        /// Where an issuer publishes its keys as a JSON Web Key Set (nowhere).
        jwks_url: Option<PageUrl> = optional(parsed(Show::Url));
        /// How long a key that the issuer has removed may still be good (5 min).
        jwks_refresh: Duration = duration(30 * SECOND, HOUR);
        /// The algorithms that are taken; empty (the default): whichever a key is made for.
        algorithms: Vec<Algorithm> = list(0, one_of(Algorithm::NAMES));
        /// The `iss` asked for (any).
        issuer: Option<String> = optional(text());
        /// The `aud` asked for (any).
        audience: Option<String> = optional(text());
        /// Claims that carry the uid, best first (`sub`, `userId`); never empty.
        uid_claims: Vec<String> = list(1, text());
        /// Claims without which a token is refused (none).
        required_claims: Vec<String> = list(0, text());
        /// Entries of `roles` that make an admin (`admin`).
        admin_roles: Vec<String> = list(0, text());
        /// Entries of `permissions` that make an admin (`im:admin`).
        admin_permissions: Vec<String> = list(0, text());
        /// How far clocks may differ (30 s).
        leeway: Duration = duration(Duration::ZERO, 10 * MINUTE);
    }

    /// Who may do what.
    authorization: Authorization {
        /// The policy (members).
        mode: Mode = one_of(&[
            ("members", Mode::Members),
            ("open", Mode::Open),
            ("callback", Mode::Callback),
        ]);
        /// Whether every subscriber of a group may add others (no).
        members_may_invite: bool = yes_or_no();
        /// How long an answer about membership is kept; zero keeps none (10 s).
        cache_ttl: Duration = duration(Duration::ZERO, HOUR);
        /// How many memberships are kept (1,000,000).
        cache_members: usize = whole(1, 100_000_000);
        /// Where the application's backend is asked; always there in mode `callback` after a successful `load`.
        callback_url: Option<PageUrl> = optional(parsed(Show::Url));
        /// The key that questions are signed with; always there in mode `callback` after a successful `load`.
        callback_secret: Option<SecretString> = optional(secret());
        /// How long one question may take (1 s).
        callback_timeout: Duration = duration(MS, MINUTE);
    }

    /// The upstream.
    wukongim: Wukongim {
        /// One address a node (`http://127.0.0.1:5001`); never empty.
        api_urls: Vec<HttpUrl> = list(1, parsed(Show::Url));
        /// The generation; `None` (`auto`, the default) finds it out.
        version: Option<Generation> =
            one_of(&[("auto", None), ("2", Some(Generation::V2)), ("3", Some(Generation::V3))]);
        /// v2's manager token (none).
        manager_token: Option<SecretString> = optional(header_secret());
        /// v3's manager port (none).
        manager_url: Option<HttpUrl> = optional(parsed(Show::Url));
        /// Who logs in at v3's manager port (none).
        manager_username: Option<String> = optional(text());
        /// The password for it (none).
        manager_password: Option<SecretString> = optional(secret());
        /// How long a connection may take to open (1 s).
        connect_timeout: Duration = duration(MS, MINUTE);
        /// How long one call may take (5 s).
        timeout: Duration = duration(MS, 10 * MINUTE);
        /// When a send is answered (stored).
        confirm: Confirm = one_of(&[("stored", Confirm::Stored), ("accepted", Confirm::Accepted)]);
        /// How long to look for a stored message (2 s).
        confirm_timeout: Duration = duration(MS, MINUTE);
        /// How long a repeated clientMsgNo is recognised (10 min).
        idempotency_window: Duration = duration(SECOND, WEEK);
        /// How many sends are remembered for that (200,000).
        idempotency_entries: usize = whole(1, 100_000_000);
        /// Where a repeated clientMsgNo is looked for on v2 (memory).
        duplicate_check: DuplicateCheck =
            one_of(&[("memory", DuplicateCheck::Memory), ("upstream", DuplicateCheck::Upstream)]);
        /// The largest payload that a v2 gets, decoded, in bytes (none: what the server is found to bear).
        v2_payload_limit: Option<usize> = optional(size(caps::PAYLOAD_BYTES));
    }

    /// What clients are told, to the letter.
    public: Public {
        /// WebSocket address (none: WuKongIM's own answer).
        ws_url: Option<String> = optional(public_url(&["ws", "wss"]));
        /// TLS WebSocket address (none).
        wss_url: Option<String> = optional(public_url(&["wss"]));
        /// `host:port` (none: WuKongIM's own answer).
        tcp_addr: Option<String> = optional(checked(
            "must be a host and a port, such as \"im.example.com:5100\"",
            is_host_and_port,
        ));
        /// Address of an API (none).
        api_url: Option<String> = optional(public_url(&["http", "https"]));
        /// Address of the management page (none).
        manager_url: Option<String> = optional(public_url(&["http", "https"]));
    }

    /// IM tokens.
    im_token: ImToken {
        /// The key they are made with; `None` (the default): derived from `auth.jwt_secret`.
        secret: Option<SecretString> = optional(secret());
        /// The level they are registered with, by device (slave).
        level: DeviceLevels = parsed(Show::Plain);
    }

    /// How large things may be, and how many; every one is at least 1.
    limits: Limits {
        /// Bytes of a uid or channelId (128; at most 255).
        id_bytes: usize = size(caps::ID_BYTES);
        /// Bytes of a clientMsgNo (128; at most 255).
        client_msg_no_bytes: usize = size(caps::CLIENT_MSG_NO_BYTES);
        /// Bytes of a decoded payload (64 KiB; at most 512 KiB).
        payload: usize = size(caps::PAYLOAD_BYTES);
        /// Messages in a batch (100; at most 1000).
        batch: usize = whole(1, caps::BATCH);
        /// Uids in one subscriber call (500; at most 5000).
        subscribers: usize = whole(1, caps::SUBSCRIBERS);
        /// Messages on a page when no limit is named (50; at most 1000).
        sync_default: usize = whole(1, 1000);
        /// Messages on a page at most (200; at most 1000).
        sync_max: usize = whole(1, 1000);
        /// Decoded payload bytes on a page (4 MiB; at most 16 MiB).
        sync_bytes: usize = size(16 * MIB);
        /// Who chooses a new group's id (any).
        group_ids: GroupIds = one_of(&[("any", GroupIds::Any), ("admins", GroupIds::Admins)]);
        /// Members of a group added through the gateway (10,000; at most 100,000).
        group_members: usize = whole(1, 100_000);
        /// What a user may cost in a second, in the long run (50).
        requests_per_second: u32 = whole(1, 1_000_000);
        /// What a user may cost at once after a rest (100).
        burst: u32 = whole(1, 1_000_000);
        /// Failed authentications and unknown paths of one address in a second (20).
        anonymous_per_second: u32 = whole(1, 1_000_000);
    }

    /// The gateway's own facts.
    store: Store {
        /// Where they live (`sqlite://data/gateway.db`; memory with `--embedded`).
        url: StoreUrl = parsed(Show::Secret);
        /// Connections (10).
        max_connections: u32 = whole(1, 1000);
        /// How long one question may take (2 s).
        timeout: Duration = duration(MS, MINUTE);
    }

    /// Log lines.
    log: Log {
        /// How they look (auto).
        format: LogFormat =
            one_of(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
        /// The least that is written (info).
        level: Level = one_of(&[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ]);
        /// Which part of the successful requests has a line, picked at random (1, all).
        sample_ratio: f64 = ratio();
        /// From which time on a successful request always has one (1 s).
        slow: Duration = duration(Duration::ZERO, HOUR);
    }

    /// Traces, with the feature `otel`.
    telemetry: Telemetry {
        /// The collector they are sent to as OTLP over HTTP (none).
        otlp_endpoint: Option<PageUrl> = optional(parsed(Show::Url));
        /// Which part of the traces is sent (0.1); of those that a trusted proxy began, their flag decides.
        sample_ratio: f64 = ratio();
    }

    /// The description of the API.
    docs: Docs {
        /// Whether it is served beside the API, to anybody (no; yes with `--embedded`).
        enabled: bool = yes_or_no();
    }
}

fn workers() -> super::kinds::Kind<Option<usize>> {
    let number = whole(1_usize, 1024);
    super::kinds::Kind::new(
        "must be \"cores\" or a whole number from 1 to 1024",
        move |value| match value {
            super::layers::Value::Text(text) if text == "cores" => Some(None),
            other => (number.read)(other).ok().map(Some),
        },
    )
}

fn public_url(schemes: &'static [&'static str]) -> super::kinds::Kind<String> {
    let schemes_shown: Vec<_> = schemes
        .iter()
        .map(|scheme| format!("{scheme}://"))
        .collect();
    let allowed = format!(
        "must be an address that begins with {}, without user or password",
        schemes_shown.join(" or ")
    );
    let kind = checked(&allowed, move |text| is_public_url(text, schemes));
    super::kinds::Kind {
        show: Show::Url,
        ..kind
    }
}
