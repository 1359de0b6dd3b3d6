//! A "no", and everything that is no answer: never a "yes".

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::{asking, do_everything, start, start_with};
use crate::support::prelude::*;

/// Asserts that every call fails so, and that nothing was written upstream or told about why.
async fn all_fail(app: &TestApp, status: u16, code: &str, what: &str) {
    app.clear_calls();
    for (name, answer) in do_everything(app).await {
        let text = answer.text.clone();
        assert_eq!(answer.status, status, "{what}, {name}: {text}");
        let answer = answer.fails(status, code);
        assert_eq!(answer.header("retry-after") == "1", status == 503, "{name}");
        assert!(!text.contains("marked"), "{what}, {name}: {text}");
    }
    app.nothing_was_written();
    assert!(app.calls_to("/channel/messagesync").is_empty(), "{what}");
}

#[tokio::test]
async fn a_refusal_is_forbidden_and_its_reason_stays_inside() {
    for dialect in [V2, V3] {
        let (backend, app) = asking(dialect).await;
        let no = r#"{"allow":false,"reason":"marked\r\nreason"}"#;
        backend.answers(move |_| Reply::Body(200, no.into()));
        all_fail(&app, 403, "forbidden", "refused").await;
    }
}

#[tokio::test]
async fn whatever_is_no_answer_is_503_and_never_a_yes() {
    let elsewhere = Backend::start().await;
    let yes = || r#"{"allow":true}"#.to_owned();
    let replies = [
        ("500", Reply::Body(500, yes())),
        ("403", Reply::Body(403, yes())),
        ("404", Reply::Body(404, yes())),
        ("201", Reply::Body(201, yes())),
        ("206", Reply::Body(206, yes())),
        ("redirect", Reply::Redirect(elsewhere.url.clone())),
        ("nothing", Reply::Body(200, String::new())),
        ("204", Reply::Body(204, String::new())),
        ("text", Reply::Body(200, "true marked".into())),
        ("array", Reply::Body(200, "[true,null]".into())),
        ("other type", Reply::Body(200, r#"{"allow":"true"}"#.into())),
        ("number", Reply::Body(200, r#"{"allow":1}"#.into())),
        ("other key", Reply::Body(200, r#"{"allowed":true}"#.into())),
        (
            "both",
            Reply::Body(200, r#"{"allow":true,"allow":true}"#.into()),
        ),
        ("cut", Reply::Body(200, r#"{"allow":true"#.into())),
        ("two", Reply::Body(200, yes() + &yes())),
        ("endless", Reply::Endless),
    ];
    let (backend, app) = asking(V2).await;
    for (what, reply) in replies {
        backend.answers(move |_| reply.clone());
        all_fail(&app, 503, "upstream_unavailable", what).await;
    }
    assert_eq!(elsewhere.count(), 0, "redirects are not followed");
    // And not remembered either.
    backend.answers(|_| Reply::allow(true));
    app.user("alice").send_to_group("g", "x").await.ok();
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up_on() {
    let backend = Backend::start().await;
    let app = start_with(V2, &backend, |settings| {
        settings.authorization.callback_timeout = Duration::from_millis(300);
    });
    let app = app.await;
    backend.answers(|_| Reply::Hang);
    all_fail(&app, 503, "upstream_unavailable", "hangs").await;
}

#[tokio::test]
async fn a_backend_that_is_not_there_or_hangs_up_is_no_yes() {
    let backend = Backend::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hangs_up = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0; 16];
            let _ = stream.read(&mut some).await;
        }
    });
    let app = start(V2, &backend).await;
    let other = TestApp::builder().config(backend.decides());
    let other = other.config(move |settings| {
        settings.authorization.callback_url = Some(url.parse().unwrap());
    });
    let store = app.store.clone();
    let app = other.store(store).start_on(app.upstream).await;
    all_fail(&app, 503, "upstream_unavailable", "hangs up").await;
    hangs_up.abort();
    let _ = hangs_up.await;
    all_fail(&app, 503, "upstream_unavailable", "nobody there").await;
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_closes_costs_no_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        // Answers one question on each connection and closes it when the next one has come.
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut question = [0; 4096];
                let _ = stream.read(&mut question).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"allow\":true}";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
                let _ = stream.read(&mut question).await;
            });
        }
    });
    let backend = Backend::start().await;
    let app = start_with(V2, &backend, move |settings| {
        settings.authorization.callback_url = Some(url.parse().unwrap());
        settings.authorization.cache_ttl = Duration::ZERO;
    });
    let app = app.await;
    for _ in 0..4 {
        app.user("alice").send_to_group("g", "x").await.ok();
    }
}
