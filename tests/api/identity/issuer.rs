//! Keys from an issuer that comes and goes, adds keys and takes them back. Time jumps where minutes must pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;

use super::{FAR, ask_as, refused};
use crate::operations::Ops;
use crate::support::app::Builder;
use crate::support::issuer::{Issuer, time_passes};
use crate::support::keys::{ED_ONE, P256_ONE, RSA_ONE, RSA_TWO, TestKey, key_set};
use crate::support::prelude::*;

const GAP: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_mins(5);
/// How long the gateway waits for the issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How many requests wait with it.
const WAITERS: usize = 64;

fn claims() -> Value {
    json!({"sub": "a", "exp": FAR})
}

/// The published keys `one` and `two`.
fn one() -> Value {
    RSA_ONE.jwk(Some("one"))
}

fn two() -> Value {
    ED_ONE.jwk(Some("two"))
}

/// A token of the key `one` that was never seen before.
fn new_token() -> String {
    token(RSA_ONE, "one")
}

/// Another token with every call, so that none is remembered.
fn token(key: TestKey, kid: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let jti = NUMBER.fetch_add(1, Ordering::Relaxed);
    key.sign(Some(kid), &json!({"sub": "a", "exp": FAR, "jti": jti}))
}

async fn gateway(issuer: &Issuer) -> TestApp {
    gateway_to(V2, issuer).await
}

async fn gateway_to(dialect: Dialect, issuer: &Issuer) -> TestApp {
    builder(issuer).upstream(dialect).start().await
}

/// Its listener has patience: when time jumps, it jumps for the connections, too.
fn builder(issuer: &Issuer) -> Builder {
    let url = issuer.url();
    TestApp::builder().config(move |settings| {
        settings.auth.jwks_url = Some(url);
        settings.server.header_timeout = Duration::from_hours(2);
        settings.server.idle_timeout = Duration::from_hours(2);
    })
}

#[track_caller]
fn no_keys(answer: Answer) {
    let answer = answer.fails(503, "keys_unavailable");
    assert_eq!(answer.header("retry-after"), "10", "{answer:#?}");
    assert_eq!(answer.header("www-authenticate"), "", "{answer:#?}");
}

#[tokio::test]
async fn it_starts_without_keys_says_so_and_recovers() {
    let issuer = Issuer::start(&[]).await;
    issuer.is_down();
    let app = gateway(&issuer).await;
    let ops = Ops::of(&app).await;
    no_keys(ask_as(&app, &new_token()).await);
    no_keys(ask_as(&app, &RSA_ONE.sign(None, &claims())).await);
    let lacking = json!({"ready": false, "reasons": ["no signing key was ever loaded"]});
    assert_eq!(ops.ready().await, (503, lacking));
    assert_eq!(ops.get("/livez").await.0, 200);
    // The secret needs no issuer.
    ask_as(&app, &sign(&claims())).await.ok();
    assert_eq!(app.anon().get("/health").await.status, 200);

    issuer.publishes(&[one()]);
    time_passes(GAP).await;
    ask_as(&app, &new_token()).await.ok();
    assert_eq!(ops.ready().await, (200, json!({"ready": true})));
    // Ready for good: an issuer that goes down later harms nobody it has served.
    issuer.is_down();
    time_passes(REFRESH).await;
    issuer.was_asked(3).await;
    ask_as(&app, &new_token()).await.ok();
    assert_eq!(ops.ready().await, (200, json!({"ready": true})));
}

#[tokio::test]
async fn what_is_no_key_set_brings_no_keys() {
    let issuer = Issuer::start(&[]).await;
    let good = key_set(&[one()]);
    let big = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(300_000));
    for (status, body) in [
        (StatusCode::OK, String::new()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, "{\"keys\":[]}".to_owned()),
        (StatusCode::OK, big),
        (StatusCode::NOT_FOUND, good.clone()),
        (StatusCode::FOUND, good),
    ] {
        issuer.answers(status, body);
        let app = gateway(&issuer).await;
        no_keys(ask_as(&app, &new_token()).await);
    }
}

#[tokio::test]
async fn keys_change_under_traffic_and_no_good_token_is_refused() {
    for dialect in [V2, V3] {
        let issuer = Issuer::start(&[one()]).await;
        let app = gateway_to(dialect, &issuer).await;
        let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        // Which key signs new tokens now.
        let current = AtomicUsize::new(0);
        let signers = [(RSA_ONE, "one"), (ED_ONE, "two"), (P256_ONE, "three")];
        let traffic = async || {
            let remembered = new_token();
            while !stop.load(Ordering::SeqCst) {
                let (key, kid) = signers[current.load(Ordering::SeqCst)];
                ask_as(&app, &token(key, kid)).await.ok();
                ask_as(&app, &remembered).await.ok();
                served.fetch_add(1, Ordering::SeqCst);
            }
        };
        let more = async || {
            let target = served.load(Ordering::SeqCst) + 20;
            while served.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let changes = async {
            more().await;
            // Signs with the new key the moment it is published: the first one to come makes the gateway ask.
            time_passes(GAP).await;
            issuer.publishes(&[one(), two()]);
            current.store(1, Ordering::SeqCst);
            more().await;
            assert_eq!(issuer.asked(), 2);
            // And once more, ten seconds later.
            issuer.publishes(&[one(), two(), P256_ONE.jwk(Some("three"))]);
            current.store(2, Ordering::SeqCst);
            time_passes(GAP).await;
            more().await;
            assert_eq!(issuer.asked(), 3);
            stop.store(true, Ordering::SeqCst);
        };
        tokio::join!(traffic(), traffic(), traffic(), traffic(), changes);
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_for_an_hour_logs_no_user_out() {
    let issuer = Issuer::start(&[one()]).await;
    let app = gateway(&issuer).await;
    let remembered = new_token();
    ask_as(&app, &remembered).await.ok();
    issuer.is_down();
    for _ in 0..12 {
        let asked = issuer.asked();
        time_passes(REFRESH).await;
        issuer.was_asked(asked + 1).await;
        ask_as(&app, &remembered).await.ok();
        ask_as(&app, &new_token()).await.ok();
        // Perhaps a key of now, perhaps nobody's: no reason to log in again.
        no_keys(ask_as(&app, &token(ED_ONE, "two")).await);
        refused(ask_as(&app, &token(RSA_TWO, "one")).await, "token_invalid");
    }
    issuer.publishes(&[one(), two()]);
    time_passes(GAP).await;
    ask_as(&app, &token(ED_ONE, "two")).await.ok();
}

#[tokio::test]
async fn a_removed_key_is_refused_within_five_minutes_even_where_it_was_remembered() {
    let issuer = Issuer::start(&[one(), two()]).await;
    let app = gateway(&issuer).await;
    let remembered = new_token();
    ask_as(&app, &remembered).await.ok();
    issuer.publishes(&[two()]);
    time_passes(REFRESH).await;
    issuer.was_asked(2).await;
    // Whoever comes first may still meet the answer on its way.
    ask_as(&app, &token(ED_ONE, "two")).await.ok();
    while ask_as(&app, &new_token()).await.status == 200 {}
    refused(ask_as(&app, &remembered).await, "token_invalid");
    refused(ask_as(&app, &new_token()).await, "token_invalid");
    ask_as(&app, &token(ED_ONE, "two")).await.ok();
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_fetch_in_ten_seconds() {
    let issuer = Issuer::start(&[one()]).await;
    let app = gateway(&issuer).await;
    ask_as(&app, &new_token()).await.ok();
    for fetches in 2..5 {
        time_passes(GAP).await;
        let strangers = (0..50).map(|number| {
            let kid = format!("strange-{fetches}-{number}");
            let token = token(ED_ONE, &kid);
            let app = &app;
            async move { refused(ask_as(app, &token).await, "token_invalid") }
        });
        futures_util::future::join_all(strangers).await;
        assert_eq!(issuer.asked(), fetches);
        ask_as(&app, &new_token()).await.ok();
    }
}

#[tokio::test]
async fn all_requests_with_a_new_key_wait_for_one_fetch() {
    let issuer = Issuer::start(&[one()]).await;
    let app = gateway(&issuer).await;
    ask_as(&app, &new_token()).await.ok();
    time_passes(GAP).await;
    issuer.publishes(&[one(), two()]);
    issuer.takes(Duration::from_millis(300));
    let first = (0..20).map(|_| ask_as_new(&app));
    let known = async {
        // Nobody else waits for it.
        issuer.was_asked(2).await;
        ask_as(&app, &new_token()).await.ok();
    };
    tokio::join!(futures_util::future::join_all(first), known);
    assert_eq!(issuer.asked(), 2);
}

async fn ask_as_new(app: &TestApp) {
    ask_as(app, &token(ED_ONE, "two")).await.ok();
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cancel_the_fetch() {
    let issuer = Issuer::start(&[one()]).await;
    let app = gateway(&issuer).await;
    ask_as(&app, &new_token()).await.ok();
    time_passes(GAP).await;
    issuer.publishes(&[two()]);
    issuer.takes(Duration::from_millis(300));
    let impatient = async {
        tokio::select! {
            () = ask_as_new(&app) => panic!("answered before the keys came"),
            () = issuer.was_asked(2) => {}
        }
    };
    impatient.await;
    ask_as_new(&app).await;
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn requests_waiting_for_a_hanging_issuer_are_bounded() {
    let issuer = Issuer::start(&[one()]).await;
    let builder = builder(&issuer).config(|settings| settings.server.max_in_flight = 65);
    let app = builder.start().await;
    ask_as(&app, &new_token()).await.ok();
    time_passes(GAP).await;
    issuer.takes(Duration::from_hours(1));
    let strange = async || no_keys(ask_as(&app, &token(ED_ONE, "strange")).await);
    let others = async {
        until(|| app.app.requests_in_flight() == WAITERS).await;
        for _ in 0..3 {
            strange().await;
            ask_as(&app, &new_token()).await.ok();
        }
        assert_eq!(app.app.requests_in_flight(), WAITERS);
        time_passes(FETCH_TIMEOUT).await;
    };
    let waiting = futures_util::future::join_all((0..WAITERS).map(|_| strange()));
    tokio::join!(waiting, others);
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn a_hanging_issuer_is_reported_before_the_deadline() {
    let issuer = Issuer::start(&[]).await;
    issuer.takes(Duration::from_hours(1));
    let builder = builder(&issuer)
        .config(|settings| settings.server.request_timeout = Duration::from_millis(400));
    let app = builder.start().await;
    let token = new_token();
    no_keys(ask_as(&app, &token).await);
    let mut nowhere = app.anon().request("GET", "/nothing");
    nowhere = nowhere.bearer_auth(token);
    failure(404, "not_found").is(Answer::to(nowhere).await);
}
