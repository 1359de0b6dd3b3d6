//! All keys: name, type, meaning and allowed values. Defaults are in `config/default.toml`.
//!
//! A new key is one line here, one entry with a comment in `config/default.toml`, and one sample in the tests.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tracing::Level;

use super::algorithm::{ALGORITHMS, Algorithm};
use super::kinds::{
    Kind, Redaction, address, boolean, checked, duration, header_secret, integer, list, one_of,
    optional, parsed, ratio, secret, size, text,
};
use super::network::{Cidr, WebOrigin};
use super::reader::Reader;
use super::types::{
    Confirm, DeviceLevels, DuplicateCheck, Generation, GroupIds, HttpUrl, LogFormat,
    MembersVisible, Mode, StoreUrl, is_host_and_port, is_public_url,
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
/// The most that encryption adds to a payload (AES-CBC, PKCS#7).
const CIPHER_PADDING: usize = 16;
/// Room for all fields of a frame but its payload.
const FRAME_FIELDS: usize = 2 * KIB;

/// Defines the structs and, from the same lines, their readers: `field: Type = kind`.
macro_rules! sections {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $( $(#[$key_doc:meta])* $key:ident: $Type:ty = $kind:expr; )*
        }
    )*) => {
        /// The effective settings. `Debug` shows no secrets.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $( $(#[$section_doc])* pub $section: $Section, )*
            /// Whether the page of a chat is served. Not a key: only `--embedded` sets it, once its upstream has started.
            pub has_chat_page: bool,
        }

        impl Settings {
            /// Reads every key before it fails, so that all errors are reported at once.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $( let $section = $Section::read(reader); )*
                Some(Self { $( $section: $section?, )* has_chat_page: false })
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
    /// The listeners and their limits.
    server: Server {
        /// Address of the API (`0.0.0.0:8080`; `127.0.0.1:8080` with `--embedded`).
        listen: SocketAddr = address();
        /// Address of the operations port (`127.0.0.1:9464`).
        ops_listen: SocketAddr = address();
        /// The longest one request may take (10 s).
        request_timeout: Duration = duration(MS, HOUR);
        /// Timeout for a request's head, from its first byte, or from the start of a new connection (10 s).
        header_timeout: Duration = duration(MS, HOUR);
        /// Timeout for an idle connection between requests, and for an answer of which nothing is read (75 s).
        idle_timeout: Duration = duration(MS, HOUR);
        /// Maximum concurrent connections; more are refused (10,000).
        max_connections: usize = integer(1, 1_000_000);
        /// Maximum connections of one address, 0 for no limit; more are refused, except from `trusted_proxies` (a quarter of
        /// `max_connections`).
        max_connections_per_address: Option<usize> = optional(integer(0, 1_000_000));
        /// Maximum concurrent requests, at most a quarter per user; more are refused (2,048).
        max_in_flight: usize = integer(1, 1_000_000);
        /// Maximum buffered bytes of request bodies and upstream answers, at most a quarter per user; beyond it requests are refused (256
        /// MiB).
        max_buffered: usize = size(64 * GIB);
        /// The largest request body in bytes (1 MiB; at most 64 MiB).
        body_limit: usize = size(64 * MIB);
        /// Whether HTTP/2 with prior knowledge is supported, without TLS (no).
        http2: bool = boolean();
        /// How long to continue serving while reporting "not ready" (0 s).
        shutdown_delay: Duration = duration(Duration::ZERO, 10 * MINUTE);
        /// How long running requests may take to finish then (20 s).
        drain_timeout: Duration = duration(Duration::ZERO, HOUR);
        /// Proxies whose `X-Forwarded-For` or `Forwarded` is trusted (none).
        trusted_proxies: Vec<Cidr> = list(0, parsed(Redaction::Plain));
        /// Worker threads; `None` (the default) is one per core.
        worker_threads: Option<usize> = workers();
    }

    /// Access by browsers from other origins.
    cors: Cors {
        /// Origins whose pages may call the API (none).
        allowed_origins: Vec<WebOrigin> = list(0, parsed(Redaction::Plain));
        /// How long a browser may cache a preflight's answer (1 h).
        max_age: Duration = duration(Duration::ZERO, 24 * HOUR);
    }

    /// The rules for valid tokens.
    auth: Auth {
        /// The HS256 key, 32 bytes or more; `None` only if there are other keys.
        jwt_secret: Option<SecretString> = optional(secret());
        /// Former keys that are still accepted (none).
        jwt_previous_secrets: Vec<SecretString> = list(0, secret());
        /// PEM files with a public key each, relative to the working directory (none); all are readable and valid after a successful
        /// `load`.
        jwt_public_keys: Vec<String> = list(0, text());
        /// The URL of an issuer's JSON Web Key Set (none).
        jwks_url: Option<HttpUrl> = optional(parsed(Redaction::Url));
        /// How long a key that the issuer has removed may remain valid (5 min).
        jwks_refresh: Duration = duration(30 * SECOND, HOUR);
        /// The allowed algorithms; empty (the default) allows all that a key supports.
        algorithms: Vec<Algorithm> = list(0, one_of(ALGORITHMS));
        /// The required `iss` (any).
        issuer: Option<String> = optional(text());
        /// The required `aud` (any).
        audience: Option<String> = optional(text());
        /// Claims with the uid, in order of preference (`sub`, `userId`); never empty.
        uid_claims: Vec<String> = list(1, text());
        /// Claims without which a token is refused (none).
        required_claims: Vec<String> = list(0, text());
        /// Entries of `roles` that make an admin (`admin`).
        admin_roles: Vec<String> = list(0, text());
        /// Entries of `permissions` that make an admin (`im:admin`).
        admin_permissions: Vec<String> = list(0, text());
        /// Allowed clock difference (30 s).
        leeway: Duration = duration(Duration::ZERO, 10 * MINUTE);
    }

    /// Permissions.
    authorization: Authorization {
        /// The policy (members).
        mode: Mode = one_of(&[
            ("members", Mode::Members),
            ("open", Mode::Open),
            ("callback", Mode::Callback),
        ]);
        /// Whether every subscriber of a group may add others (no).
        members_may_invite: bool = boolean();
        /// How long memberships are cached; zero disables the cache (10 s).
        cache_ttl: Duration = duration(Duration::ZERO, HOUR);
        /// Maximum cached memberships (1,000,000).
        cache_members: usize = integer(1, 100_000_000);
        /// The URL of the application's backend; always set in mode `callback` after a successful `load`.
        callback_url: Option<HttpUrl> = optional(parsed(Redaction::Url));
        /// The key that signs the calls; always set in mode `callback` after a successful `load`.
        callback_secret: Option<SecretString> = optional(secret());
        /// Time limit of one call (1 s).
        callback_timeout: Duration = duration(MS, MINUTE);
    }

    /// Groups.
    channels: Channels {
        /// Who sees the subscribers of a group (members).
        members_visible: MembersVisible = one_of(&[
            ("members", MembersVisible::Members),
            ("managers", MembersVisible::Managers),
        ]);
    }

    /// The upstream.
    wukongim: Wukongim {
        /// One address per node (`http://127.0.0.1:5001`); never empty.
        api_urls: Vec<HttpUrl> = list(1, bare_url());
        /// The generation; `None` (`auto`, the default) detects it.
        version: Option<Generation> =
            one_of(&[("auto", None), ("2", Some(Generation::V2)), ("3", Some(Generation::V3))]);
        /// v2's manager token (none).
        manager_token: Option<SecretString> = optional(header_secret());
        /// v3's manager port (none).
        manager_url: Option<HttpUrl> = optional(bare_url());
        /// The user name for v3's manager port (none).
        manager_username: Option<String> = optional(text());
        /// The password for it (none).
        manager_password: Option<SecretString> = optional(secret());
        /// How long a connection may take to open (1 s).
        connect_timeout: Duration = duration(MS, MINUTE);
        /// How long one call may take (5 s).
        timeout: Duration = duration(MS, 10 * MINUTE);
        /// When a send is answered (stored).
        confirm: Confirm = one_of(&[("stored", Confirm::Stored), ("accepted", Confirm::Accepted)]);
        /// How long to wait for the confirmation of a message (2 s).
        confirm_timeout: Duration = duration(MS, MINUTE);
        /// How long a repeated clientMsgNo is recognised (10 min).
        idempotency_window: Duration = duration(SECOND, WEEK);
        /// Maximum remembered sends (200,000).
        idempotency_entries: usize = integer(1, 100_000_000);
        /// Where a repeated clientMsgNo is searched for on v2 (memory).
        duplicate_check: DuplicateCheck =
            one_of(&[("memory", DuplicateCheck::Memory), ("upstream", DuplicateCheck::Upstream)]);
        /// Maximum decoded payload for v2, in bytes (none: detected).
        v2_payload_limit: Option<usize> = optional(size(caps::PAYLOAD_BYTES));
        /// `host:port` of each socket port (none: each API node's host with the port of its `/route` answer, else 5100).
        tcp_addrs: Vec<String> = list(0, host_and_port("127.0.0.1:5100"));
    }

    /// Clients' connections for live messages.
    socket: Socket {
        /// Whether there are any; without them clients connect to WuKongIM itself (yes).
        enabled: bool = boolean();
        /// Address for clients without WebSocket (none).
        tcp_listen: Option<SocketAddr> = optional(address());
        /// Maximum concurrent sockets; more are refused (10,000).
        max_connections: usize = integer(1, 1_000_000);
        /// Maximum sockets of one user; one more ends the oldest (10).
        per_user: usize = integer(1, 10_000);
        /// Timeout for a client's CONNECT (10 s).
        connect_timeout: Duration = duration(MS, MINUTE);
        /// Timeout for WuKongIM's answer to CONNECT, which is sent up to three times (1.5 s).
        connack_timeout: Duration = duration(MS, MINUTE);
        /// Timeout for a socket from which no frame arrives (180 s).
        idle_timeout: Duration = duration(MS, HOUR);
        /// Interval of the gateway's WebSocket pings (45 s).
        ping_interval: Duration = duration(MS, HOUR);
        /// Timeout for a client that does not read (20 s).
        write_timeout: Duration = duration(MS, HOUR);
        /// The largest frame in bytes as configured (96 KiB); what applies is [`Settings::socket_frame_bytes`].
        frame_bytes: usize = size(MIB);
    }

    /// Addresses for clients, passed on unchanged.
    public: Public {
        /// WebSocket address (none: the gateway's own at the request's host; without sockets WuKongIM's answer).
        ws_url: Option<String> = optional(public_url(&["ws", "wss"]));
        /// TLS WebSocket address (none).
        wss_url: Option<String> = optional(public_url(&["wss"]));
        /// `host:port` (none: no address; without sockets WuKongIM's answer).
        tcp_addr: Option<String> = optional(host_and_port("im.example.com:5100"));
        /// Address of an API (none).
        api_url: Option<String> = optional(public_url(&["http", "https"]));
        /// Address of the management page (none).
        manager_url: Option<String> = optional(public_url(&["http", "https"]));
    }

    /// IM tokens.
    im_token: ImToken {
        /// The key they are derived from; `None` (the default) derives it from `auth.jwt_secret`.
        secret: Option<SecretString> = optional(secret());
        /// The level they are registered with, by device (slave).
        level: DeviceLevels = parsed(Redaction::Plain);
    }

    /// Size and rate limits; each is at least 1.
    limits: Limits {
        /// Bytes of a uid or channelId (128; at most 255).
        id_bytes: usize = size(caps::ID_BYTES);
        /// Bytes of a clientMsgNo (128; at most 255).
        client_msg_no_bytes: usize = size(caps::CLIENT_MSG_NO_BYTES);
        /// Bytes of a decoded payload (64 KiB; at most 512 KiB).
        payload: usize = size(caps::PAYLOAD_BYTES);
        /// Messages in a batch (100; at most 1000).
        batch: usize = integer(1, caps::BATCH);
        /// Uids in one subscriber call (500; at most 5000).
        subscribers: usize = integer(1, caps::SUBSCRIBERS);
        /// Messages on a page when the request has no limit (50; at most 1000).
        sync_default: usize = integer(1, 1000);
        /// Messages on a page at most (200; at most 1000).
        sync_max: usize = integer(1, 1000);
        /// Decoded payload bytes on a page (4 MiB; at most 16 MiB).
        sync_bytes: usize = size(16 * MIB);
        /// Who may choose a new group's id (any).
        group_ids: GroupIds = one_of(&[("any", GroupIds::Any), ("admins", GroupIds::Admins)]);
        /// Members of a group added through the gateway (10,000; at most 100,000).
        group_members: usize = integer(1, 100_000);
        /// Tokens per second of a user's bucket (50).
        requests_per_second: u32 = integer(1, 1_000_000);
        /// Size of a user's bucket (100).
        burst: u32 = integer(1, 1_000_000);
        /// Failed authentications and unknown paths per second of one address (20).
        anonymous_per_second: u32 = integer(1, 1_000_000);
    }

    /// The gateway's own database.
    store: Store {
        /// Its URL (`sqlite://data/gateway.db`; memory with `--embedded`).
        url: StoreUrl = parsed(Redaction::SecretUrl);
        /// Connections (10).
        max_connections: u32 = integer(1, 1000);
        /// Time limit of one query (2 s).
        timeout: Duration = duration(MS, MINUTE);
    }

    /// Log lines.
    log: Log {
        /// The format (auto).
        format: LogFormat =
            one_of(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
        /// The minimum level (info).
        level: Level = one_of(&[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ]);
        /// The fraction of successful requests that is logged, sampled at random (1, all).
        sample_ratio: f64 = ratio();
        /// From this duration on a successful request is always logged (1 s).
        slow: Duration = duration(Duration::ZERO, HOUR);
    }

    /// Traces, with the feature `otel`.
    telemetry: Telemetry {
        /// The collector they are sent to as OTLP over HTTP (none).
        otlp_endpoint: Option<HttpUrl> = optional(parsed(Redaction::Url));
        /// The fraction of traces that is exported (0.1); a trace from a trusted proxy carries its own decision.
        sample_ratio: f64 = ratio();
    }

    /// The description of the API.
    docs: Docs {
        /// Whether it is served, without authentication (no; yes with `--embedded`).
        enabled: bool = boolean();
    }
}

impl Settings {
    /// The largest frame of a socket in bytes: `socket.frame_bytes`, but never too few for a SEND with `limits.payload`, whose sealed
    /// payload is base64 of up to 16 bytes more.
    pub fn socket_frame_bytes(&self) -> usize {
        let sealed = (self.limits.payload + CIPHER_PADDING).div_ceil(3) * 4;
        self.socket.frame_bytes.max(sealed + FRAME_FIELDS)
    }
}

fn host_and_port(example: &str) -> Kind<String> {
    let allowed = format!("must be a host and a port, such as \"{example}\"");
    checked(&allowed, is_host_and_port)
}

fn workers() -> Kind<Option<usize>> {
    let number = integer(1_usize, 1024);
    let allowed = "must be \"cores\" or a whole number from 1 to 1024";
    Kind::new(allowed, move |value| match value.as_str() {
        Some("cores") => Some(None),
        _ => (number.read)(value).ok().map(Some),
    })
}

fn bare_url() -> Kind<HttpUrl> {
    let allowed =
        "must be an http or https address without path or query, such as \"http://127.0.0.1:5001\"";
    let parse = |text: &str| text.trim().parse().ok().filter(HttpUrl::is_bare);
    Kind::new(allowed, move |value| parse(value.as_str()?)).redacted(Redaction::Url)
}

fn public_url(schemes: &'static [&'static str]) -> Kind<String> {
    let allowed = format!(
        "must be an address that begins with {}://, without user or password",
        schemes.join(":// or ")
    );
    checked(&allowed, |text| is_public_url(text, schemes)).redacted(Redaction::Url)
}
