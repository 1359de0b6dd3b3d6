//! Loading as a whole.

mod problems;
mod secrets;
mod sockets;
mod sources;

use super::*;

const SECRET: &str = "q7Vw3nK0pXz8Lb5Rt2Yd9Hc6Mf1Js4Ga";
const OTHER: &str = "Zt5Kd8Wq1Nv4Xb7Hp0Lc3Rf6Jy9Gm2Sa";

fn sources(env: &[(&str, &str)]) -> Sources {
    let secret = ("GATEWAY__AUTH__JWT_SECRET".to_owned(), SECRET.to_owned());
    let mut all = BTreeMap::from([secret]);
    all.extend(
        env.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    Sources {
        env: all,
        cwd: PathBuf::from("/dev/null"),
        ..Sources::default()
    }
}

fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    super::load(sources, crate::auth::check_key_file)
}

#[track_caller]
fn good(env: &[(&str, &str)]) -> Loaded {
    load(&sources(env)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Where each key's value came from.
fn origins(loaded: &Loaded) -> BTreeMap<&'static str, String> {
    let shown = loaded.shown.iter();
    shown
        .map(|shown| (shown.key, shown.origin.to_string()))
        .collect()
}

#[track_caller]
fn bad(sources: &Sources) -> Vec<String> {
    match load(sources) {
        Ok(_) => panic!("accepted"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

/// A directory with files, and sources that begin there.
fn directory(files: &[(&str, &str)], env: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let sources = Sources {
        cwd: dir.path().to_owned(),
        ..sources(env)
    };
    (dir, sources)
}

/// A legal value of every key that is not its default, as a variable would have it.
const KNOWN_SAMPLES: &[(&str, &str)] = &[
    ("server.listen", "127.0.0.1:1"),
    ("server.ops_listen", "127.0.0.1:2"),
    ("server.request_timeout", "11s"),
    ("server.header_timeout", "11s"),
    ("server.idle_timeout", "76s"),
    ("server.max_connections", "10001"),
    ("server.max_connections_per_address", "0"),
    ("server.max_in_flight", "2049"),
    ("server.max_buffered", "257MiB"),
    ("server.body_limit", "2MiB"),
    ("server.http2", "true"),
    ("server.shutdown_delay", "1s"),
    ("server.drain_timeout", "1s"),
    ("server.trusted_proxies", "10.0.0.0/8,::1"),
    ("server.worker_threads", "3"),
    ("cors.allowed_origins", "https://app.example.com"),
    ("cors.max_age", "2h"),
    ("auth.jwt_secret", OTHER),
    ("auth.jwt_previous_secrets", OTHER),
    (
        "auth.jwt_public_keys",
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/keys/rsa-one.pub.pem"
        ),
    ),
    ("auth.jwks_url", "https://issuer/keys?tenant=1"),
    ("auth.jwks_refresh", "1m"),
    ("auth.algorithms", "RS256,EdDSA"),
    ("auth.issuer", "me"),
    ("auth.audience", "you"),
    ("auth.uid_claims", "uid,id"),
    ("auth.required_claims", "roles"),
    ("auth.admin_roles", "[]"),
    ("auth.admin_permissions", "root"),
    ("auth.leeway", "0s"),
    ("authorization.mode", "open"),
    ("authorization.members_may_invite", "true"),
    ("authorization.cache_ttl", "1s"),
    ("authorization.cache_members", "5"),
    ("authorization.callback_url", "http://h/callback?a=1"),
    ("authorization.callback_secret", OTHER),
    ("authorization.callback_timeout", "2s"),
    ("channels.members_visible", "managers"),
    ("wukongim.api_urls", "http://a:1,http://b:2"),
    ("wukongim.version", "3"),
    ("wukongim.manager_token", "t"),
    ("wukongim.manager_url", "http://m:1"),
    ("wukongim.manager_username", "u"),
    ("wukongim.manager_password", "p"),
    ("wukongim.connect_timeout", "2s"),
    ("wukongim.timeout", "6s"),
    ("wukongim.confirm", "accepted"),
    ("wukongim.confirm_timeout", "3s"),
    ("wukongim.idempotency_window", "1h"),
    ("wukongim.idempotency_entries", "7"),
    ("wukongim.duplicate_check", "upstream"),
    ("wukongim.v2_payload_limit", "64KiB"),
    ("wukongim.tcp_addrs", "a:5100,[::1]:5100"),
    ("socket.enabled", "false"),
    ("socket.tcp_listen", "[::]:5100"),
    ("socket.max_connections", "1"),
    ("socket.per_user", "11"),
    ("socket.connect_timeout", "11s"),
    ("socket.connack_timeout", "1s"),
    ("socket.idle_timeout", "1h"),
    ("socket.ping_interval", "30s"),
    ("socket.write_timeout", "10s"),
    ("socket.frame_bytes", "1MiB"),
    ("public.ws_url", "ws://h:5200"),
    ("public.wss_url", "wss://h/ws"),
    ("public.tcp_addr", "h:5100"),
    ("public.api_url", "https://h"),
    ("public.manager_url", "http://h:5300"),
    ("im_token.secret", OTHER),
    ("im_token.level", "app=master,web=slave"),
    ("limits.id_bytes", "255"),
    ("limits.client_msg_no_bytes", "1"),
    ("limits.payload", "512KiB"),
    ("limits.batch", "1000"),
    ("limits.subscribers", "5000"),
    ("limits.sync_default", "51"),
    ("limits.sync_max", "1000"),
    ("limits.sync_bytes", "16MiB"),
    ("limits.group_ids", "admins"),
    ("limits.group_members", "100000"),
    ("limits.requests_per_second", "51"),
    ("limits.burst", "101"),
    ("limits.anonymous_per_second", "21"),
    ("store.url", "sqlite:///tmp/x.db"),
    ("store.max_connections", "1"),
    ("store.timeout", "1s"),
    ("log.format", "json"),
    ("log.level", "debug"),
    ("log.sample_ratio", "0.5"),
    ("log.slow", "2s"),
    ("telemetry.otlp_endpoint", "http://collector:4318"),
    ("telemetry.sample_ratio", "1"),
    ("docs.enabled", "true"),
];
