//! Bodies as a whole: size, content type, encoding.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;

use super::{message, names, untouched};
use crate::envelope::endpoints::all;
use crate::support::prelude::*;

/// The endpoints that take a body.
fn posts() -> Vec<&'static str> {
    let endpoints = all().into_iter();
    let posts = endpoints.filter(|endpoint| endpoint.method == "POST");
    posts.map(|endpoint| endpoint.path).collect()
}

async fn post(app: &TestApp, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = app.user("alice").request("POST", path).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    Answer::to(request).await
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_on_every_path() {
    let app = TestApp::start(V2).await;
    for path in posts() {
        for size in [1024 * 1024 + 1, 2 * 1024 * 1024] {
            let answer = post(&app, path, Some("application/json"), vec![b' '; size]).await;
            answer.fails(413, "payload_too_large");
        }
        // Chunked: the size is not announced.
        let chunk = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b' '; 400_000])));
        let chunks = futures_util::stream::iter((0..3).map(move |_| chunk()));
        let request = app.user("alice").posting(path, "");
        let request = request.body(reqwest::Body::wrap(StreamBody::new(chunks)));
        Answer::to(request).await.fails(413, "payload_too_large");
    }
    untouched(&app);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read() {
    let app = TestApp::with(V2, |settings| settings.server.body_limit = 1000).await;
    let alice = app.user("alice");
    let mut body = message("clientMsgNo", json!("n")).to_string();
    body.extend(std::iter::repeat_n(' ', 1000 - body.len()));
    alice.post_text("/message/send", body.clone()).await.ok();
    body.push(' ');
    failure(413, "payload_too_large").is(alice.post_text("/message/send", body).await);
}

#[tokio::test]
async fn a_body_that_is_not_called_json_is_415_on_every_path() {
    let app = TestApp::start(V2).await;
    for path in posts() {
        for content_type in [
            None,
            Some(""),
            Some("text/plain"),
            Some("text/json"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data; boundary=x"),
            Some("application/jsonp"),
            Some("application/xml"),
            Some("application/octet-stream"),
            Some("text/plain; application/json"),
        ] {
            let body = message("clientMsgNo", json!("n")).to_string();
            let answer = post(&app, path, content_type, body.into_bytes()).await;
            assert_eq!(answer.status, 415, "{path} {content_type:?}");
            answer.fails(415, "unsupported_media_type");
        }
    }
    untouched(&app);
}

#[tokio::test]
async fn every_spelling_of_json_is_taken() {
    for app in TestApp::both().await {
        for content_type in [
            "application/json",
            "APPLICATION/JSON",
            "application/json;charset=UTF-8",
            "Application/JSON ; charset=\"UTF-8\"",
        ] {
            let body = message("clientMsgNo", json!(content_type)).to_string();
            post(&app, "/message/send", Some(content_type), body.into_bytes())
                .await
                .ok();
        }
    }
}

#[tokio::test]
async fn an_empty_body_is_no_body_whatever_it_is_called() {
    for app in TestApp::both().await {
        for content_type in [
            None,
            Some("application/json"),
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let token = post(&app, "/token", content_type, Vec::new()).await.ok();
            assert_eq!(token["deviceFlag"], 1, "{content_type:?}");
            app.clear_calls();
            let answer = post(&app, "/message/send", content_type, Vec::new()).await;
            names(answer, &["channelId", "channelType", "payload"]);
            let answer = post(&app, "/message/sendbatch", content_type, Vec::new()).await;
            names(answer, &["body"]);
            for path in posts()
                .into_iter()
                .filter(|path| !path.starts_with("/token"))
            {
                let answer = post(&app, path, content_type, Vec::new()).await;
                answer.fails(400, "invalid_request");
            }
            untouched(&app);
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_utf_8_is_refused() {
    let app = TestApp::start(V2).await;
    let good = message("clientMsgNo", json!("n")).to_string();
    let known = good.replace("bob", "b?b");
    let unknown = good.replacen('{', r#"{"other":"?","#, 1);
    let name = good.replacen('{', r#"{"?":1,"#, 1);
    let says = |answer: Answer| {
        let said = answer.body["details"][0]["message"].clone();
        names(answer, &["body"]);
        assert_eq!(said, "必须是UTF-8文本");
    };
    for text in [known, unknown, name] {
        for broken in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
            let at = text.find('?').expect("a place");
            let mut body = text.clone().into_bytes();
            body.splice(at..=at, broken.iter().copied());
            let batch = [b"[", &body[..], b"]"].concat();
            says(post(&app, "/message/send", Some("application/json"), body).await);
            says(post(&app, "/message/sendbatch", Some("application/json"), batch).await);
        }
    }
    for path in posts() {
        let body = b"\"\xff\"".to_vec();
        says(post(&app, path, Some("application/json"), body).await);
    }
    let utf16 = |mark: &str| -> Vec<u8> {
        let text = format!("{mark}{good}");
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    for body in [utf16(""), utf16("\u{feff}")] {
        let kind = Some("application/json; charset=utf-16");
        says(post(&app, "/message/send", kind, body).await);
    }
    untouched(&app);
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    for app in TestApp::both().await {
        let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
        let json = Some("application/json");
        let body = message("clientMsgNo", json!("n-00000001")).to_string();
        post(&app, "/message/send", json, marked(&body)).await.ok();
        let batch = format!("[{}]", message("clientMsgNo", json!("n-00000002")));
        let answer = post(&app, "/message/sendbatch", json, marked(&batch)).await;
        answer.ok();
        let token = post(&app, "/token", None, marked("")).await.ok();
        assert_eq!(token["deviceFlag"], 1, "and a mark alone is no body");
        app.clear_calls();
        let twice = format!("\u{feff}{body}");
        let answer = post(&app, "/message/send", json, marked(&twice)).await;
        names(answer, &["body"]);
        untouched(&app);
    }
}

#[tokio::test]
async fn a_body_with_a_content_encoding_is_415_with_the_accepted_encodings() {
    let app = TestApp::start(V2).await;
    let body = message("clientMsgNo", json!("n")).to_string();
    let with = async |path: &str, encoding: &str, body: &str| {
        let request = app.user("alice").request("POST", path);
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .header("accept-language", "en")
            .body(body.to_owned());
        Answer::to(request).await
    };
    for path in posts() {
        for encoding in ["gzip", "br", "identity, gzip", "GZIP", "x"] {
            let answer = with(path, encoding, &body).await;
            let answer = answer.fails(415, "unsupported_media_type");
            assert_eq!(answer.header("accept-encoding"), "identity");
            let said =
                "the request body must not be compressed (Content-Encoding must be identity)";
            assert_eq!(answer.body["message"], said);
        }
    }
    untouched(&app);
    for encoding in ["identity", "Identity", ""] {
        with("/message/send", encoding, &body).await.ok();
    }
    with("/token", "gzip", "").await.ok();
    let other = post(&app, "/message/send", Some("text/plain"), body.into()).await;
    let other = other.fails(415, "unsupported_media_type");
    assert_eq!(other.header("accept-encoding"), "", "it is about the type");
}

#[tokio::test]
async fn null_is_no_body_where_a_body_may_be_left_out() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        for text in ["null", " null\r\n", "\u{feff}null"] {
            let token = alice.post_text("/token", text).await.ok();
            assert_eq!(token["deviceFlag"], 1, "{text:?}");
            let revoked = alice.post_text("/token/revoke", text).await.ok();
            assert_eq!(revoked["deviceFlags"], json!([0, 1, 2]), "{text:?}");
        }
        app.clear_calls();
        for text in ["nul", "null,", "\u{c}null", "\"null\"", "[null]"] {
            names(alice.post_text("/token", text).await, &["body"]);
            names(alice.post_text("/token/revoke", text).await, &["body"]);
        }
        for path in posts()
            .into_iter()
            .filter(|path| !path.starts_with("/token"))
        {
            names(alice.post_text(path, "null").await, &["body"]);
        }
        untouched(&app);
    }
}

#[tokio::test]
async fn an_unpaired_surrogate_is_reported_as_such() {
    let app = TestApp::start(V2).await;
    let says = |answer: Answer, field: &str| {
        let said = answer.body["details"][0]["message"].clone();
        names(answer, &[field]);
        assert_eq!(said, "必须是有效的Unicode文本", "{field}");
    };
    let alice = app.user("alice");
    for half in [r"\ud83d", r"\ude00", r"a\ud83dz", r"\ude00\ud83d"] {
        let with = |field: &str| {
            let body = message(field, json!("?")).to_string();
            body.replace('?', half)
        };
        for field in ["clientMsgNo", "channelId", "payload", "fromUid"] {
            says(alice.post_text("/message/send", with(field)).await, field);
            let batch = format!("[{}]", with(field));
            let answer = alice.post_text("/message/sendbatch", batch).await;
            says(answer, &format!("[0].{field}"));
        }
        let group = format!(r#"{{"channelId":"g","channelType":2,"name":"{half}"}}"#);
        says(alice.post_text("/channel/create", group).await, "name");
        let add = format!(r#"{{"channelId":"g","channelType":2,"subscribers":["a","{half}"]}}"#);
        let answer = alice.post_text("/channel/subscriber/add", add).await;
        says(answer, "subscribers[1]");
        let name = format!(r#"{{"{half}":1}}"#);
        says(alice.post_text("/message/send", name.clone()).await, "body");
        let batch = format!("[{name}]");
        says(alice.post_text("/message/sendbatch", batch).await, "[0]");
    }
    untouched(&app);
    let whole = message("clientMsgNo", json!("?")).to_string();
    let whole = whole.replace('?', r"\ud83d\ude00");
    alice.post_text("/message/send", whole).await.ok();
}

#[tokio::test]
async fn refusals_speak_the_clients_language() {
    let app = TestApp::start(V2).await;
    let mut said = Vec::new();
    for language in ["zh", "en"] {
        let request = app.user("alice").request("POST", "/message/send");
        let request = request.header("accept-language", language).body("");
        let answer = Answer::to(request).await;
        let message = answer.body["details"][0]["message"].clone();
        said.push((answer.body["message"].clone(), message));
        names(answer, &["channelId", "channelType", "payload"]);
    }
    assert_eq!(said[0], (json!("请求参数有误"), json!("必填")));
    assert_eq!(
        said[1],
        (json!("the request is invalid"), json!("is required"))
    );
}
