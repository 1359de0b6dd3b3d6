//! The files of the chat's page: that they are served only where `--embedded` says so, and what they say to browsers and caches. What a
//! browser makes of them is in tests/page; that `--embedded` alone turns them on in tests/serve.

use crate::support::answer::Answer;
use crate::support::{TestApp, V2};

const FILES: [(&str, &str); 4] = [
    ("/chat", "text/html; charset=utf-8"),
    ("/chat/chat.js", "text/javascript; charset=utf-8"),
    ("/chat/socket.js", "text/javascript; charset=utf-8"),
    ("/chat/chat.css", "text/css; charset=utf-8"),
];

async fn start() -> TestApp {
    TestApp::with(V2, |settings| settings.has_chat_page = true).await
}

#[tokio::test]
async fn the_page_is_served_without_a_token_under_a_strict_policy() {
    let app = start().await;
    for (path, kind) in FILES {
        let got = app.anon().get(path).await;
        assert_eq!((got.status, got.header("content-type")), (200, kind));
        assert_eq!(
            got.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        assert_eq!(got.header("referrer-policy"), "no-referrer");
        assert_eq!(got.header("cache-control"), "no-cache");
        assert!(!got.header("x-request-id").is_empty());

        let etag = got.header("etag").to_owned();
        let again = app
            .anon()
            .request("GET", path)
            .header("if-none-match", &etag);
        let again = Answer::to(again).await;
        assert_eq!((again.status, &*again.text), (304, ""), "{path}");
        let posted = app.user("alice").post_nothing(path).await;
        let posted = posted.fails(405, "method_not_allowed");
        assert_eq!(posted.header("allow"), "GET,HEAD");
        let served = format!(
            r#"gateway_http_requests_total{{method="GET",route="/api/v1/im{path}",status="200"}}"#
        );
        assert_eq!(app.metric(&served), Some(1.0), "{served}");
    }
}

#[tokio::test]
async fn the_page_names_nothing_that_is_not_beside_it() {
    let app = start().await;
    let page = app.anon().get("/chat").await.text;
    // Without a path from the root, so that it works below any prefix of a proxy, and without a line of script or style of its own.
    assert!(!page.contains("=\"/") && !page.contains("://"), "{page}");
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains(" on"));
    for (path, _) in &FILES[2..] {
        let name = path.rsplit('/').next().unwrap();
        let named = [page.clone(), app.anon().get("/chat/chat.js").await.text].concat();
        assert!(named.contains(name), "{name}");
    }
    for script in ["/chat/chat.js", "/chat/socket.js"] {
        let script = app.anon().get(script).await.text;
        for forbidden in [
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "://",
        ] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
    }
}

#[tokio::test]
async fn nothing_else_is_below_it_and_nothing_at_all_without_embedded() {
    let app = start().await;
    for path in ["/chat/", "/chat/nothing", "/chat/index.html"] {
        app.anon().get(path).await.fails(404, "not_found");
    }
    let real = TestApp::with(V2, |settings| settings.docs.enabled = true).await;
    for (path, _) in FILES {
        real.anon().get(path).await.fails(404, "not_found");
        real.user("alice").get(path).await.fails(404, "not_found");
    }
}
