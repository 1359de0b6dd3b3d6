//! The envelope: the only place that spells `success`, `data`, `message`, `code`, `requestId`, `details`.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use serde::Serialize;

use crate::http::errors::{ApiError, Failure, Lang, LocalizedText};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Answers are per caller and must not be cached.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A success: HTTP 200 and `{"success":true,"data":…}`.
#[derive(Debug, Clone)]
pub struct Envelope<T>(pub T);

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Success<'a, T> {
            success: bool,
            data: &'a T,
        }
        match serde_json::to_vec(&Success {
            success: true,
            data: &self.0,
        }) {
            Ok(body) => json(StatusCode::OK, body),
            Err(error) => Failure::from(ApiError::Internal)
                .because(error.to_string())
                .into_response(),
        }
    }
}

/// A success whose data, about `size` bytes of JSON, is written by `write`.
pub fn success(size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Response {
    const BEGINNING: &[u8] = br#"{"success":true,"data":"#;
    let mut body = Vec::with_capacity(BEGINNING.len() + size + 1);
    body.extend_from_slice(BEGINNING);
    write(&mut body);
    body.push(b'}');
    json(StatusCode::OK, body)
}

/// A failure's envelope. `endpoint` is the called endpoint's own text, which is the message of every 5xx.
pub fn render(
    failure: &Failure,
    lang: Lang,
    endpoint: LocalizedText,
    request_id: &str,
) -> Response {
    let error = failure.error;
    let body = failure_json(failure, lang, endpoint, request_id);
    let mut response = json(error.status(), body);
    let headers = response.headers_mut();
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if error == ApiError::UpgradeRequired {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if failure.is_encoding_error() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let seconds = failure.retry_after_s.map(NonZeroU32::get);
    if let Some(seconds) = seconds.or(error.retry_after_s()) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The JSON of a failure's envelope.
pub fn failure_json(
    failure: &Failure,
    lang: Lang,
    endpoint: LocalizedText,
    request_id: &str,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Detail<'a> {
        field: &'a str,
        message: String,
    }
    // Written directly into one buffer, since refusals must be cheap. Codes need no escaping.
    let mut body = Vec::with_capacity(192);
    body.extend_from_slice(br#"{"success":false"#);
    if let Some(data) = &failure.data {
        body.extend_from_slice(br#","data":"#);
        body.extend_from_slice(data.get().as_bytes());
    }
    body.extend_from_slice(br#","message":"#);
    write_json(&mut body, message_of(failure, endpoint).in_lang(lang));
    body.extend_from_slice(br#","code":""#);
    body.extend_from_slice(failure.error.code().as_bytes());
    body.push(b'"');
    if let Some(number) = &failure.client_msg_no {
        body.extend_from_slice(br#","clientMsgNo":"#);
        write_json(&mut body, number.as_str());
    }
    body.extend_from_slice(br#","requestId":"#);
    write_json(&mut body, request_id);
    if !failure.details.is_empty() {
        let details = failure.details.iter().map(|detail| Detail {
            field: &detail.field,
            message: detail.problem.message(lang),
        });
        body.extend_from_slice(br#","details":"#);
        write_json(&mut body, &details.collect::<Vec<_>>());
    }
    body.push(b'}');
    body
}

/// Appends a string or a list of simple structs, which cannot fail to serialise.
fn write_json(body: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(body, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// A failure's message at this endpoint: its own, else for every 5xx the endpoint's.
pub fn message_of(failure: &Failure, endpoint: LocalizedText) -> LocalizedText {
    let is_server_error = failure.error.status().is_server_error();
    let general = if is_server_error {
        endpoint
    } else {
        failure.error.message()
    };
    failure.message.unwrap_or(general)
}

/// A JSON answer that must not be cached.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Chinese, unless `Accept-Language` gives English a higher weight than Chinese, and none that is lower than that of `*`.
pub fn language(headers: &HeaderMap) -> Lang {
    preferred(headers, Lang::Zh)
}

/// `default`, unless `Accept-Language` gives the other language a higher weight than it, and none that is lower than that of `*`.
pub fn preferred(headers: &HeaderMap, default: Lang) -> Lang {
    let mut weights = [None::<f32>; 3];
    for value in headers.get_all(ACCEPT_LANGUAGE) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let primary = tag.split('-').next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
            let language = ["en", "zh", "*"].iter();
            for (known, language) in weights.iter_mut().zip(language) {
                if primary.eq_ignore_ascii_case(language) {
                    *known = Some(known.map_or(weight, |known| known.max(weight)));
                }
            }
        }
    }
    let [en, zh, any] = weights;
    let (own, other, otherwise) = match default {
        Lang::Zh => (zh, en, Lang::En),
        Lang::En => (en, zh, Lang::Zh),
    };
    // `*` means the default where it has a higher weight than the other.
    let own = own.or(any.filter(|any| Some(*any) > other));
    if other > own.or(Some(0.0)) {
        otherwise
    } else {
        default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_must_be_preferred() {
        for (accepted, expected) in [
            ("", Lang::Zh),
            ("en", Lang::En),
            ("EN-us", Lang::En),
            ("zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
            ("en-US,en;q=0.9,zh;q=0.8", Lang::En),
            ("en;q=0.5, zh;q=0.7", Lang::Zh),
            ("fr", Lang::Zh),
            ("fr, en;q=0.3", Lang::En),
            ("en;q=0", Lang::Zh),
            ("en;q=0.4, *;q=0.5", Lang::Zh),
            ("en, *", Lang::En),
            ("en, zh", Lang::Zh),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static(accepted));
            assert_eq!(language(&headers), expected, "{accepted}");
        }
    }

    #[test]
    fn chinese_must_be_preferred_where_english_is_the_default() {
        for (accepted, expected) in [
            ("", Lang::En),
            ("zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
            ("en-US,en;q=0.9,zh;q=0.8", Lang::En),
            ("fr, zh;q=0.3", Lang::Zh),
            ("zh, en", Lang::En),
            ("zh;q=0.4, *;q=0.5", Lang::En),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static(accepted));
            assert_eq!(preferred(&headers, Lang::En), expected, "{accepted}");
        }
    }
}
