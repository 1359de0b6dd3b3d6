//! Authentication: a table of JWTs, and that refused requests cause no upstream call.

mod configured;
mod forged;
mod issuer;
mod public_keys;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::actors::{Actor, sign};
use crate::support::answer::Answer;
use crate::support::served::SECRET;
use crate::support::{TestApp, V2, V3};

const FAR: u64 = 4_000_000_000;
const OTHER: &str = "another-secret-that-is-long-enough-too";

/// Requests the configuration, which returns the token's uid.
async fn ask(app: &TestApp, authorization: &[&str]) -> Answer {
    let mut request = app.anon().request("GET", "/config");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    Answer::to(request).await
}

async fn ask_as(app: &TestApp, token: &str) -> Answer {
    ask(app, &[&format!("Bearer {token}")]).await
}

fn signed_by(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(algorithm), claims, &key).unwrap()
}

/// A token with this header, signed with the right secret whatever the header says.
fn with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Unix seconds so far from now.
fn from_now(seconds: i64) -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

#[track_caller]
fn refused(answer: Answer, code: &str) {
    let answer = answer.fails(401, code);
    assert_eq!(answer.header("www-authenticate"), "Bearer", "{answer:#?}");
    assert!(answer.body.get("details").is_none(), "{answer:#?}");
}

#[tokio::test]
async fn a_token_is_judged_by_its_claims() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        for (claims, code) in [
            (json!({"sub": "a", "exp": from_now(-3600)}), "token_expired"),
            (json!({"sub": "a", "exp": 0}), "token_expired"),
            (json!({"sub": "a", "exp": -1}), "token_expired"),
            (json!({"sub": "a"}), "token_invalid"),
            (json!({"sub": "a", "exp": null}), "token_invalid"),
            (json!({"sub": "a", "exp": FAR.to_string()}), "token_invalid"),
            (json!({"sub": "a", "exp": true}), "token_invalid"),
            // Milliseconds.
            (json!({"sub": "a", "exp": FAR * 1000}), "token_invalid"),
            (
                json!({"sub": "a", "exp": FAR, "nbf": from_now(3600)}),
                "token_invalid",
            ),
            (json!({"sub": "a", "exp": FAR, "nbf": "0"}), "token_invalid"),
            (json!({"exp": FAR}), "token_invalid"),
            (json!({"sub": "", "exp": FAR}), "token_invalid"),
            (json!({"sub": 7, "exp": FAR}), "token_invalid"),
            (json!({"sub": null, "exp": FAR}), "token_invalid"),
            (json!({"sub": ["a"], "exp": FAR}), "token_invalid"),
            // `sub` counts where it is there, however bad it is.
            (
                json!({"sub": "", "userId": "b", "exp": FAR}),
                "token_invalid",
            ),
            (
                json!({"sub": 7, "userId": "b", "exp": FAR}),
                "token_invalid",
            ),
            (json!({"userId": "b@c", "exp": FAR}), "token_invalid"),
            (json!({"userId": 12, "exp": FAR}), "token_invalid"),
            // Expired and wrong: refreshing would not help.
            (json!({"sub": "", "exp": 5}), "token_invalid"),
        ] {
            println!("{claims}");
            refused(ask_as(&app, &sign(&claims)).await, code);
        }
        assert_eq!(app.upstream.calls().len(), 0);
    }
}

#[tokio::test]
async fn a_uid_that_is_none_is_401_and_never_reaches_upstream() {
    let app = TestApp::start(V2).await;
    let too_long = "a".repeat(129);
    let kills_a_node = "a".repeat(8_000);
    for uid in [
        " ",
        "a b",
        "a@b",
        "a#b",
        "a&b",
        "a/b",
        "a\\b",
        "a?b",
        "a%b",
        "a\u{0}b",
        "a\nb",
        ".",
        "..",
        "____system",
        "____manager",
        "a____cmd",
        "a___vstr",
        "\u{a0}",
        &too_long,
        &kills_a_node,
    ] {
        let claims = json!({"sub": uid, "exp": FAR});
        refused(ask_as(&app, &sign(&claims)).await, "token_invalid");
    }
    assert_eq!(app.upstream.calls().len(), 0);
    let longest = "界".repeat(42) + "ab";
    for uid in ["a", "张三", "a.b", "a:b+c=d", "-", "...", "😀", &longest] {
        let told = ask_as(&app, &sign(&json!({"sub": uid, "exp": FAR}))).await;
        assert_eq!(told.ok()["uid"], uid);
    }
}

#[tokio::test]
async fn a_token_is_judged_by_its_signature() {
    let app = TestApp::start(V2).await;
    let claims = json!({"sub": "a", "exp": FAR});
    let good = sign(&claims);
    ask_as(&app, &good).await.ok();
    app.clear_calls();
    let expired = json!({"sub": "a", "exp": 5});
    let parts: Vec<_> = good.split('.').collect();
    let other_claims = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": FAR}).to_string());
    let none = with_header(&json!({"alg": "none"}), &claims);
    let unsigned = none.rsplit_once('.').unwrap().0.to_owned() + ".";
    for token in [
        signed_by(OTHER, Algorithm::HS256, &claims),
        // Of nobody's: not "expired", since its time says nothing.
        signed_by(OTHER, Algorithm::HS256, &expired),
        signed_by("", Algorithm::HS256, &claims),
        signed_by(SECRET, Algorithm::HS512, &claims),
        signed_by(SECRET, Algorithm::HS384, &claims),
        with_header(&json!({"alg": "RS256", "typ": "JWT"}), &claims),
        with_header(&json!({"alg": "ES256"}), &claims),
        with_header(&json!({"alg": "hs256"}), &claims),
        with_header(&json!({}), &claims),
        with_header(&json!("HS256"), &claims),
        none,
        unsigned,
        with_header(&json!({"alg": "HS256"}), &json!("a")),
        with_header(&json!({"alg": "HS256"}), &json!([claims])),
        format!("{}.{}.{}", parts[0], other_claims, parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.more"),
        format!("{good}x"),
        good[..good.len() - 2].to_owned(),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        format!("{good} {good}"),
    ] {
        println!("{token}");
        refused(ask_as(&app, &token).await, "token_invalid");
    }
    assert_eq!(app.upstream.calls().len(), 0);
    // The maker of those by hand does make good ones.
    let token = with_header(
        &json!({"alg": "HS256", "kid": "7", "typ": "at+jwt"}),
        &claims,
    );
    ask_as(&app, &token).await.ok();
}

#[tokio::test]
async fn the_header_is_read_with_any_case_of_its_scheme_and_only_once() {
    let app = TestApp::start(V2).await;
    let token = sign(&json!({"sub": "a", "exp": FAR}));
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        ask(&app, &[&format!("{scheme} {token}")]).await.ok();
    }
    ask(&app, &[&format!("Bearer   {token}")]).await.ok();
    app.clear_calls();
    let bearer = format!("Bearer {token}");
    for missing in [
        "",
        "Bearer",
        "Basic YTpi",
        &token,
        "Token x",
        &format!("Bearer\u{0009}{token}"),
    ] {
        println!("{missing}");
        refused(ask(&app, &[missing]).await, "token_missing");
    }
    refused(ask(&app, &[]).await, "token_missing");
    for twice in [
        [&*bearer, &*bearer],
        ["Basic YTpi", &*bearer],
        [&*bearer, ""],
    ] {
        refused(ask(&app, &twice).await, "token_invalid");
    }
    // Nowhere else is a token looked for.
    let path = format!("/config?access_token={token}&token={token}");
    refused(app.anon().get(&path).await, "token_missing");
    let request = app
        .anon()
        .request("GET", "/config")
        .header("cookie", format!("token={token}"));
    refused(Answer::to(request).await, "token_missing");
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn roles_and_permissions_make_an_admin_and_nothing_else_does() {
    let app = TestApp::start(V2).await;
    for (index, (extra, is_admin)) in [
        (json!({"roles": ["admin"]}), true),
        (json!({"roles": ["user", "admin"]}), true),
        (json!({"permissions": ["im:admin"]}), true),
        (json!({}), false),
        // A list, or nothing.
        (json!({"roles": "admin", "permissions": "im:admin"}), false),
        (json!({"roles": [["admin"]]}), false),
        (json!({"roles": ["Admin"]}), false),
        (json!({"roles": ["im:admin"]}), false),
        (json!({"permissions": ["admin"]}), false),
        (json!({"roles": {"admin": true}, "permissions": 1}), false),
        (
            json!({"role": "admin", "scope": "im:admin", "admin": true, "isAdmin": true}),
            false,
        ),
        (json!({"scope": ["admin", "im:admin"]}), false),
    ]
    .into_iter()
    .enumerate()
    {
        println!("{extra}");
        let group = format!("g{index}");
        app.group(&group, "alice", &[]).await;
        let mut claims = json!({"sub": "mallory", "exp": FAR});
        claims
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let mallory = crate::support::actors::Actor::with_claims(&app, &claims);
        let answer = mallory.delete_group(&group).await;
        if is_admin {
            answer.ok();
        } else {
            answer.fails(403, "not_owner");
            app.nothing_was_written();
        }
    }
}

#[tokio::test]
async fn a_uid_never_comes_from_a_body_or_a_query() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let mallory = app.user("mallory");
        let told = mallory
            .get("/config?uid=alice&userId=alice&sub=alice")
            .await;
        assert_eq!(told.ok()["uid"], "mallory");
        let body = json!({"uid": "alice", "userId": "alice", "deviceFlag": 1});
        let told = mallory.post("/token", &body).await.ok();
        assert_eq!(told["uid"], "mallory");
        for call in app.upstream.calls() {
            assert!(
                !call.path.contains("alice") && !call.body.to_string().contains("alice"),
                "{call:?}"
            );
        }
        assert_eq!(app.state().token_of("alice", 1), None);
    }
}

#[tokio::test]
async fn a_token_with_two_hundred_groups_is_read_and_a_larger_one_is_told_as_too_large() {
    let app = TestApp::start(V2).await;
    let with = |groups: usize| {
        let groups: Vec<_> = (0..groups)
            .map(|n| format!("engineering-department-{n:04}@example.com"))
            .collect();
        let claims = json!({"sub": "alice", "exp": 4_000_000_000_u64, "groups": groups});
        Actor::with_claims(&app, &claims)
    };
    with(200).get("/system/info").await.ok();
    let large = with(300);
    let refused = large.get("/system/info").await;
    refused.fails(431, "headers_too_large");
    let refused = large.get("/nothing").await;
    refused.fails(404, "not_found");
}
