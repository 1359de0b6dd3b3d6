//! An answer of the gateway, and asserts on it that print it whole. Each is held to the OpenAPI document, whatever the test is about.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::document;

/// Status, headers and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where it comes from, for who reads it in a failed test.
    pub path: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The answer to this request.
    pub async fn to(request: reqwest::RequestBuilder) -> Self {
        Self::of(request.send().await.expect("an answer")).await
    }

    pub async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let path = response.url().path().to_owned();
        let text = response.text().await.expect("a whole body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        document::expects(&path, status, &headers, &body);
        Self {
            path,
            status,
            headers,
            body,
            text,
        }
    }

    /// A header's text, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Asserts a success envelope and gives its data.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:#?}");
        assert_eq!(self.body["success"], true, "{self:#?}");
        assert!(
            self.body.get("message").is_none(),
            "a success has no message: {self:#?}"
        );
        assert!(!self.header("x-request-id").is_empty(), "{self:#?}");
        self.body["data"].clone()
    }

    /// Asserts a failure envelope with this status and code, and gives it on.
    #[track_caller]
    pub fn fails(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, &self.body["code"]),
            (status, &Value::from(code)),
            "{self:#?}"
        );
        assert_eq!(self.body["success"], false, "{self:#?}");
        assert!(
            self.body["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{self:#?}"
        );
        assert_eq!(
            self.body["requestId"],
            self.header("x-request-id"),
            "{self:#?}"
        );
        self
    }

    /// Asserts a 400 that names exactly these fields, and gives it on.
    #[track_caller]
    pub fn names(self, fields: &[&str]) -> Self {
        let answer = self.fails(400, "invalid_request");
        assert_eq!(answer.bad_fields(), fields, "{answer:#?}");
        answer
    }

    /// Asserts that the message for people is this one.
    #[track_caller]
    pub fn says(&self, message: &str) {
        assert_eq!(self.body["message"], message, "{self:#?}");
    }

    /// Asserts that this header is this text; empty where there is to be none.
    #[track_caller]
    pub fn has(&self, header: &str, text: &str) {
        assert_eq!(self.header(header), text, "{header}: {self:#?}");
    }

    /// What became of each message of a batch: its error's code, or `sent`.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<&str> {
        let entries = self.body["data"].as_array().expect("a list");
        let outcome = |entry| outcome(entry).unwrap_or_else(|| panic!("{entry}: {self:#?}"));
        entries.iter().map(outcome).collect()
    }

    /// The fields named in `details`.
    pub fn bad_fields(&self) -> Vec<String> {
        let details = self.body["details"].as_array().cloned().unwrap_or_default();
        details
            .iter()
            .map(|detail| detail["field"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

fn outcome(entry: &Value) -> Option<&str> {
    let Some(error) = entry.get("error") else {
        return entry["messageSeq"]
            .as_u64()
            .filter(|seq| *seq > 0)
            .map(|_| "sent");
    };
    error["message"].as_str().filter(|text| !text.is_empty())?;
    error["code"].as_str()
}

/// Asserts that a text contains this, and prints it whole where it does not.
#[track_caller]
pub fn shows(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in {text}");
}

/// Asserts that each of these is a success.
#[track_caller]
pub fn all_ok(answers: impl IntoIterator<Item = Answer>) {
    for answer in answers {
        answer.ok();
    }
}

/// What several answers are to say: status and code.
pub fn failure(status: u16, code: &str) -> Failure<'_> {
    Failure { status, code }
}

/// A status and its code.
pub struct Failure<'a> {
    status: u16,
    code: &'a str,
}

impl Failure<'_> {
    /// Asserts that this one fails so, and gives it on.
    #[track_caller]
    pub fn is(&self, answer: Answer) -> Answer {
        answer.fails(self.status, self.code)
    }

    /// Asserts that each of these fails so.
    #[track_caller]
    pub fn in_each(&self, answers: impl IntoIterator<Item = Answer>) {
        for (index, answer) in answers.into_iter().enumerate() {
            println!("answer {index}");
            self.is(answer);
        }
    }
}
