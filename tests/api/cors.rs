//! CORS headers for pages of other origins.

use crate::listener::socket::Socket;
use crate::support::prelude::*;

const PAGE: &str = "https://app.example.com";
const EXPOSED: &str = "x-request-id, x-has-more, x-next-cursor, x-total-count, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, www-authenticate";

async fn allowing(origins: &'static [&'static str]) -> TestApp {
    TestApp::with(V2, move |settings| {
        settings.cors.allowed_origins = origins
            .iter()
            .map(|origin| origin.parse().unwrap())
            .collect();
        settings.limits.anonymous_per_second = 20;
    })
    .await
}

async fn from_page(actor: &Actor<'_>, origin: &str, method: &str, path: &str) -> Answer {
    let request = actor.request(method, path).header("origin", origin);
    Answer::to(request).await
}

async fn preflight(app: &TestApp, origin: &str, path: &str) -> Answer {
    let anon = app.anon();
    let request = anon.request("OPTIONS", path).header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,x-trace",
        );
    Answer::to(request).await
}

#[tokio::test]
async fn without_configuration_nothing_is_sent() {
    let app = TestApp::start(V2).await;
    let answers = [
        from_page(&app.anon(), PAGE, "GET", "/health").await,
        from_page(&app.anon(), PAGE, "GET", "/config").await,
        preflight(&app, PAGE, "/config").await,
    ];
    for answer in &answers {
        for (name, _) in &answer.headers {
            let name = name.as_str();
            assert!(
                !name.starts_with("access-control-") && name != "vary",
                "{answer:#?}"
            );
        }
    }
    let [.., preflight] = answers;
    preflight.fails(405, "method_not_allowed");
}

#[tokio::test]
async fn a_preflight_tells_an_allowed_origin_what_it_may_and_for_how_long() {
    let app = allowing(&["https://other.example.com", PAGE]).await;
    for path in ["/config", "/message/send", "/health", "/nothing"] {
        let answer = preflight(&app, PAGE, path).await;
        assert_eq!((answer.status, &*answer.text), (204, ""), "{answer:#?}");
        answer.has("access-control-allow-origin", PAGE);
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization,content-type,x-trace"
        );
        answer.has("access-control-max-age", "3600");
        answer.has("access-control-allow-credentials", "");
        assert!(!answer.header("x-request-id").is_empty());
    }
    let stranger = preflight(&app, "https://evil.example.com", "/config").await;
    assert_eq!(stranger.status, 204);
    for (name, _) in &stranger.headers {
        assert!(
            !name.as_str().starts_with("access-control-"),
            "{stranger:#?}"
        );
    }
    // An OPTIONS that is no preflight is a wrong method.
    failure(405, "method_not_allowed").is(from_page(&app.anon(), PAGE, "OPTIONS", "/config").await);
}

#[tokio::test]
async fn every_answer_has_the_headers_errors_included() {
    let app = allowing(&[PAGE]).await;
    seeds::group(&app, "g", &["alice"]);
    let (alice, anon) = (app.user("alice"), app.anon());
    let mut answers = vec![
        (
            200,
            from_page(
                &alice,
                PAGE,
                "GET",
                "/message/sync?channelId=g&channelType=2",
            )
            .await,
        ),
        (200, from_page(&anon, PAGE, "GET", "/health").await),
        (400, from_page(&alice, PAGE, "GET", "/message/sync").await),
        (401, from_page(&anon, PAGE, "GET", "/config").await),
        (404, from_page(&alice, PAGE, "GET", "/nothing").await),
        (405, from_page(&alice, PAGE, "DELETE", "/config").await),
    ];
    while answers
        .last()
        .is_none_or(|(_, answer)| answer.status != 429)
    {
        let answer = from_page(&anon, PAGE, "GET", "/config").await;
        assert!(answers.len() < 100);
        answers.push((answer.status, answer));
    }
    app.always("/user/token", Fault::Status(500, "{}".into()));
    answers.push((502, from_page(&alice, PAGE, "POST", "/token").await));
    let share = app.app.byte_budget.new_reservation();
    share.force_reserve(usize::MAX / 2);
    answers.push((503, from_page(&alice, PAGE, "GET", "/config").await));
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{answer:#?}");
        answer.has("access-control-allow-origin", PAGE);
        answer.has("access-control-expose-headers", EXPOSED);
        answer.has("vary", "origin");
    }
}

#[tokio::test]
async fn other_origins_get_an_answer_they_cannot_read() {
    let app = allowing(&[PAGE]).await;
    for origin in [
        "https://evil.example.com",
        "http://app.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:8443",
        "https://APP.example.com",
        "null",
    ] {
        let answer = from_page(&app.anon(), origin, "GET", "/health").await;
        answer.has("access-control-allow-origin", "");
        answer.has("access-control-expose-headers", "");
        answer.has("vary", "origin");
        answer.ok();
    }
    let none = app.anon().get("/health").await;
    none.has("vary", "origin");
}

#[tokio::test]
async fn a_star_allows_every_origin_by_name_of_none() {
    let app = allowing(&["*"]).await;
    for answer in [
        from_page(&app.anon(), PAGE, "GET", "/health").await,
        from_page(&app.anon(), "null", "GET", "/config").await,
        app.anon().get("/nothing").await,
        preflight(&app, PAGE, "/token").await,
    ] {
        answer.has("access-control-allow-origin", "*");
        answer.has("access-control-expose-headers", EXPOSED);
    }
}

#[tokio::test]
async fn a_connection_too_many_is_refused_so_that_an_allowed_page_can_read_it() {
    const OTHER: &str = "https://other.example.com";
    const EVIL: &str = "https://evil.example.com";
    let cases: [(&[&str], _, _); 6] = [
        (&["*"], PAGE, Some("*")),
        (&[PAGE], PAGE, Some(PAGE)),
        // It is for the browser to see that it is not its page's.
        (&[PAGE], EVIL, Some(PAGE)),
        (&[OTHER, PAGE], PAGE, Some(PAGE)),
        (&[OTHER, PAGE], EVIL, None),
        (&[], PAGE, None),
    ];
    for (origins, page, told) in cases {
        let origins: Vec<_> = origins.iter().map(|one| one.parse().unwrap()).collect();
        let several = origins.len() > 1;
        let builder = TestApp::builder().config(move |settings| {
            settings.cors.allowed_origins = origins;
            settings.server.max_connections = 1;
        });
        let app = builder.start().await;
        let request =
            format!("GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\nOrigin: {page}\r\n\r\n");
        let mut first = Socket::sending(&app, &request).await;
        first.answers(200).await;
        let refused = Socket::sending(&app, &request).await.answers(503).await;
        refused.fails(503, "overloaded");
        let header = |name: &str| {
            let mut lines = refused.head.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        assert_eq!(header("access-control-allow-origin"), told, "{refused:#?}");
        let exposed = told.map(|_| EXPOSED);
        assert_eq!(header("access-control-expose-headers"), exposed);
        // Whoever says nothing is not waited for.
        let silent = Socket::to(&app).await.answers(503).await;
        silent.fails(503, "overloaded");
        let names_one = silent.head.contains("access-control-allow-origin");
        assert_eq!(names_one, told.is_some() && !several, "{silent:#?}");
    }
}
