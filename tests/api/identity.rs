//! Authentication: a table of JWTs, and that refused requests cause no upstream call.

mod configured;
mod forged;
mod issuer;
mod public_keys;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use crate::support::actors::FAR;
use crate::support::messages::with;
use crate::support::prelude::*;
use crate::support::served::SECRET;

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
    for app in TestApp::both().await {
        for claims in [
            json!({"sub": "a", "exp": from_now(-3600)}),
            json!({"sub": "a", "exp": 0}),
            json!({"sub": "a", "exp": -1}),
        ] {
            println!("{claims}");
            refused(ask_as(&app, &sign(&claims)).await, "token_expired");
        }
        for claims in [
            json!({"sub": "a"}),
            json!({"sub": "a", "exp": null}),
            json!({"sub": "a", "exp": FAR.to_string()}),
            json!({"sub": "a", "exp": true}),
            // Milliseconds.
            json!({"sub": "a", "exp": FAR * 1000}),
            json!({"sub": "a", "exp": FAR, "nbf": from_now(3600)}),
            json!({"sub": "a", "exp": FAR, "nbf": "0"}),
            json!({"exp": FAR}),
            json!({"sub": "", "exp": FAR}),
            json!({"sub": 7, "exp": FAR}),
            json!({"sub": null, "exp": FAR}),
            json!({"sub": ["a"], "exp": FAR}),
            // `sub` counts where it is there, however bad it is.
            json!({"sub": "", "userId": "b", "exp": FAR}),
            json!({"sub": 7, "userId": "b", "exp": FAR}),
            json!({"userId": "b@c", "exp": FAR}),
            json!({"userId": 12, "exp": FAR}),
            // Expired and wrong: refreshing would not help.
            json!({"sub": "", "exp": 5}),
        ] {
            println!("{claims}");
            refused(ask_as(&app, &sign(&claims)).await, "token_invalid");
        }
        assert_eq!(app.upstream.calls().len(), 0);
    }
}

#[tokio::test]
async fn a_uid_that_is_none_is_401_and_never_reaches_upstream() {
    let app = TestApp::start(V2).await;
    let too_long = "a".repeat(129);
    let kills_a_node = "a".repeat(8_000);
    let no_letters = [" ", "a b", "a@b", "a#b", "a&b", "a/b", "a\\b", "a?b", "a%b"];
    let no_text = [
        "a\u{0}b",
        "a\nb",
        ".",
        "..",
        "\u{a0}",
        &too_long,
        &kills_a_node,
    ];
    let wukongims_own = ["____system", "____manager", "a____cmd", "a___vstr"];
    for uid in [&no_letters[..], &no_text, &wukongims_own].concat() {
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
async fn the_header_is_read_with_any_case_of_its_scheme_and_only_once() {
    let app = TestApp::start(V2).await;
    let token = sign(&json!({"sub": "a", "exp": FAR}));
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        ask(&app, &[&format!("{scheme} {token}")]).await.ok();
    }
    ask(&app, &[&format!("Bearer   {token}")]).await.ok();
    app.clear_calls();
    let bearer = format!("Bearer {token}");
    let tab = format!("Bearer\u{0009}{token}");
    for missing in ["", "Bearer", "Basic YTpi", &token, "Token x", &tab] {
        println!("{missing}");
        refused(ask(&app, &[missing]).await, "token_missing");
    }
    refused(ask(&app, &[]).await, "token_missing");
    for twice in [[&*bearer, &*bearer], ["Basic YTpi", &bearer], [&bearer, ""]] {
        refused(ask(&app, &twice).await, "token_invalid");
    }
    // Nowhere else is a token looked for.
    let path = format!("/config?access_token={token}&token={token}");
    refused(app.anon().get(&path).await, "token_missing");
    let request = app.anon().request("GET", "/config");
    let request = request.header("cookie", format!("token={token}"));
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
        let claims = with(json!({"sub": "mallory", "exp": FAR}), &extra);
        let mallory = Actor::with_claims(&app, &claims);
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
    for app in TestApp::both().await {
        let mallory = app.user("mallory");
        let path = "/config?uid=alice&userId=alice&sub=alice";
        let told = mallory.get(path).await;
        assert_eq!(told.ok()["uid"], "mallory");
        let body = json!({"uid": "alice", "userId": "alice", "deviceFlag": 1});
        let told = mallory.post("/token", &body).await.ok();
        assert_eq!(told["uid"], "mallory");
        for call in app.upstream.calls() {
            assert!(
                !format!("{} {}", call.path, call.body).contains("alice"),
                "{call:?}"
            );
        }
        assert_eq!(app.state().token_of("alice", 1), None);
    }
}

#[tokio::test]
async fn a_token_with_two_hundred_groups_is_read_and_a_larger_one_is_told_as_too_large() {
    let app = TestApp::start(V2).await;
    let in_groups = |groups: usize| {
        let name = |n| format!("engineering-department-{n:04}@example.com");
        let groups: Vec<_> = (0..groups).map(name).collect();
        let claims = json!({"sub": "alice", "exp": FAR, "groups": groups});
        Actor::with_claims(&app, &claims)
    };
    in_groups(200).get("/system/info").await.ok();
    let large = in_groups(300);
    failure(431, "headers_too_large").is(large.get("/system/info").await);
    failure(404, "not_found").is(large.get("/nothing").await);
}
