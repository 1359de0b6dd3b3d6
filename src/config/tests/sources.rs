//! Where values come from, and which one wins.

use std::collections::BTreeSet;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;

#[test]
fn the_manual_lists_exactly_the_known_keys_each_with_a_comment() {
    let known: BTreeSet<_> = origins(&good(&[])).into_keys().map(str::to_owned).collect();
    let listed = layers::from_toml(DEFAULTS, |_| Origin::Default, &mut Vec::new());
    assert_eq!(listed.into_keys().collect::<BTreeSet<_>>(), known);
    let mut before = "";
    for line in DEFAULTS.lines() {
        assert!(
            !line.contains(" = ") || line.starts_with('#') || before.starts_with('#'),
            "{line}"
        );
        before = line;
    }
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let sampled: BTreeSet<_> = KNOWN_SAMPLES.iter().map(|(key, _)| *key).collect();
    let defaults = good(&[]);
    assert_eq!(sampled, origins(&defaults).into_keys().collect());
    let env: Vec<_> = KNOWN_SAMPLES
        .iter()
        .map(|(k, v)| (layers::variable_for(k), *v))
        .collect();
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let loaded = good(&env);
    for (key, origin) in origins(&loaded) {
        assert_eq!(origin, layers::variable_for(key));
    }
    for (shown, default) in loaded.shown.iter().zip(&defaults.shown) {
        let hidden = shown.value.contains("[redacted]");
        assert!(
            hidden || shown.value != default.value,
            "{} is still its default",
            shown.key
        );
    }
    assert_eq!(loaded.settings.wukongim.api_urls.len(), 2);
    assert_eq!(loaded.settings.auth.admin_roles, Vec::<String>::new());
    assert_eq!(loaded.settings.wukongim.version, Some(Generation::V3));
    assert_eq!(loaded.settings.server.worker_threads, Some(3));
}

#[test]
fn later_sources_win() {
    let file = "[auth]\nissuer = 'file'\n[server]\nlisten = '127.0.0.1:1'\n[log]\nlevel = 'warn'";
    let env = [
        ("JWT_ISSUER", "openchat"),
        ("GATEWAY__LOG__LEVEL", "error"),
        ("GATEWAY__SERVER__LISTEN", ""),
    ];
    let (_dir, sources) = directory(&[("config/gateway.toml", file)], &env);
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.settings.auth.issuer.as_deref(), Some("openchat"));
    assert_eq!(loaded.settings.log.level, tracing::Level::ERROR);
    assert_eq!(loaded.settings.server.listen.port(), 1);
    assert_eq!(
        loaded.settings.server.request_timeout,
        Duration::from_secs(10)
    );
    let origin = |key| origins(&loaded)[key].clone();
    assert_eq!(origin("auth.issuer"), "JWT_ISSUER");
    assert_eq!(origin("server.listen"), "config/gateway.toml:4");
    assert_eq!(origin("log.level"), "GATEWAY__LOG__LEVEL");
    assert_eq!(origin("log.format"), "default");
    let both = good(&[("JWT_ISSUER", "openchat"), ("GATEWAY__AUTH__ISSUER", "own")]);
    assert_eq!(both.settings.auth.issuer.as_deref(), Some("own"));
}

#[test]
fn the_file_is_named_by_argument_then_variable_then_place() {
    let files = [
        ("config/gateway.toml", "auth.issuer = 'place'"),
        ("variable.toml", "auth.issuer = 'variable'"),
        ("argument.toml", "auth.issuer = 'argument'"),
    ];
    let (_dir, mut sources) = directory(&files, &[]);
    let issuer = |sources: &Sources| load(sources).unwrap().settings.auth.issuer.unwrap();
    assert_eq!(issuer(&sources), "place");
    sources
        .env
        .insert("GATEWAY_CONFIG".to_owned(), "variable.toml".to_owned());
    assert_eq!(issuer(&sources), "variable");
    sources.config_file = Some("argument.toml".into());
    assert_eq!(issuer(&sources), "argument");
    sources.config_file = Some("missing.toml".into());
    assert!(bad(&sources)[0].starts_with("missing.toml: cannot be read: "));
}

#[test]
fn openchat_names_work() {
    let mut sources = sources(&[
        ("WUKONGIM_API_URL", "http://im:5001"),
        ("WUKONGIM_WS_URL", "ws://im:5200"),
        ("WUKONGIM_TCP_ADDR", "im:5100"),
        ("WUKONGIM_MANAGER_URL", "http://im:5300"),
        ("WUKONGIM_APP_KEY", "not the gateway's"),
        ("JWT_SECRET", OTHER),
        ("JWT_ISSUER", "openchat"),
    ]);
    sources.env.remove("GATEWAY__AUTH__JWT_SECRET");
    let settings = load(&sources).unwrap().settings;
    assert_eq!(
        settings.wukongim.api_urls[0].as_url().as_str(),
        "http://im:5001/"
    );
    assert_eq!(settings.public.ws_url.as_deref(), Some("ws://im:5200"));
    assert_eq!(settings.public.tcp_addr.as_deref(), Some("im:5100"));
    assert_eq!(
        settings.public.manager_url.as_deref(),
        Some("http://im:5300")
    );
    assert_eq!(settings.auth.jwt_secret.unwrap().expose_secret(), OTHER);
}

#[test]
fn secrets_come_from_files() {
    let two = format!("{SECRET}\n{OTHER}\n");
    let files = [
        ("jwt", format!("{OTHER}\n")),
        ("crlf", format!("{OTHER}\r\n")),
        ("two", two),
        (
            "config/gateway.toml",
            "[im_token]\nsecret_file = 'crlf'\n[auth]\njwt_secret = ''".to_owned(),
        ),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let env = [
        ("JWT_SECRET_FILE", "jwt"),
        ("GATEWAY__AUTH__JWT_PREVIOUS_SECRETS_FILE", "two"),
        ("GATEWAY__AUTH__JWT_SECRET", ""),
        ("GATEWAY__AUTHORIZATION__CALLBACK_SECRET_FILE", "jwt"),
    ];
    let (_dir, sources) = directory(&files, &env);
    let loaded = load(&sources).unwrap();
    let settings = &loaded.settings;
    assert_eq!(
        settings.auth.jwt_secret.as_ref().unwrap().expose_secret(),
        OTHER
    );
    assert_eq!(
        settings.im_token.secret.as_ref().unwrap().expose_secret(),
        OTHER
    );
    let callback_secret = settings.authorization.callback_secret.as_ref();
    assert_eq!(callback_secret.unwrap().expose_secret(), OTHER);
    assert_eq!(settings.auth.jwt_previous_secrets.len(), 2);
    assert_eq!(origins(&loaded)["auth.jwt_secret"], "JWT_SECRET_FILE");
}

#[test]
fn embedded_needs_nothing_and_gives_way_to_what_is_set() {
    let bare = Sources {
        cwd: "/dev/null".into(),
        embedded_mode: true,
        ..Sources::default()
    };
    let loaded = load(&bare).unwrap();
    assert_eq!(loaded.settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(loaded.settings.store.url, StoreUrl::SqliteMemory);
    assert!(loaded.settings.docs.enabled && !good(&[]).settings.docs.enabled);
    assert_eq!(origins(&loaded)["auth.jwt_secret"], "built-in (--embedded)");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let env = [
        ("GATEWAY__AUTH__JWT_SECRET", "secret"),
        ("GATEWAY__SERVER__LISTEN", "0.0.0.0:1"),
    ];
    let loaded = load(&Sources {
        embedded_mode: true,
        ..sources(&env)
    })
    .unwrap();
    assert_eq!(loaded.settings.server.listen.port(), 1);
    assert_eq!(
        loaded.settings.auth.jwt_secret.unwrap().expose_secret(),
        "secret"
    );
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn builtin_settings_are_the_defaults() {
    let settings = Settings::builtin(&SECRET.into()).unwrap();
    assert_eq!(settings.limits.payload, 65_536);
    assert_eq!(settings.server.listen.to_string(), "0.0.0.0:8080");
    assert!(Settings::builtin(&"short".into()).is_err());
}
