//! A request's trace context is propagated to WuKongIM with every call of the request.

use dev_upstream::Call;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::envelope::endpoints::all;
use crate::support::{TestApp, V2, V3};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn told(call: &Call) -> (Option<&str>, Option<&str>) {
    (call.traceparent.as_deref(), call.tracestate.as_deref())
}

#[tokio::test]
async fn every_call_a_request_makes_carries_its_trace() {
    let apps = [
        TestApp::start(V2).await,
        TestApp::start(V3).await,
        // Memberships of v3 come from another port.
        TestApp::builder().upstream(V3).manager_port().start().await,
    ];
    for app in apps {
        app.group("g", "alice", &[]).await;
        for endpoint in all() {
            app.clear_calls();
            let request = endpoint.request(&app.user("alice"));
            let request = request.header("traceparent", PARENT);
            request.header("tracestate", "a=1").send().await.unwrap();
            for call in app.upstream.calls() {
                let both = (Some(PARENT), Some("a=1"));
                assert_eq!(told(&call), both, "{}: {call:?}", endpoint.path);
            }
        }
        // A send outlives its request, and its confirmation serves others too: both are tasks of their own.
        app.group("h", "alice", &[]).await;
        let send = app.user("alice").request("POST", "/message/send");
        let send = send
            .header("content-type", "application/json")
            .header("traceparent", PARENT)
            .body(r#"{"channelId":"h","channelType":2,"payload":"aGk="}"#);
        assert_eq!(send.send().await.unwrap().status(), 200);
        let calls = app.upstream.calls();
        assert!(calls.iter().any(|call| call.path == "/message/send"));
        for call in calls {
            assert_eq!(told(&call), (Some(PARENT), None), "{call:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_trace_is_not_passed_on_and_the_request_is_served() {
    let app = TestApp::start(V2).await;
    let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let cases: [&[(&str, &[u8])]; 6] = [
        &[],
        &[("tracestate", b"a=1")],
        &[("traceparent", b"nonsense"), ("tracestate", b"a=1")],
        &[("traceparent", zeros.as_bytes())],
        &[("traceparent", b"\xff\xfe")],
        &[("traceparent", PARENT.as_bytes()); 2],
    ];
    for headers in cases {
        app.clear_calls();
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            given.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let request = app.user("alice").request("POST", "/token").headers(given);
        assert_eq!(request.send().await.unwrap().status(), 200);
        let calls = app.calls_to("/user/token");
        assert_eq!(calls.len(), 1);
        assert_eq!(told(&calls[0]), (None, None), "{headers:?}");
    }
}

#[tokio::test]
async fn a_long_state_is_cut_to_512_bytes() {
    let app = TestApp::start(V2).await;
    let member = |key: &str| format!("{key}={}", "v".repeat(253));
    let request = app.user("alice").request("POST", "/token");
    let request = request
        .header("traceparent", PARENT)
        .header("tracestate", member("a"))
        .header("tracestate", member("b"))
        .header("tracestate", member("c"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let calls = app.calls_to("/user/token");
    let two = format!("{},{}", member("a"), member("b"));
    assert_eq!(told(&calls[0]), (Some(PARENT), Some(&*two)));
}
