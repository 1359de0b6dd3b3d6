//! The documentation page's files: where they are, what they say to browsers and caches. What a browser makes of them is in tests/page.

use crate::support::prelude::*;

const FILES: [(&str, &str, bool); 5] = [
    ("/docs", "text/html; charset=utf-8", false),
    ("/docs/start.js", "text/javascript; charset=utf-8", false),
    (
        "/docs/swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
        true,
    ),
    (
        "/docs/swagger-ui-bundle.js.LICENSE.txt",
        "text/plain; charset=utf-8",
        true,
    ),
    ("/docs/swagger-ui.css", "text/css; charset=utf-8", true),
];

async fn start() -> TestApp {
    TestApp::with(V2, |settings| settings.docs.enabled = true).await
}

#[tokio::test]
async fn the_page_is_served_without_a_token_and_read_only() {
    let app = start().await;
    for (path, kind, is_packed) in FILES {
        let got = app
            .anon()
            .request("GET", path)
            .header("accept-encoding", "identity");
        let got = got.send().await.unwrap();
        let headers = got.headers().clone();
        let told = |name: &str| {
            headers
                .get(name)
                .map_or("", |value| value.to_str().unwrap())
        };
        assert_eq!((got.status().as_u16(), told("content-type")), (200, kind));
        assert_eq!(
            told("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(told("x-content-type-options"), "nosniff");
        assert_eq!(told("referrer-policy"), "no-referrer");
        assert!(!told("x-request-id").is_empty());
        // To everybody, asked for or not.
        assert_eq!(
            told("content-encoding"),
            if is_packed { "gzip" } else { "" },
            "{path}"
        );
        let length = told("content-length").to_owned();
        let etag = told("etag").to_owned();
        let body = got.bytes().await.unwrap();
        assert_eq!(body.starts_with(b"\x1f\x8b"), is_packed, "{path}");
        assert_eq!(body.len().to_string(), length);

        let head = Answer::of(app.anon().request("HEAD", path).send().await.unwrap()).await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, &*length)
        );
        assert_eq!((head.header("etag"), &*head.text), (&*etag, ""));
        let answer = app.user("alice").post_nothing(path).await;
        let answer = answer.fails(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET,HEAD");
        let served = format!(
            r#"gateway_http_requests_total{{method="HEAD",route="/api/v1/im{path}",status="200"}}"#
        );
        assert_eq!(app.metric(&served), Some(1.0), "{served}");
    }
}

#[tokio::test]
async fn what_a_browser_has_is_not_sent_again() {
    let app = start().await;
    let mut seen = Vec::new();
    for (path, ..) in FILES {
        let etag = app.anon().get(path).await.header("etag").to_owned();
        assert!(etag.len() > 10 && etag.starts_with('"'), "{etag}");
        for (known, status) in [
            (&*etag, 304),
            (&*format!("\"another\" , W/{etag}"), 304),
            ("*", 304),
            ("\"another\"", 200),
            (etag.trim_matches('"'), 200),
        ] {
            let asked = app.anon();
            let asked = asked.request("GET", path).header("if-none-match", known);
            let answer = Answer::to(asked).await;
            assert_eq!(answer.status, status, "{path} {known}");
            assert_eq!(answer.text.is_empty(), status == 304, "{path} {known}");
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.header("cache-control"), "no-cache");
        }
        assert!(!seen.contains(&etag));
        seen.push(etag);
    }
}

#[tokio::test]
async fn a_slash_behind_it_leads_to_the_page_below_any_prefix() {
    let app = start().await;
    for method in ["GET", "HEAD"] {
        let asked = app.anon().request(method, "/docs/");
        let answer = Answer::to(asked).await;
        assert_eq!((answer.status, answer.header("location")), (308, "../docs"));
    }
    // What the page asks for is beside it, too: no path in it begins at the root.
    let page = app.anon().get("/docs").await.text;
    assert!(!page.contains("=\"/") && page.contains("\"docs/start.js\""));
}

#[tokio::test]
async fn nothing_else_is_below_it_and_nothing_at_all_where_it_is_turned_off() {
    let app = start().await;
    for path in ["/docs/nothing", "/docs/swagger-ui/", "/docs//start.js"] {
        app.anon().get(path).await.fails(404, "not_found");
    }
    let off = TestApp::start(V2).await;
    for (path, ..) in FILES.into_iter().chain([("/docs/", "", false)]) {
        off.anon().get(path).await.fails(404, "not_found");
        off.user("alice").get(path).await.fails(404, "not_found");
    }
}
