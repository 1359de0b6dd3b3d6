//! What the document says of a request is what the gateway holds it to: the schemas stand beside the parsers, which read by hand.

use serde_json::Map;
use url::form_urlencoded::Serializer;

use crate::support::document::{DOCUMENT, fits, operations, resolved};
use crate::support::prelude::*;

/// A gateway whose limits are the hard caps, as the document has them.
async fn at_the_caps(dialect: dev_upstream::Dialect) -> TestApp {
    let builder = TestApp::builder().upstream(dialect).config(|settings| {
        let limits = &mut settings.limits;
        limits.id_bytes = 255;
        limits.client_msg_no_bytes = 255;
        limits.payload = 512 * 1024;
        limits.batch = 1000;
        limits.subscribers = 5000;
        settings.server.body_limit = 64 * 1024 * 1024;
    });
    builder.start().await
}

/// The schema itself: not a reference, and without the `null` of an optional field.
fn plain(schema: &Value) -> &Value {
    let schema = resolved(schema);
    match schema["oneOf"].as_array() {
        Some(either) => resolved(either.iter().find(|it| it["type"] != "null").unwrap()),
        None => schema,
    }
}

/// The type that a value of the schema has, where it is not `null`.
fn kind(schema: &Value) -> &str {
    let types = schema["type"].as_array().into_iter().flatten();
    let mut types = types.chain([&schema["type"]]).filter_map(Value::as_str);
    types.find(|it| *it != "null").unwrap()
}

/// Values that a schema refuses, each for one reason.
fn bad_values(schema: &Value) -> Vec<Value> {
    let schema = plain(schema);
    match kind(schema) {
        "string" => {
            let mut bad = vec![json!(7), json!(true), json!(["a"]), json!({})];
            let most = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
            // Base64 comes in fours.
            bad.push("a".repeat(most + 4).into());
            if schema["minLength"].as_u64().is_some() {
                bad.push("".into());
            }
            bad.push("a\u{0}b".into());
            bad.push("a\u{85}b".into());
            bad
        }
        "integer" => {
            let mut bad = vec![json!("1"), json!(1.5), json!(1.0), json!(true), json!([1])];
            bad.extend([json!(-1), json!(3), json!(u64::MAX)]);
            match schema["enum"].as_array() {
                Some(allowed) => {
                    bad.extend((0..3).map(Value::from).filter(|n| !allowed.contains(n)));
                }
                None => {
                    bad.retain(|value| *value != 3);
                    let least = schema["minimum"].as_u64().unwrap();
                    bad.extend(least.checked_sub(1).map(Value::from));
                }
            }
            bad
        }
        "array" => {
            let most = usize::try_from(schema["maxItems"].as_u64().unwrap()).unwrap();
            let good = json!("a");
            let mut bad = vec![json!("a"), json!({}), json!(7), json!([])];
            bad.push(vec![good; most + 1].into());
            bad.extend(
                bad_values(&schema["items"])
                    .into_iter()
                    .map(|item| json!([item])),
            );
            bad
        }
        other => panic!("{other}: no bad value is known"),
    }
}

/// The fields of a body's objects, and an object that is good.
fn object_of(operation: &Value) -> Option<(bool, &Value, Map<String, Value>)> {
    let content = &operation["requestBody"]["content"]["application/json"];
    let schema = plain(content.get("schema")?);
    let example = &content["example"];
    let is_list = schema["type"] == "array";
    let (schema, example) = if is_list {
        (resolved(&schema["items"]), &example[0])
    } else {
        (schema, example)
    };
    Some((is_list, schema, example.as_object().unwrap().clone()))
}

async fn post(who: &Actor<'_>, path: &str, is_list: bool, object: Map<String, Value>) -> Answer {
    let body = if is_list {
        json!([object])
    } else {
        object.into()
    };
    who.post(path, &body).await
}

/// Whether the answer names this field, or one of its entries.
#[track_caller]
fn names(answer: Answer, is_list: bool, field: &str, why: &str) {
    let answer = answer.fails(400, "invalid_request");
    let field = if is_list {
        format!("[0].{field}")
    } else {
        field.to_owned()
    };
    let named = answer.bad_fields();
    let is_named = |name: &String| *name == field || name.starts_with(&format!("{field}["));
    assert!(named.iter().any(is_named), "{why}: {answer:#?}");
}

fn is_taken(answer: &Answer) -> bool {
    !matches!(answer.status, 400 | 413 | 415 | 500..)
}

#[tokio::test]
async fn an_example_is_taken_and_each_breach_of_its_schema_is_refused_by_name() {
    for dialect in [V2, V3] {
        let app = at_the_caps(dialect).await;
        let who = app.user("user1");
        let mut fields = 0;
        for (path, _, operation) in operations() {
            let Some((is_list, schema, good)) = object_of(operation) else {
                continue;
            };
            let answer = post(&who, path, is_list, good.clone()).await;
            assert!(is_taken(&answer), "{path}: {answer:#?}");
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let takes_null = fits(body, &Value::Null).is_ok();
            let answer = who.post(path, &Value::Null).await;
            assert_eq!(is_taken(&answer), takes_null, "{path}: {answer:#?}");
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for (name, field) in schema["properties"].as_object().unwrap() {
                fields += 1;
                let with = |value: Option<Value>| {
                    let mut object = good.clone();
                    object.remove(name);
                    object.extend(value.map(|value| (name.clone(), value)));
                    post(&who, path, is_list, object)
                };
                if required.contains(&name.as_str().into()) {
                    names(with(None).await, is_list, name, "missing");
                    names(with(Some(Value::Null)).await, is_list, name, "null");
                } else {
                    for answer in [with(None).await, with(Some(Value::Null)).await] {
                        assert!(is_taken(&answer), "{path} {name}: {answer:#?}");
                    }
                }
                for bad in bad_values(field) {
                    let mut why = format!("{path} {name}: {bad}");
                    why.truncate(200);
                    names(with(Some(bad)).await, is_list, name, &why);
                }
            }
        }
        assert_eq!(fields, 41);
    }
}

#[tokio::test]
async fn what_is_no_avatar_by_its_schema_is_none_though_a_browser_would_mend_it() {
    let schema = &DOCUMENT["components"]["schemas"]["Avatar"];
    let app = TestApp::start(V2).await;
    for (avatar, is_one) in [
        ("https://example.com/avatar.jpg", true),
        ("HTTPS://example.com", true),
        ("http:example.com", false),
        (r"http:\\example.com", false),
        (" https://example.com", false),
        ("https://", false),
        ("ftp://example.com", false),
        ("群://example.com", false),
    ] {
        assert_eq!(fits(schema, &avatar.into()).is_ok(), is_one, "{avatar}");
        let body = json!({"channelId": "g", "channelType": 2, "avatar": avatar});
        let answer = app.user("alice").post("/channel/create", &body).await;
        if is_one {
            answer.ok();
        } else {
            names(answer, false, "avatar", avatar);
        }
    }
}

#[tokio::test]
async fn a_list_of_messages_is_as_long_as_its_schema_says() {
    let app = at_the_caps(V2).await;
    let (path, _, operation) = operations()
        .find(|(path, ..)| *path == "/message/sendbatch")
        .unwrap();
    let content = &operation["requestBody"]["content"]["application/json"];
    let schema = resolved(&content["schema"]);
    assert_eq!(schema["minItems"], 1);
    let most = usize::try_from(schema["maxItems"].as_u64().unwrap()).unwrap();
    let mut message = content["example"][0].clone();
    message.as_object_mut().unwrap().remove("clientMsgNo");
    let who = app.user("user1");
    for (count, is_fine) in [(0, false), (1, true), (most, true), (most + 1, false)] {
        let answer = who.post(path, &vec![message.clone(); count].into()).await;
        assert_eq!(is_taken(&answer), is_fine, "{count}: {}", answer.status);
    }
}

#[tokio::test]
async fn each_breach_of_a_querys_schema_is_refused_by_name() {
    for dialect in [V2, V3] {
        let app = at_the_caps(dialect).await;
        let who = app.user("user1");
        let mut parameters = 0;
        for (path, method, operation) in
            operations().filter(|(.., it)| it.get("parameters").is_some())
        {
            assert_eq!(method, "get");
            let all = operation["parameters"].as_array().unwrap();
            for parameter in all {
                parameters += 1;
                let name = parameter["name"].as_str().unwrap();
                let schema = plain(&parameter["schema"]);
                let is_required = parameter["required"] == true;
                let (good, bad) = texts(schema);
                // No text is a cursor but one that the gateway has made.
                for (value, is_fine) in [(None, !is_required), (Some(good), name != "cursor")]
                    .into_iter()
                    .chain(bad.into_iter().map(|bad| (Some(bad), false)))
                {
                    // An empty parameter is none.
                    let is_fine = is_fine || (!is_required && value.as_deref() == Some(""));
                    let mut query: Vec<(&str, String)> =
                        vec![("channelId", "a".into()), ("channelType", "2".into())];
                    query.retain(|(other, _)| *other != name);
                    query.extend(value.clone().map(|value| (name, value)));
                    let text = Serializer::new(String::new()).extend_pairs(&query).finish();
                    let answer = who.get(&format!("{path}?{text}")).await;
                    if is_fine {
                        assert!(is_taken(&answer), "{path} {query:?}: {answer:#?}");
                    } else {
                        names(answer, false, name, &format!("{path} {query:?}"));
                    }
                }
            }
        }
        assert_eq!(parameters, 14);
    }
}

/// A text that a query's schema takes, and such that it refuses.
fn texts(schema: &Value) -> (String, Vec<String>) {
    if kind(schema) == "boolean" {
        let bad = ["1", "True", "yes", " true"].map(Into::into);
        return ("true".into(), bad.into());
    }
    if kind(schema) == "string" {
        let most = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
        let bad = [
            String::new(),
            "a".repeat(most + 1),
            "a b".into(),
            "a\u{0}".into(),
            "..".into(),
        ];
        return ("a".repeat(most), bad.into());
    }
    let mut bad: Vec<String> = ["x", "1.5", "1.0", "-1", "+1", " 1", "0x1"]
        .map(Into::into)
        .into();
    let Some(allowed) = schema["enum"].as_array() else {
        let least = schema["minimum"].as_u64().unwrap();
        bad.extend(least.checked_sub(1).map(|less| less.to_string()));
        let most = schema["maximum"].as_u64();
        bad.extend(most.map(|most| (most + 1).to_string()));
        return (most.unwrap_or(u64::MAX).to_string(), bad);
    };
    bad.extend(["0", "3"].map(Into::into));
    (allowed.last().unwrap().to_string(), bad)
}
