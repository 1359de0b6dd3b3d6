//! The binary as people run it: exit codes and output, with nothing of this process's environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod arrows;
mod documents;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

const SECRET: &str = "q7Vw3nK0pXz8Lb5Rt2Yd9Hc6Mf1Js4Ga";

#[track_caller]
fn run(cwd: &Path, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim-gateway"));
    let output = command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(cwd)
        .output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// Asserts that a text contains this, and prints it whole where it does not.
#[track_caller]
fn shows(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in {text}");
}

/// In an empty directory.
#[track_caller]
fn run_bare(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    run(tempfile::tempdir().unwrap().path(), args, env)
}

#[track_caller]
fn claims(token: &str, audience: Option<&str>) -> Value {
    let mut validation = Validation::new(Algorithm::HS256);
    match audience {
        Some(audience) => validation.set_audience(&[audience]),
        None => validation.validate_aud = false,
    }
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode::<Value>(token.trim_end(), &key, &validation)
        .unwrap()
        .claims
}

#[test]
fn bad_arguments_are_64_and_help_is_0() {
    for args in [
        &["--nonsense"][..],
        &["fly"],
        &["--embedded=v4"],
        &["--embedded", "check-config"],
        &["token"],
        &["token", "--uid", ""],
        &["token", "--uid", "a", "--ttl", "5"],
        &["token", "--uid", "a", "--ttl", "0s"],
        &["healthcheck", "ftp://x"],
    ] {
        let (code, stdout, stderr) = run_bare(args, &[("JWT_SECRET", SECRET)]);
        assert_eq!((code, stdout.as_str()), (64, ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    }
    for args in [&["--help"][..], &["--version"], &["token", "--help"]] {
        let (code, stdout, stderr) = run_bare(args, &[]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(stdout.contains("gateway"), "{args:?}: {stdout}");
    }
}

#[test]
fn serving_without_a_secret_is_64_unless_embedded() {
    for args in [
        &[][..],
        &["serve"],
        &["check-config"],
        &["token", "--uid", "a"],
    ] {
        let (code, stdout, stderr) = run_bare(args, &[]);
        assert_eq!((code, stdout.as_str()), (64, ""), "{args:?}: {stderr}");
        shows(&stderr, "auth.jwt_secret: must be set");
    }
}

#[cfg(not(feature = "embedded"))]
#[test]
fn embedded_in_a_build_without_it_is_64_and_says_so() {
    let env = [
        ("GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
        ("GATEWAY__SERVER__OPS_LISTEN", "127.0.0.1:0"),
    ];
    let (code, stdout, stderr) = run_bare(&["--embedded"], &env);
    assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
    shows(&stderr, "without the feature `embedded`");
}

#[test]
fn check_config_prints_what_is_in_force_and_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.toml"), "[log]\nlevel = 'debug'\n").unwrap();
    let args = ["check-config", "--config", "mine.toml"];
    let env = [("JWT_SECRET", SECRET), ("WUKONGIM_WS_URL", "ws://im:5200")];
    let (code, stdout, stderr) = run(dir.path(), &args, &env);
    assert_eq!((code, stderr.as_str()), (0, ""));
    shows(&stdout, "level = \"debug\"  # mine.toml:2\n");
    shows(&stdout, "jwt_secret = \"[redacted]\"  # JWT_SECRET\n");
    assert!(stdout.contains("# warning: public.ws_url: "), "{stdout}");
    assert!(!stdout.contains(SECRET));
}

#[test]
fn check_config_tells_all_problems_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let text = "[server]\nlisten = 'here'\nbody_limit = '65MiB'\n[limits]\nbach = 5\n";
    std::fs::write(dir.path().join("config/gateway.toml"), text).unwrap();
    let env = [
        ("JWT_SECRET", "hunter2"),
        ("GATEWAY__SERVER__REQUEST_TIMEOUT", "5"),
    ];
    let (code, stdout, stderr) = run(dir.path(), &["check-config"], &env);
    assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
    for said in [
        "problems (5)",
        "config/gateway.toml:2: server.listen: must be an IP address",
        "config/gateway.toml:3: server.body_limit: must be a size",
        "from 1B to 64MiB",
        "config/gateway.toml:5: limits.bach: unknown key, the nearest known one is limits.batch",
        "GATEWAY__SERVER__REQUEST_TIMEOUT: must be a duration with a unit",
        "JWT_SECRET: auth.jwt_secret: is too short",
    ] {
        assert!(stderr.contains(said), "{said}\n{stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn the_document_in_the_repository_is_the_one_that_is_printed() {
    let (code, stdout, stderr) = run_bare(&["openapi"], &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == stdout,
        "the code says something else by now: cargo run -- openapi > docs/openapi.json"
    );
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    for args in [["openapi"], ["check-config"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim-gateway"));
        let command = command.args(args).env_clear().env("JWT_SECRET", SECRET);
        let piped = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = piped.unwrap();
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!((status.code(), &*stderr), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn a_token_carries_the_uid_and_lives_as_long_as_asked() {
    let (code, stdout, stderr) = run_bare(&["token", "--uid", "alice"], &[("JWT_SECRET", SECRET)]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let plain = claims(&stdout, None);
    assert_eq!(plain["sub"], "alice");
    let lifetime =
        |claims: &Value| claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(lifetime(&plain), 3600);
    assert!(
        plain.get("roles").is_none() && plain.get("permissions").is_none(),
        "{plain}"
    );

    let env = [
        ("JWT_SECRET", SECRET),
        ("JWT_ISSUER", "openchat"),
        ("GATEWAY__AUTH__AUDIENCE", "im"),
        ("GATEWAY__AUTH__UID_CLAIMS", "userId,sub"),
    ];
    let args = ["token", "--uid", "root", "--admin", "--ttl", "5m"];
    let admin = claims(&run_bare(&args, &env).1, Some("im"));
    assert_eq!(admin["userId"], "root");
    assert_eq!(admin["iss"], "openchat");
    assert_eq!(admin["roles"][0], "admin");
    assert_eq!(lifetime(&admin), 300);

    let env = [("JWT_SECRET", SECRET), ("GATEWAY__AUTH__ADMIN_ROLES", "[]")];
    let admin = claims(&run_bare(&args, &env).1, None);
    assert_eq!(admin["permissions"][0], "im:admin");
    assert!(admin.get("roles").is_none(), "{admin}");

    let none = ("GATEWAY__AUTH__ADMIN_PERMISSIONS", "[]");
    let (code, stdout, stderr) = run_bare(&args, &[env[0], env[1], none]);
    assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
}

#[test]
fn a_token_is_made_with_a_secret_alone_and_has_what_is_required() {
    let required = ("GATEWAY__AUTH__REQUIRED_CLAIMS", "roles,scope,tenant");
    let args = ["token", "--uid", "alice"];
    let token = run_bare(&args, &[("JWT_SECRET", SECRET), required]).1;
    let made = claims(&token, None);
    assert_eq!(made["roles"], Value::Array(Vec::new()));
    assert!(
        made["scope"].is_string() && made["tenant"].is_string(),
        "{made}"
    );
    let env = [
        ("GATEWAY__AUTH__JWKS_URL", "http://127.0.0.1:1/keys"),
        ("GATEWAY__IM_TOKEN__SECRET", SECRET),
    ];
    let (code, stdout, stderr) = run_bare(&args, &env);
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert!(stderr.contains("auth.jwt_secret is not set"), "{stderr}");
}

#[test]
fn a_wrong_address_of_a_node_is_64_and_named_by_its_place() {
    for (urls, what) in [
        (
            "http://a:1,ftp://b:1",
            "entry 2 must be an http or https address",
        ),
        ("http://a:1,b:1", "entry 2 must be"),
        ("http://a:1/im", "entry 1 must be"),
        ("http://a:99999", "entry 1 must be"),
        (
            "http://a:1,http://b:1,http://a:1",
            "entry 3 is listed twice",
        ),
    ] {
        for args in [["check-config"], ["serve"]] {
            let env = [
                ("JWT_SECRET", SECRET),
                ("GATEWAY__WUKONGIM__API_URLS", urls),
            ];
            let (code, stdout, stderr) = run_bare(&args, &env);
            assert_eq!(
                (code, stdout.as_str()),
                (64, ""),
                "{args:?} {urls}: {stderr}"
            );
            assert!(stderr.contains(what), "{urls}: {stderr}");
        }
    }
}

#[test]
fn a_healthcheck_is_0_on_200_and_1_on_anything_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let answers = [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 503 x\r\n\r\n",
            "nonsense, nonsense",
            "",
            "HTTP/1.1 200 OK\r\n\r\n",
        ];
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length])
                .lines()
                .next()
                .unwrap()
                .to_owned()
        })
    });
    let url = format!("http://127.0.0.1:{port}/livez");
    for expected in [0, 1, 1, 1] {
        assert_eq!(run_bare(&["healthcheck", &url], &[]).0, expected);
    }
    // Without a URL: the configured port, and no secret needed.
    let ops = format!("0.0.0.0:{port}");
    let env = [("GATEWAY__SERVER__OPS_LISTEN", &*ops)];
    assert_eq!(run_bare(&["healthcheck"], &env).0, 0);
    let asked = server.join().unwrap();
    assert_eq!(asked[0], "GET /livez HTTP/1.1");
    assert_eq!(asked[4], "GET /readyz HTTP/1.1");
    // The listener has gone.
    assert_eq!(run_bare(&["healthcheck", &url], &[]).0, 1);
}

#[test]
fn a_healthcheck_gives_up_on_a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let before = std::time::Instant::now();
    assert_eq!(run_bare(&["healthcheck", &url], &[]).0, 1);
    assert!(before.elapsed().as_secs() < 10, "{:?}", before.elapsed());
}
