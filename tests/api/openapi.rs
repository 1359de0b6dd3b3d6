//! The OpenAPI document: whole, true, and served where it is turned on. That answers are what it says, every other test sees to
//! (`support/document.rs`).

mod bodies;
mod patterns;

use std::collections::BTreeSet;

use wukongim_gateway::http::errors::{ApiError, catalogue};
use wukongim_gateway::routes::document;

use crate::envelope::endpoints;
use crate::support::document::{DOCUMENT, fits, operations, resolved};
use crate::support::prelude::*;

#[test]
fn every_endpoint_is_an_operation_named_like_its_handler() {
    let written: Vec<_> = operations()
        .map(|(path, method, operation)| {
            let method = method.to_uppercase();
            format!(
                "{method} {path} {}",
                operation["operationId"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(written.join("\n"), @"
    POST /channel/create create_channel
    POST /channel/delete delete_channel
    GET /channel/info get_channel_info
    POST /channel/manager/add add_managers
    POST /channel/manager/remove remove_managers
    POST /channel/owner transfer_ownership
    POST /channel/subscriber/add add_subscribers
    POST /channel/subscriber/remove remove_subscribers
    GET /channel/subscribers list_subscribers
    GET /config get_config
    POST /conversation/delete delete_conversation
    GET /conversation/list list_conversations
    POST /conversation/read read_conversation
    GET /health get_health
    POST /message/send send_message
    POST /message/sendbatch send_message_batch
    GET /message/sync sync_messages
    GET /system/info get_system_info
    POST /token create_token
    POST /token/revoke revoke_token
    GET /ws open_socket
    ");
    let mut known: Vec<_> = endpoints::all()
        .iter()
        .map(|endpoint| {
            (
                endpoint.path,
                endpoint.method.to_lowercase(),
                endpoint.is_public(),
            )
        })
        .collect();
    known.sort_unstable();
    let documented = operations().map(|(path, method, operation)| {
        let is_public = operation["security"] == Value::Array(vec![]);
        (path, method.to_owned(), is_public)
    });
    // The socket's has tests of its own.
    let calls: Vec<_> = documented.filter(|(path, ..)| *path != "/ws").collect();
    assert_eq!(calls, known);
}

#[test]
fn every_code_is_the_answer_of_an_operation_and_linked_to_the_catalogue() {
    let mut told = BTreeSet::from(["not_found", "method_not_allowed"]);
    let about = DOCUMENT["info"]["description"].as_str().unwrap();
    assert!(
        told.iter()
            .all(|code| about.contains(&format!("ERRORS.md#{code}")))
    );
    for (path, _, operation) in operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(response);
            let content = &response["content"]["application/json"];
            let Some(codes) =
                content["schema"]["allOf"][1]["properties"]["code"]["enum"].as_array()
            else {
                let success = if path == "/ws" { "101" } else { "200" };
                assert_eq!(status, success, "{path}");
                continue;
            };
            for code in codes.iter().map(|code| code.as_str().unwrap()) {
                let error = ApiError::ALL
                    .into_iter()
                    .find(|error| error.code() == code)
                    .unwrap();
                assert_eq!(error.status().as_str(), status, "{path} {code}");
                let description = response["description"].as_str().unwrap();
                shows(description, &format!("(ERRORS.md#{code})"));
                shows(catalogue(), &format!("<a id=\"{code}\">"));
                assert_eq!(
                    content["examples"][code]["value"]["code"], code,
                    "{path} {status}"
                );
                told.insert(code);
            }
        }
    }
    let all: BTreeSet<_> = ApiError::ALL.into_iter().map(ApiError::code).collect();
    assert_eq!(told, all);
}

#[test]
fn every_request_and_every_answer_has_an_example_that_is_one() {
    fn check(what: &str, content: &Value) {
        let examples = content["examples"].as_object().into_iter().flatten();
        let examples: Vec<_> = examples
            .map(|(_, example)| &example["value"])
            .chain(content.get("example"))
            .collect();
        assert!(!examples.is_empty(), "{what}");
        for example in examples {
            fits(&content["schema"], example).unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
    for (path, _, operation) in operations() {
        if let Some(body) = operation.get("requestBody") {
            check(path, &body["content"]["application/json"]);
        }
        let responses = operation["responses"].as_object().unwrap().iter();
        // An upgrade has no body.
        for (status, response) in responses.filter(|(status, _)| *status != "101") {
            let what = format!("{path} {status}");
            check(&what, &resolved(response)["content"]["application/json"]);
        }
    }
}

#[test]
fn a_sync_without_a_channel_says_what_the_reference_says() {
    let sync = &DOCUMENT["paths"]["/message/sync"]["get"]["responses"]["400"];
    let example = &sync["content"]["application/json"]["examples"]["without_channel"]["value"];
    assert_eq!(example["message"], "channelId and channelType are required");
}

#[test]
fn a_message_id_is_text_everywhere() {
    fn walk(value: &Value, found: &mut usize) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if name == "messageId" {
                        let member = resolved(member);
                        let is_text = member.is_string() || member["type"] == "string";
                        assert!(is_text, "{member}");
                        *found += 1;
                    }
                    walk(member, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = 0;
    walk(&DOCUMENT, &mut found);
    assert!(found >= 6, "{found}");
}

#[tokio::test]
async fn the_document_and_the_catalogue_are_served_where_they_are_turned_on() {
    let app = TestApp::with(V2, |settings| settings.docs.enabled = true).await;
    for (path, kind, text) in [
        ("/openapi.json", "application/json", document()),
        ("/ERRORS.md", "text/plain; charset=utf-8", catalogue()),
    ] {
        // To anybody.
        let answer = app.anon().get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind));
        assert!(!answer.header("x-request-id").is_empty());
        assert!(answer.text == text, "{path}");
        assert_eq!(answer.header("content-encoding"), "");
        let asked = app.anon().request("GET", path);
        let packed = asked.header("accept-encoding", "gzip");
        let packed = packed.send().await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let packed = packed.bytes().await.unwrap();
        assert!(packed.starts_with(b"\x1f\x8b") && packed.len() < text.len() / 2);
        let answer = app.user("alice").post_nothing(path).await;
        let answer = answer.fails(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
    // A browser that follows a link gets a page, and comes out at the code it is for.
    let browser = app
        .http
        .get(format!("{}/api/v1/im/ERRORS.md", app.base))
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = Answer::to(browser).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("vary"), "accept");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(page.text.contains(r#"<tr id="not_a_member">"#));
    assert_eq!(app.metric(r#"gateway_http_requests_total{method="GET",route="/api/v1/im/openapi.json",status="200"}"#), Some(2.0));
}

#[test]
fn every_operation_and_every_tag_is_summarized_in_chinese() {
    let summaries = operations().map(|(_, _, operation)| &operation["x-summary-zh"]);
    let tags = DOCUMENT["tags"].as_array().unwrap().iter();
    let descriptions = tags
        .chain([&DOCUMENT["info"]])
        .map(|it| &it["x-description-zh"]);
    for text in summaries.chain(descriptions) {
        let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        assert!(text.as_str().unwrap().contains(is_chinese), "{text}");
    }
}

#[tokio::test]
async fn the_document_is_in_the_language_that_is_asked_for() {
    let app = TestApp::with(V2, |settings| settings.docs.enabled = true).await;
    for (query, accepted, language) in [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "en,zh;q=0.9", "en"),
        ("?lang=zh", "en", "zh"),
        ("?lang=en", "zh", "en"),
        ("?lang=fr", "zh", "zh"),
    ] {
        let asked = app.anon().request("GET", &format!("/openapi.json{query}"));
        let answer = Answer::to(asked.header("accept-language", accepted)).await;
        let told = (answer.header("content-language"), answer.header("vary"));
        shows(told.1, "accept-language");
        assert_eq!(told.0, language, "{query} {accepted}");
        let name = |english, chinese| if language == "zh" { chinese } else { english };
        let summary = name("summary", "x-summary-zh");
        for (path, method, operation) in operations() {
            assert_eq!(
                answer.body["paths"][path][method]["summary"],
                operation[summary]
            );
        }
        let description = name("description", "x-description-zh");
        let (read, written) = (&answer.body["info"], &DOCUMENT["info"]);
        assert_eq!(read["description"], written[description]);
        assert_eq!(read.get("x-description-zh").is_some(), language == "en");
    }
}

#[tokio::test]
async fn where_it_is_turned_off_nothing_is_there() {
    let app = TestApp::start(V2).await;
    for path in ["/openapi.json", "/ERRORS.md", "/docs"] {
        app.anon().get(path).await.fails(404, "not_found");
        let other = Answer::of(
            app.http
                .get(format!("{}{path}", app.base))
                .send()
                .await
                .unwrap(),
        );
        other.await.fails(404, "not_found");
    }
}
