//! What the hot pieces cost by themselves, in CPU time of the measuring thread: `cargo bench --bench pieces`.
//!
//! CPU time and not the clock's, so that a busy machine changes the figures little.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion};
use http::Request;
use rustix::time::{ClockId, clock_gettime};
use tower::ServiceExt as _;
use wukongim_gateway::auth::{Precheck, Verifier};
use wukongim_gateway::cli;
use wukongim_gateway::config::Settings;
use wukongim_gateway::domain::{Channel, ChannelId, ChannelType, ClientMsgNo, Payload, Uid};
use wukongim_gateway::gateway::Framed;
use wukongim_gateway::http::envelope::Envelope;
use wukongim_gateway::http::extract::{Field, Fields, FromFields, FromJson};
use wukongim_gateway::limits::{Limits, Time};
use wukongim_gateway::state::App;
use wukongim_gateway::store::Store;
use wukongim_gateway::telemetry::Metrics;
use wukongim_gateway::wukongim::Page;

#[path = "../tests/support/keys/mod.rs"]
mod keys;

/// This thread's CPU time in nanoseconds.
struct ThreadCpu;

static NANOSECONDS: WallTime = WallTime;

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let time = Duration::try_from(time).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Measurement for ThreadCpu {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        cpu_ns()
    }

    fn end(&self, start: u64) -> u64 {
        cpu_ns() - start
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        NANOSECONDS.formatter()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = "a-secret-for-the-benchmark-and-nothing-else".to_owned();
    let settings = Settings::builtin(&secret.into()).map_err(|_| "the defaults are bad")?;
    let token = cli::token(&settings.auth, "u000", false, Duration::from_hours(1))?;
    let mut criterion = Criterion::default()
        .with_measurement(ThreadCpu)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();

    tokens(&mut criterion, &settings, &token)?;
    remembered_token(&mut criterion, &settings)?;
    limits(&mut criterion, &settings)?;
    values(&mut criterion);
    bodies(&mut criterion, &settings)?;
    requests(&mut criterion, &settings, &token)?;
    criterion.final_summary();
    Ok(())
}

fn tokens(
    criterion: &mut Criterion<ThreadCpu>,
    settings: &Settings,
    token: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Arc::new(Metrics::new());
    let verifier = Verifier::new(&settings.auth, settings.limits.id_bytes, metrics)?;
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    criterion.bench_function("token/hs256 cached", |bencher| {
        bencher.iter(|| verifier.precheck(black_box(token)).is_ok());
    });
    criterion.bench_function("token/hs256 forged", |bencher| {
        bencher.iter(|| verifier.precheck(black_box(&forged)).is_ok());
    });
    Ok(())
}

/// An asymmetric token whose signature was checked before.
fn remembered_token(
    criterion: &mut Criterion<ThreadCpu>,
    settings: &Settings,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut auth = settings.auth.clone();
    auth.jwt_public_keys = vec![keys::RSA_ONE.public_file()];
    let claims = serde_json::json!({"sub": "u000", "exp": 4_102_444_800_u64});
    let token = keys::RSA_ONE.sign(Some("one"), &claims);
    let metrics = Arc::new(Metrics::new());
    let verifier = Verifier::new(&auth, settings.limits.id_bytes, metrics)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    if let Ok(Precheck::Unverified(token)) = verifier.precheck(&token) {
        runtime.block_on(verifier.finish(token, tokio::time::Instant::now()))?;
    }
    let known = |token: &str| matches!(verifier.precheck(token), Ok(Precheck::Known(_)));
    assert!(known(&token), "it is remembered");
    criterion.bench_function("token/rs256 cached", |bencher| {
        bencher.iter(|| known(black_box(&token)));
    });
    Ok(())
}

/// One user among many, who never has nothing left.
fn limits(
    criterion: &mut Criterion<ThreadCpu>,
    settings: &Settings,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = settings.clone();
    settings.limits.requests_per_second = 1_000_000_000;
    settings.limits.burst = 1_000_000_000;
    let limits = Limits::new(&settings, &Time::running(), &Metrics::default());
    for number in 0..10_000 {
        let other = Uid::parse(&format!("user-{number}"), 128).map_err(|_| "a uid")?;
        limits.charge_user(&other).map_err(|_| "too much")?;
    }
    let uid = Uid::parse("user-0123456789", 128).map_err(|_| "a uid")?;
    criterion.bench_function("limiter/one user's call", |bencher| {
        bencher.iter(|| limits.charge_user(black_box(&uid)).is_ok());
    });
    Ok(())
}

fn values(criterion: &mut Criterion<ThreadCpu>) {
    let small = "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==";
    let large = format!("{}YQ==", "YWFh".repeat(16 * 1024));
    criterion.bench_function("id/uid", |bencher| {
        bencher.iter(|| Uid::parse(black_box("user-0123456789"), 128).is_ok());
    });
    criterion.bench_function("id/new clientMsgNo", |bencher| {
        bencher.iter(ClientMsgNo::generate);
    });
    criterion.bench_function("payload/small", |bencher| {
        bencher.iter(|| Payload::parse(black_box(small), 65_536).is_ok());
    });
    criterion.bench_function("payload/48 KiB", |bencher| {
        bencher.iter(|| Payload::parse(black_box(&large), 65_536).is_ok());
    });
    criterion.bench_function("envelope/success", |bencher| {
        let data = serde_json::json!({"messageId": "2124961498668208128", "messageSeq": 1});
        bencher.iter(|| Envelope(black_box(&data)).into_response());
    });
}

/// The fields of a message to send.
#[expect(dead_code, reason = "only parsing is measured")]
struct SendRequest(Channel, Payload, Option<ClientMsgNo>, Option<Uid>);

impl FromFields for SendRequest {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let id = ChannelId::read(fields, "channelId");
        let channel_type = ChannelType::read(fields, "channelType");
        let payload = Payload::read(fields, "payload");
        let client_msg_no = Option::read(fields, "clientMsgNo");
        let from_uid = Option::read(fields, "fromUid");
        let channel = Channel::new(channel_type?, id?);
        Some(Self(channel, payload?, client_msg_no?, from_uid?))
    }
}

/// What clients and WuKongIM write: a message to send, and a page of 50.
fn bodies(
    criterion: &mut Criterion<ThreadCpu>,
    settings: &Settings,
) -> Result<(), Box<dyn std::error::Error>> {
    let send = br#"{"channelId":"peer","channelType":1,"payload":"eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==","clientMsgNo":"r-00000001"}"#;
    let read = |body: &[u8]| SendRequest::from_json(Some(body), &settings.limits);
    assert!(read(send).is_ok(), "it is one");
    criterion.bench_function("body/send", |bencher| {
        bencher.iter(|| read(black_box(send)));
    });

    let message = |seq: u64| {
        let id = 2_124_846_632_913_506_304 + seq;
        format!(
            r#"{{"header":{{"no_persist":0,"red_dot":1,"sync_once":0}},"setting":0,"message_id":{id},"message_idstr":"{id}","client_msg_no":"r-{seq:08}","message_seq":{seq},"from_uid":"peer","channel_id":"peer","channel_type":1,"expire":0,"timestamp":1795437889,"payload":"eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="}}"#
        )
    };
    let messages: Vec<String> = (1..=50).map(message).collect();
    let page = format!(
        r#"{{"start_message_seq":1,"end_message_seq":0,"more":1,"messages":[{}]}}"#,
        messages.join(",")
    );
    let page = Bytes::from(page);
    let reader = Uid::parse("u000", 128).map_err(|_| "a uid")?;
    let peer = Channel::Person(Uid::parse("peer", 128).map_err(|_| "a uid")?);
    let count = |page: &Bytes| Page::read(page, &reader, &peer).map(|page| page.messages.len());
    assert_eq!(count(&page), Ok(50));
    criterion.bench_function("body/page of 50", |bencher| {
        bencher.iter(|| count(black_box(&page)));
    });
    Ok(())
}

/// Whole requests through the router, without a socket and without WuKongIM.
fn requests(
    criterion: &mut Criterion<ThreadCpu>,
    settings: &Settings,
    token: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut settings = settings.clone();
    // Nothing is refused for being too much: each case is to be measured, not 429.
    settings.limits.requests_per_second = 1_000_000;
    settings.limits.burst = 1_000_000;
    settings.limits.anonymous_per_second = 1_000_000;
    // Both set, so that /config makes no call.
    settings.public.ws_url = Some("ws://127.0.0.1:5200".parse().map_err(|_| "an address")?);
    settings.public.tcp_addr = Some("127.0.0.1:5100".parse().map_err(|_| "an address")?);
    let store = runtime.block_on(Store::open("sqlite::memory:", 1, Duration::from_secs(2)))?;
    let app = runtime.block_on(async { App::new(settings, Arc::new(store)) })?;
    let service = Framed::api(&app);

    let request = |method: &str, path: &str, token: Option<&str>, body: &'static str| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        request.body(Body::from(body)).unwrap_or_default()
    };
    let send = "/api/v1/im/message/send";
    let bad =
        r#"{"channelId":"peer","channelType":1,"payload":"no base64!","clientMsgNo":"r-00000001"}"#;
    let cases = [
        ("request/401", "POST", send, None, bad, 401),
        ("request/400", "POST", send, Some(token), bad, 400),
        (
            "request/config",
            "GET",
            "/api/v1/im/config",
            Some(token),
            "",
            200,
        ),
        ("request/404", "GET", "/api/v1/im/nothing", None, "", 404),
    ];
    for (name, method, path, token, body, status) in cases {
        let answer =
            runtime.block_on(service.clone().oneshot(request(method, path, token, body)))?;
        assert_eq!(answer.status(), status, "{name}");
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (service.clone(), request(method, path, token, body)),
                |(service, request)| runtime.block_on(service.oneshot(request)),
                BatchSize::SmallInput,
            );
        });
    }
    Ok(())
}
