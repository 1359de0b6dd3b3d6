//! Holds answers to the OpenAPI document: no status, code, field or header that it does not know. As much of JSON Schema as the
//! document uses; any other keyword is a failure here, so that nothing is passed over.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use fancy_regex::Regex;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

const PREFIX: &str = "/api/v1/im";

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = wukongim_gateway::routes::document();
    serde_json::from_str(text).expect("the document is JSON")
});

/// The thing itself, where this only refers to it.
pub fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        None => value,
        Some(index) => DOCUMENT
            .pointer(index.strip_prefix('#').expect("a place in the document"))
            .unwrap_or_else(|| panic!("{index} is nowhere")),
    }
}

/// The operations: path below the prefix, method, operation.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("a path item");
        item.iter()
            .map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Panics unless the document foresees this answer of the path.
pub fn expects(path: &str, status: u16, headers: &HeaderMap, body: &Value) {
    let Some(path) = path.strip_prefix(PREFIX) else {
        return;
    };
    let code = body["code"].as_str().unwrap_or_default();
    // These are the paths' and not the operations'; a preflight is nobody's.
    let is_nobodys = code == "not_found" || matches!(status, 204 | 405);
    let operation = operations().find(|(known, ..)| *known == path);
    let Some((.., operation)) = operation.filter(|_| !is_nobodys) else {
        return;
    };
    let response = resolved(&operation["responses"][status.to_string()]);
    assert!(
        !response.is_null(),
        "{path}: {status} {code} is in no document"
    );
    for (name, header) in response["headers"].as_object().expect("headers") {
        let header = resolved(header);
        let told = headers.get(name).map(|value| value.to_str().expect("text"));
        match told {
            None => assert!(header["required"] != true, "{path} {status}: no {name}"),
            Some(text) => {
                let number = text.parse::<u64>().map(Value::from);
                let value = match header["schema"]["type"].as_str() {
                    Some("integer") => number.expect("a number"),
                    _ => text.into(),
                };
                fits(&header["schema"], &value)
                    .unwrap_or_else(|why| panic!("{path} {name}: {why}"));
            }
        }
    }
    for name in [
        "ratelimit-limit",
        "retry-after",
        "www-authenticate",
        "x-has-more",
        "x-next-cursor",
        "x-total-count",
    ] {
        let mut documented = response["headers"].as_object().expect("headers").keys();
        let is_told = documented.any(|known| known.eq_ignore_ascii_case(name));
        assert!(
            is_told || !headers.contains_key(name),
            "{path} {status}: {name}"
        );
    }
    if body.is_null() {
        // To HEAD; whoever asked otherwise looks at the body himself.
        return;
    }
    let schema = &response["content"]["application/json"]["schema"];
    fits(schema, body).unwrap_or_else(|why| panic!("{path} {status}: {why}\n{body:#}"));
}

/// Whether a value is what a schema says, and has no field that it does not know.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    says(schema, value)?;
    if let (Value::Object(members), Some(known)) = (value, properties(schema)) {
        let unknown = members.keys().find(|name| !known.contains(name.as_str()));
        return unknown.map_or(Ok(()), |name| Err(format!("{name} is in no document")));
    }
    Ok(())
}

/// The fields that a schema knows; `None` where it is none of an object.
fn properties(schema: &Value) -> Option<BTreeSet<&str>> {
    let schema = resolved(schema);
    let own = schema["properties"]
        .as_object()
        .map(|own| own.keys().map(String::as_str));
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let parts: Vec<_> = parts.filter_map(properties).collect();
    (own.is_some() || !parts.is_empty()).then(|| {
        own.into_iter()
            .flatten()
            .chain(parts.into_iter().flatten())
            .collect()
    })
}

fn says(schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let holds = match (keyword.as_str(), value) {
            ("$ref", _) => says(resolved(schema), value).map(|()| true)?,
            ("type", _) => match rule {
                Value::Array(types) => types.iter().any(|name| is_a(name, value)),
                name => is_a(name, value),
            },
            ("enum", _) => rule.as_array().expect("values").contains(value),
            ("allOf", _) => {
                let mut parts = rule.as_array().expect("schemas").iter();
                parts.try_for_each(|part| says(part, value))?;
                true
            }
            ("oneOf", _) => {
                let parts = rule.as_array().expect("schemas").iter();
                parts.filter(|part| fits(part, value).is_ok()).count() == 1
            }
            ("required", Value::Object(members)) => {
                let names = rule.as_array().expect("names").iter();
                names
                    .filter_map(Value::as_str)
                    .all(|name| members.contains_key(name))
            }
            ("properties", Value::Object(members)) => all_fit(rule, members)?,
            ("items", Value::Array(items)) => {
                items.iter().try_for_each(|item| fits(rule, item))?;
                true
            }
            ("minItems", Value::Array(items)) => Some(items.len() as u64) >= rule.as_u64(),
            ("maxItems", Value::Array(items)) => Some(items.len() as u64) <= rule.as_u64(),
            ("minLength", Value::String(text)) => {
                Some(text.chars().count() as u64) >= rule.as_u64()
            }
            ("maxLength", Value::String(text)) => {
                Some(text.chars().count() as u64) <= rule.as_u64()
            }
            ("pattern", Value::String(text)) => matches(rule.as_str().expect("a pattern"), text),
            ("minimum", Value::Number(number)) => number.as_u64() >= rule.as_u64(),
            ("maximum", Value::Number(number)) => number.as_u64() <= rule.as_u64(),
            // Rules for another type of value, and what is for people.
            (
                "required" | "properties" | "items" | "minItems" | "maxItems" | "minLength"
                | "maxLength" | "pattern" | "minimum" | "maximum" | "description" | "format"
                | "contentEncoding",
                _,
            ) => true,
            (other, _) => panic!("{other} is not looked at"),
        };
        if !holds {
            return Err(format!("{value} against {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn all_fit(properties: &Value, members: &Map<String, Value>) -> Result<bool, String> {
    for (name, schema) in properties.as_object().expect("properties") {
        if let Some(value) = members.get(name) {
            fits(schema, value).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(true)
}

fn is_a(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type of the document"),
    }
}

/// Whether a text matches one of the document's patterns.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern.is_match(text).expect("matching comes to an end")
}
