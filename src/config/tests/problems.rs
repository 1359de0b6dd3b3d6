//! What is refused or warned of, and that no secret is shown on the way.

use super::*;

#[test]
fn every_key_refuses_nonsense_and_all_are_told_at_once() {
    let (dir, sources) = directory(&[("all.toml", "")], &[]);
    let text: Vec<_> = KNOWN_SAMPLES
        .iter()
        .map(|(key, _)| format!("{key} = {{ }}"))
        .collect();
    std::fs::write(dir.path().join("all.toml"), text.join("\n")).unwrap();
    let said = bad(&Sources {
        config_file: Some("all.toml".into()),
        env: BTreeMap::new(),
        ..sources
    });
    for (index, (key, _)) in KNOWN_SAMPLES.iter().enumerate() {
        let start = format!("all.toml:{}: {key}: must ", index + 1);
        assert!(
            said.iter().any(|line| line.starts_with(&start)),
            "{start}\n{said:#?}"
        );
    }
    assert_eq!(said.len(), KNOWN_SAMPLES.len(), "{said:#?}");
}

#[test]
fn unknown_names_are_told_the_nearest_known_one() {
    let file = "[server]\nlisen = 'x'\n\n[nowhere]\nat_all = []\n[nothing]\n[auth]";
    let env = [
        ("GATEWAY__STORE__ULR", "hunter2"),
        ("GATEWAY__log__level", "info"),
        ("GATEWAY__STORE__NONE", ""),
        ("GATEWAY_SERVICE_HOST", "kubernetes"),
        ("GATEWAY__AUTH__JWT_SECRET_FIL", "x"),
    ];
    let (_dir, sources) = directory(&[("config/gateway.toml", file)], &env);
    let said = bad(&sources);
    assert_eq!(said.len(), 6, "{said:#?}");
    let all = said.join("\n");
    assert!(all.contains("config/gateway.toml:2: server.lisen: unknown key, the nearest known one is server.listen"), "{all}");
    assert!(
        all.contains("config/gateway.toml:5: nowhere.at_all: unknown key"),
        "{all}"
    );
    assert!(
        all.contains("config/gateway.toml:6: nothing: unknown key"),
        "{all}"
    );
    assert!(
        all.contains(
            "GATEWAY__STORE__ULR: unknown variable, the nearest known one is GATEWAY__STORE__URL"
        ),
        "{all}"
    );
    assert!(
        all.contains(
            "GATEWAY__log__level: unknown variable, the nearest known one is GATEWAY__LOG__LEVEL"
        ),
        "{all}"
    );
    assert!(all.contains("is GATEWAY__AUTH__JWT_SECRET_FILE"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn a_secret_and_its_file_together_are_refused() {
    let said = bad(&sources(&[("GATEWAY__AUTH__JWT_SECRET_FILE", "x")]));
    assert_eq!(
        said,
        ["GATEWAY__AUTH__JWT_SECRET: is given here and by a file as well: only one may be"]
    );
    let said = bad(&sources(&[("GATEWAY__STORE__URL_FILE", "missing")]));
    assert!(
        said[0].starts_with("GATEWAY__STORE__URL_FILE: file \"missing\" cannot be read"),
        "{said:?}"
    );
}

#[test]
fn weak_and_missing_secrets_stop_the_start() {
    let mut none = sources(&[]);
    none.env.clear();
    assert!(bad(&none)[0].starts_with("auth.jwt_secret: must be set"));
    let said = bad(&sources(&[
        (
            "GATEWAY__AUTH__JWT_SECRET",
            "your-secret-key-your-secret-key-your",
        ),
        (
            "GATEWAY__AUTH__JWT_PREVIOUS_SECRETS",
            &format!("{OTHER},short-one"),
        ),
        ("GATEWAY__IM_TOKEN__SECRET", "short-two"),
    ]));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said[0].starts_with("GATEWAY__AUTH__JWT_SECRET: is a known sample"),
        "{said:#?}"
    );
    assert!(
        said[1].starts_with("GATEWAY__AUTH__JWT_PREVIOUS_SECRETS: entry 2 is too short"),
        "{said:#?}"
    );
    assert!(!said.join("").contains("short-one") && !said.join("").contains("short-two"));
}

#[test]
fn public_keys_do_without_a_secret_but_im_tokens_need_one() {
    let key = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/keys/rsa-one.pub.pem"
    );
    let load_with = |env: &[(&str, &str)]| {
        let mut sources = sources(env);
        sources.env.remove("GATEWAY__AUTH__JWT_SECRET");
        load(&sources).map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    };
    let im = ("GATEWAY__IM_TOKEN__SECRET", OTHER);
    let file = ("GATEWAY__AUTH__JWT_PUBLIC_KEYS", key);
    let issuer = ("GATEWAY__AUTH__JWKS_URL", "https://id/keys");
    assert!(load_with(&[im, file]).is_ok());
    assert!(load_with(&[im, issuer]).is_ok());
    let alone: Vec<String> = load_with(&[issuer]).unwrap_err();
    let what = "im_token.secret: must be set: there is no auth.jwt_secret to derive it from";
    assert_eq!(alone, [what]);
    assert!(load_with(&[im]).unwrap_err()[0].starts_with("auth.jwt_secret: must be set"));
}

#[test]
fn every_bad_public_key_is_told_by_its_place_and_not_quoted() {
    let private = include_str!("../../../tests/support/keys/rsa-one.pem");
    let (dir, mut sources) = directory(&[("private.pem", private), ("text.pem", "hunter2")], &[]);
    let good = include_str!("../../../tests/support/keys/ed25519-one.pub.pem");
    std::fs::write(dir.path().join("good.pem"), good).unwrap();
    let mut set = |name: &str, value: &str| sources.env.insert(name.to_owned(), value.to_owned());
    set(
        "GATEWAY__AUTH__JWT_PUBLIC_KEYS",
        "good.pem,private.pem,missing.pem,text.pem",
    );
    let said = bad(&sources);
    assert_eq!(said.len(), 3, "{said:#?}");
    let start = "GATEWAY__AUTH__JWT_PUBLIC_KEYS: entry ";
    assert!(said[0].starts_with(&format!("{start}2 must be a PEM file with one public key")));
    assert!(said[1].starts_with(&format!("{start}3 cannot be read")));
    assert!(said[2].starts_with(&format!("{start}4 must be a PEM file")));
    assert!(!said.join("").contains("hunter2"), "{said:#?}");
    let mut set = |name: &str, value: &str| sources.env.insert(name.to_owned(), value.to_owned());
    set("GATEWAY__AUTH__JWT_PUBLIC_KEYS", "good.pem");
    set("GATEWAY__AUTH__ALGORITHMS", "HS256,RS256");
    assert_eq!(
        bad(&sources),
        [format!(
            "{start}1 is a key for none of the algorithms in auth.algorithms"
        )]
    );
}

#[test]
fn algorithms_have_their_names_and_fit_the_keys() {
    for unknown in ["none", "hs256", "HS512", "ES512", "HS256,RSA"] {
        let said = bad(&sources(&[("GATEWAY__AUTH__ALGORITHMS", unknown)]));
        assert!(
            said[0].contains("must be one of \"HS256\", \"RS256\""),
            "{said:?}"
        );
    }
    let env = [
        ("GATEWAY__AUTH__ALGORITHMS", "HS256"),
        ("GATEWAY__AUTH__JWKS_URL", "https://u:hunter2@id/keys"),
    ];
    let said = bad(&sources(&env));
    assert!(
        said[0].starts_with("GATEWAY__AUTH__ALGORITHMS: must have one that"),
        "{said:?}"
    );
}

#[test]
fn broken_toml_is_told_by_line_without_its_text() {
    let file = "[auth]\njwt_secret = \"hunter2-hunter2-hunter2\n[log]\nlevel = 'loud'\n";
    let (_dir, sources) = directory(
        &[("config/gateway.toml", file)],
        &[("GATEWAY__LIMITS__BATCH", "1001")],
    );
    let said = bad(&sources).join("\n");
    assert!(
        said.contains("config/gateway.toml:2: not valid TOML"),
        "{said}"
    );
    assert!(
        said.contains("GATEWAY__LIMITS__BATCH: must be a whole number from 1 to 1000"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn no_piece_of_a_broken_file_is_quoted() {
    for file in [
        "[auth]\njwt_secret = hunter2",
        "[auth]\njwt_secret = 'a'\nhunter2\n",
        "[auth]\njwt_secret = \"\"\"\nx\"\"\"\"\"\"\nhunter2 = 1\"\n",
        "[auth]\njwt_secret = 'x'hunter2 = 'y'",
        "hunter2\n=hunter2",
        "[auth]\njwt_secret = \"\\hunter2\"",
    ] {
        let (_dir, sources) = directory(&[("config/gateway.toml", file)], &[]);
        let said = bad(&sources).join("\n");
        assert!(said.contains("not valid TOML"), "{file}\n{said}");
        assert!(!said.contains("hunter2"), "{file}\n{said}");
    }
}

#[test]
fn a_section_is_no_key() {
    let file = "server = 3\n[[auth]]\nissuer = 'x'";
    let (_dir, sources) = directory(&[("config/gateway.toml", file)], &[]);
    let said = bad(&sources).join("\n");
    assert!(
        said.contains("config/gateway.toml:1: server: is a section: must be [server]"),
        "{said}"
    );
    assert!(
        said.contains("config/gateway.toml:2: auth: is a section"),
        "{said}"
    );
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    let said = bad(&sources(&[
        ("GATEWAY__LIMITS__SYNC_DEFAULT", "300"),
        ("GATEWAY__SERVER__OPS_LISTEN", "127.0.0.1:8080"),
        ("GATEWAY__WUKONGIM__MANAGER_USERNAME", "root"),
        ("GATEWAY__WUKONGIM__API_URLS", "http://a,http://a/"),
    ]));
    let all = said.join("\n");
    assert_eq!(said.len(), 5, "{all}");
    assert!(
        all.contains(
            "GATEWAY__LIMITS__SYNC_DEFAULT: must be at most limits.sync_max, which is 200"
        ),
        "{all}"
    );
    assert!(
        all.contains("wukongim.manager_password: must be set"),
        "{all}"
    );
    // Nothing is concluded from a value that could not be read.
    let said = bad(&sources(&[
        ("GATEWAY__LIMITS__SYNC_DEFAULT", "300"),
        ("GATEWAY__LIMITS__SYNC_MAX", "x"),
    ]));
    assert_eq!(said.len(), 1, "{said:?}");
    let brackets = bad(&sources(&[("GATEWAY__AUTH__UID_CLAIMS", "[\"sub\"]")]));
    assert!(brackets[0].contains("without brackets"), "{brackets:?}");
}

#[test]
fn dangerous_settings_are_warned_of() {
    let starts = |env: &[(&str, &str)], key: &str| {
        good(env)
            .warnings
            .iter()
            .any(|warning| warning.starts_with(&format!("{key}: ")))
    };
    for (name, value, key) in [
        ("GATEWAY__AUTHORIZATION__MODE", "open", "authorization.mode"),
        ("GATEWAY__WUKONGIM__CONFIRM", "accepted", "wukongim.confirm"),
        (
            "GATEWAY__AUTH__JWT_PREVIOUS_SECRETS",
            OTHER,
            "im_token.secret",
        ),
        ("WUKONGIM_MANAGER_URL", "http://h", "public.manager_url"),
        ("GATEWAY__SERVER__BODY_LIMIT", "64KiB", "server.body_limit"),
        (
            "GATEWAY__SERVER__OPS_LISTEN",
            "0.0.0.0:9464",
            "server.ops_listen",
        ),
        (
            "GATEWAY__SERVER__REQUEST_TIMEOUT",
            "6s",
            "server.request_timeout",
        ),
        ("GATEWAY__STORE__URL", "sqlite::memory:", "store.url"),
        ("GATEWAY__AUTH__ALGORITHMS", "RS256", "auth.algorithms"),
        ("GATEWAY__AUTH__JWKS_REFRESH", "6m", "auth.jwks_refresh"),
    ] {
        assert!(starts(&[(name, value)], key), "{key}");
        assert!(!starts(&[], key), "{key}");
    }
    let endpoint = ("GATEWAY__TELEMETRY__OTLP_ENDPOINT", "http://collector:4318");
    let key = "telemetry.otlp_endpoint";
    assert_eq!(starts(&[endpoint], key), !cfg!(feature = "otel"));
    assert!(!starts(&[], key));
}

#[test]
fn a_callback_needs_to_know_whom_to_ask_and_a_key() {
    let mode = ("GATEWAY__AUTHORIZATION__MODE", "callback");
    let url = ("GATEWAY__AUTHORIZATION__CALLBACK_URL", "https://h/callback");
    let secret = ("GATEWAY__AUTHORIZATION__CALLBACK_SECRET", OTHER);
    let said = bad(&sources(&[mode])).join("\n");
    for key in ["callback_url", "callback_secret"] {
        let line = format!("authorization.{key}: must be set where authorization.mode");
        assert!(said.contains(&line), "{said}");
    }
    assert_eq!(bad(&sources(&[mode, url])).len(), 1);
    assert_eq!(bad(&sources(&[mode, secret])).len(), 1);
    for wrong in ["h/callback", "ftp://h/callback", "unix:/run/x"] {
        let url = ("GATEWAY__AUTHORIZATION__CALLBACK_URL", wrong);
        assert_eq!(bad(&sources(&[mode, url, secret])).len(), 1, "{wrong}");
    }
    let warned = |env: &[_]| {
        let warnings = good(env).warnings;
        let about = |line: &&String| line.starts_with("authorization.callback_");
        warnings.iter().filter(about).count()
    };
    assert_eq!(warned(&[mode, url, secret]), 0);
    let short = ("GATEWAY__AUTHORIZATION__CALLBACK_SECRET", "short");
    let slow = ("GATEWAY__AUTHORIZATION__CALLBACK_TIMEOUT", "10s");
    assert_eq!(warned(&[mode, url, short, slow]), 2);
    assert_eq!(warned(&[url, short, slow]), 0, "not in another mode");
}

#[test]
fn no_secret_is_ever_shown() {
    let marked = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let env = [
        ("GATEWAY__AUTH__JWT_SECRET", marked),
        ("GATEWAY__AUTH__JWT_PREVIOUS_SECRETS", marked),
        ("GATEWAY__IM_TOKEN__SECRET", marked),
        ("GATEWAY__WUKONGIM__MANAGER_TOKEN", marked),
        ("GATEWAY__WUKONGIM__MANAGER_URL", "http://a:hunter2@m"),
        ("GATEWAY__WUKONGIM__MANAGER_USERNAME", "root"),
        ("GATEWAY__WUKONGIM__MANAGER_PASSWORD", marked),
        ("GATEWAY__WUKONGIM__API_URLS", "http://a:hunter2@h"),
        ("GATEWAY__AUTHORIZATION__MODE", "callback"),
        (
            "GATEWAY__AUTHORIZATION__CALLBACK_URL",
            "http://a:hunter2@b/c",
        ),
        ("GATEWAY__AUTHORIZATION__CALLBACK_SECRET", marked),
        ("GATEWAY__AUTH__JWKS_URL", "https://a:hunter2@h/keys"),
        (
            "GATEWAY__STORE__URL",
            "postgres://a:hunter2@h/im?options=hunter2",
        ),
        ("GATEWAY__WUKONGIM__CONFIRM", "accepted"),
    ];
    let loaded = good(&env);
    let described = describe(&loaded);
    assert!(!described.contains("hunter2"), "{described}");
    let debug = format!("{loaded:?}");
    assert!(
        !debug.contains("hunter2") && !debug.contains("://"),
        "{debug}"
    );
    assert!(
        described.contains("callback_url = \"http://[redacted]@b/c\""),
        "{described}"
    );
    assert!(
        described.contains("jwt_secret = \"[redacted]\"  # GATEWAY__AUTH__JWT_SECRET"),
        "{described}"
    );
    assert!(
        described.contains("api_urls = [\"http://[redacted]@h\"]"),
        "{described}"
    );
    assert!(
        described.contains("url = \"postgres://[redacted]@h/im?[redacted]\""),
        "{described}"
    );
    assert!(
        described.contains("[limits]\nid_bytes = 128  # default\n"),
        "{described}"
    );
    assert!(described.contains("# warning: "), "{described}");
    let parsed: toml::Table = described.parse().unwrap();
    assert_eq!(parsed["log"]["level"].as_str(), Some("info"));
    let mut values: Vec<_> = env
        .iter()
        .map(|(name, _)| (*name, "ftp://a:hunter2@h:x y"))
        .collect();
    values.push(("GATEWAY__PUBLIC__WS_URL", "wss://a:hunter2@h"));
    let said = bad(&sources(&values)).join("\n");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_manager_token_that_no_header_can_carry_is_told_with_the_others() {
    for token in ["hunter2\n2", "hunter2\u{7f}", "hunter2\n\n"] {
        let env = [
            ("GATEWAY__WUKONGIM__MANAGER_TOKEN", token),
            ("GATEWAY__SERVER__LISTEN", "nowhere"),
        ];
        let (_dir, sources) = directory(&[], &env);
        let said = bad(&sources).join("\n");
        assert!(said.contains("MANAGER_TOKEN"), "{said}");
        assert!(
            said.contains("must be text without control characters"),
            "{said}"
        );
        assert!(said.contains("SERVER__LISTEN"), "{said}");
        assert!(!said.contains(token), "{said}");
    }
}
