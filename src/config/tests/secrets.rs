//! What comes with a secret by mistake, the files that hold secrets, and what only the driver or the system would refuse.

use std::os::unix::fs::PermissionsExt as _;

use secrecy::ExposeSecret as _;

use super::*;

fn jwt_secret(sources: &Sources) -> String {
    let loaded = load(sources).unwrap_or_else(|problems| panic!("{problems}"));
    let secret = loaded.settings.auth.jwt_secret.unwrap();
    secret.expose_secret().to_owned()
}

/// The warnings about this key.
fn warnings_of(sources: &Sources, key: &str) -> Vec<String> {
    let loaded = load(sources).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings = loaded.warnings.into_iter();
    warnings
        .filter(|warning| warning.starts_with(&format!("{key}: ")))
        .collect()
}

#[test]
fn a_final_newline_is_not_part_of_a_secret() {
    for end in ["", "\n", "\r\n"] {
        let text = format!("{OTHER}{end}");
        assert_eq!(
            jwt_secret(&sources(&[("GATEWAY__AUTH__JWT_SECRET", &text)])),
            OTHER
        );
        let quoted = toml::Value::String(text.clone());
        let file = format!("auth.jwt_secret = {quoted}");
        let files = [("config/gateway.toml", &*file), ("secret", &*text)];
        let (_dir, mut sources) = directory(&files, &[]);
        sources.env.clear();
        assert_eq!(jwt_secret(&sources), OTHER);
        sources
            .env
            .insert("JWT_SECRET_FILE".to_owned(), "secret".to_owned());
        sources.config_file = Some("/dev/null".into());
        assert_eq!(jwt_secret(&sources), OTHER);
    }
    let token = [("GATEWAY__WUKONGIM__MANAGER_TOKEN", "token\n")];
    let token = good(&token).settings.wukongim.manager_token.unwrap();
    assert_eq!(token.expose_secret(), "token");
}

#[test]
fn white_space_and_quotes_around_any_secret_are_part_of_it_and_warned_of() {
    let with_manager = |key: &str, value: &str| {
        let mut sources = sources(&[
            ("GATEWAY__WUKONGIM__MANAGER_URL", "http://m"),
            ("GATEWAY__WUKONGIM__MANAGER_USERNAME", "u"),
            ("GATEWAY__WUKONGIM__MANAGER_PASSWORD", "p"),
        ]);
        let name = layers::variable_for(key);
        sources.env.insert(name, value.to_owned());
        sources
    };
    let mut secrets = 0;
    for (key, sample) in KNOWN_SAMPLES {
        let loaded = load(&with_manager(key, sample)).unwrap();
        let shown = loaded.shown.iter().find(|shown| shown.key == *key).unwrap();
        // An address has its own rules.
        if !shown.value.contains("\"[redacted]\"") || *key == "store.url" {
            continue;
        }
        secrets += 1;
        let around = |value: &str| {
            let warnings = warnings_of(&with_manager(key, value), key);
            let about = |warning: &&String| warning.contains("white space or quotes around it");
            warnings.iter().filter(about).count()
        };
        assert_eq!(around(sample), 0, "{key}");
        assert_eq!(around(&format!("\"{sample}\"")), 1, "{key}");
        assert_eq!(around(&format!("'{sample}'")), 1, "{key}");
        if *key != "auth.jwt_previous_secrets" {
            assert_eq!(around(&format!(" {sample}")), 1, "{key}");
            assert_eq!(around(&format!("{sample}\t")), 1, "{key}");
        }
    }
    assert_eq!(secrets, 6);
    let padded = format!(" {OTHER}");
    let kept = sources(&[("GATEWAY__AUTH__JWT_SECRET", &padded)]);
    assert_eq!(jwt_secret(&kept), padded);
}

#[test]
fn a_byte_order_mark_before_a_secret_or_a_configuration_is_skipped() {
    let files = [
        ("config/gateway.toml", "\u{feff}[log]\nlevel = 'debug'\n"),
        ("secret", &format!("\u{feff}{OTHER}\n")),
        (
            "key.pem",
            &format!(
                "\u{feff}{}",
                include_str!("../../../tests/support/keys/ed25519-one.pub.pem")
            ),
        ),
    ];
    let env = [
        ("GATEWAY__AUTH__JWT_SECRET", ""),
        ("JWT_SECRET_FILE", "secret"),
    ];
    let (dir, mut sources) = directory(&files, &env);
    let key = dir.path().join("key.pem").display().to_string();
    sources
        .env
        .insert("GATEWAY__AUTH__JWT_PUBLIC_KEYS".to_owned(), key);
    assert_eq!(jwt_secret(&sources), OTHER);
    let loaded = load(&sources).unwrap();
    assert_eq!(origins(&loaded)["log.level"], "config/gateway.toml:2");
}

#[test]
fn files_that_hold_a_key_and_that_others_may_write_are_warned_of() {
    let key = include_str!("../../../tests/support/keys/ed25519-one.pub.pem");
    let file = format!("auth.jwt_secret = '{OTHER}'");
    let files = [
        ("config/gateway.toml", &*file),
        ("secret", OTHER),
        ("key.pem", key),
    ];
    let env = [
        ("GATEWAY__AUTH__JWT_SECRET", ""),
        ("GATEWAY__IM_TOKEN__SECRET_FILE", "secret"),
        ("GATEWAY__AUTH__JWT_PUBLIC_KEYS", "key.pem"),
    ];
    let (dir, sources) = directory(&files, &env);
    let set_mode = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path().join(name), mode).unwrap();
    };
    let held = [
        ("config/gateway.toml", "auth.jwt_secret"),
        ("secret", "im_token.secret"),
        ("key.pem", "auth.jwt_public_keys"),
    ];
    for (name, _) in held {
        set_mode(name, 0o644);
    }
    for (name, key) in held {
        assert_eq!(warnings_of(&sources, key), [""; 0]);
        for mode in [0o620, 0o602, 0o666] {
            set_mode(name, mode);
            let said = format!("{key}: the file {name:?} may be written by its group or by others");
            assert_eq!(warnings_of(&sources, key), [said]);
        }
        set_mode(name, 0o644);
    }
    // A configuration without a secret tells nothing new.
    std::fs::write(dir.path().join("config/gateway.toml"), "log.level = 'info'").unwrap();
    set_mode("config/gateway.toml", 0o666);
    let mut without = sources.clone();
    without
        .env
        .insert("GATEWAY__AUTH__JWT_SECRET".to_owned(), OTHER.to_owned());
    let warnings = load(&without).unwrap().warnings;
    assert!(
        warnings.iter().all(|warning| !warning.contains("the file")),
        "{warnings:?}"
    );
}

#[test]
fn no_query_of_an_address_is_shown() {
    let loaded = good(&[
        (
            "GATEWAY__AUTH__JWKS_URL",
            "http://a:b@h/keys?api-key=hunter2",
        ),
        (
            "GATEWAY__TELEMETRY__OTLP_ENDPOINT",
            "http://h:4318/?key=hunter2",
        ),
        (
            "GATEWAY__AUTHORIZATION__CALLBACK_URL",
            "http://h/c?key=hunter2&b=hunter2",
        ),
    ]);
    let described = describe(&loaded);
    assert!(!described.contains("hunter2"), "{described}");
    let shown = "jwks_url = \"http://[redacted]@h/keys?[redacted]\"";
    assert!(described.contains(shown), "{described}");
}

#[test]
fn a_store_url_that_the_driver_refuses_is_a_problem() {
    let files = [("ca.pem", "no certificate"), ("key.pem", "hunter2")];
    let (dir, mut sources) = directory(&files, &[]);
    let certificate = include_str!("../../../tests/support/keys/ed25519-one.pub.pem");
    std::fs::write(dir.path().join("good.pem"), certificate).unwrap();
    let mut said = |url: &str| {
        let name = "GATEWAY__STORE__URL".to_owned();
        sources.env.insert(name, url.to_owned());
        match load(&sources) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    };
    for (parameters, what) in [
        ("sslmode=verify-ful", "sslmode is one of disable"),
        ("statement-cache-capacity=x", "a whole number"),
        (
            "sslrootcert=missing.pem",
            "the file of its sslrootcert cannot be read: No such file",
        ),
        (
            "sslrootcert=ca.pem",
            "the file of its sslrootcert must be PEM",
        ),
        (
            "sslcert=good.pem&sslkey=key.pem",
            "the file of its sslkey must be PEM",
        ),
        ("sslcert=good.pem", "sslcert and sslkey go together"),
    ] {
        let message = said(&format!("postgres://u:hunter2@h/d?{parameters}"));
        assert!(message.starts_with("GATEWAY__STORE__URL: "), "{message}");
        assert!(
            message.contains(what) && !message.contains("hunter2"),
            "{message}"
        );
    }
    for good in [
        "postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=good.pem",
        "postgres://u:hunter2@h/d?sslmode=disable&statement-cache-capacity=0",
        "sqlite://missing/gateway.db",
    ] {
        assert_eq!(said(good), "", "{good}");
    }
    let message = said("sqlite://config");
    assert_eq!(message, "GATEWAY__STORE__URL: is a folder: must be a file");
}
