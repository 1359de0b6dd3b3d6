//! The failures of an operation: one response per status, with its codes and an example of each as rendered by `envelope`. Does not know
//! the routes.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Components, Ref, RefOr, Response, ResponseBuilder};

use super::headers;
use super::{Described, JSON};
use crate::domain::ClientMsgNo;
use crate::http::envelope::failure_json;
use crate::http::errors::{ApiError, Failure, FieldProblem, Lang, Problem};

/// Errors of all operations.
const EVERYWHERE: &[ApiError] = &[
    ApiError::HeadersTooLarge,
    ApiError::Internal,
    ApiError::UpstreamUnavailable,
    ApiError::Overloaded,
    ApiError::UpstreamTimeout,
];
/// Errors of authenticated operations: of the token, the user's limit, and WuKongIM.
const PROTECTED: &[ApiError] = &[
    ApiError::TokenMissing,
    ApiError::TokenInvalid,
    ApiError::TokenExpired,
    ApiError::RateLimited,
    ApiError::UpstreamError,
    ApiError::KeysUnavailable,
];
/// Errors of a query.
const QUERY: &[ApiError] = &[ApiError::InvalidRequest];
/// Errors of a body.
const BODY: &[ApiError] = &[
    ApiError::InvalidRequest,
    ApiError::RequestTimeout,
    ApiError::PayloadTooLarge,
    ApiError::UnsupportedMediaType,
];

/// The responses that are the same in all operations.
const SHARED: [(u16, &str); 7] = [
    (400, "InvalidRequest"),
    (401, "Unauthorized"),
    (408, "RequestTimeout"),
    (413, "PayloadTooLarge"),
    (415, "UnsupportedMediaType"),
    (429, "RateLimited"),
    (431, "HeadersTooLarge"),
];

/// The envelope of a failure.
#[derive(ToSchema)]
#[schema(as = Failure, rename_all = "camelCase")]
#[expect(dead_code, reason = "`envelope` writes it; this is its shape")]
pub(super) struct FailureEnvelope {
    #[schema(schema_with = super::no)]
    success: bool,
    /// One sentence for users: Chinese, or English if `Accept-Language` prefers it. A 5xx has its operation's own sentence.
    message: String,
    code: ApiError,
    /// With `message_unconfirmed`, and with `upstream_error` of a send: the message may be stored, send it again with this number.
    #[schema(nullable = false)]
    client_msg_no: Option<ClientMsgNo>,
    /// The answer's `x-request-id`, which is also in the gateway's log.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,128}$")]
    request_id: String,
    /// All bad fields, with `invalid_request`.
    #[schema(nullable = false)]
    details: Option<Vec<BadField>>,
}

/// The error of a field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "`envelope` writes it; this is its shape")]
pub(super) struct BadField {
    /// Its path, such as `channelId`, `subscribers[0]` or `[3].payload`; `body` for the whole.
    field: String,
    /// One sentence for users.
    message: String,
}

/// Adds every failure to an operation's responses. For one that the handler describes, the handler's example is added, and
/// its body is the schema of the `data` that failures of this operation may have.
pub(super) fn add(operation: &mut Operation, about: &Described, components: &mut Components) {
    let responses = &mut operation.responses.responses;
    let own: BTreeMap<String, RefOr<Response>> = std::mem::take(responses);
    let mut by_status: BTreeMap<u16, Vec<ApiError>> = BTreeMap::new();
    let mut codes = [&[EVERYWHERE], about.refusals].concat();
    codes.extend((!about.is_public).then_some(PROTECTED));
    codes.extend(operation.parameters.is_some().then_some(QUERY));
    codes.extend(operation.request_body.is_some().then_some(BODY));
    let codes = codes.concat();
    for error in ApiError::ALL.iter().filter(|error| codes.contains(error)) {
        let same = by_status.entry(error.status().as_u16()).or_default();
        same.push(*error);
    }
    let described = |status: u16| match own.get(&status.to_string()) {
        Some(RefOr::T(response)) => response.content.get(JSON),
        _ => None,
    };
    let content = by_status.keys().find_map(|status| described(*status));
    let data = content.and_then(|content| match content {
        RefOr::T(content) => content.schema.clone(),
        RefOr::Ref(_) => None,
    });
    for (status, codes) in by_status {
        let shared = SHARED.iter().find(|(shared, _)| *shared == status);
        let response = match (shared, described(status)) {
            (Some((_, name)), None) if status != 400 || data.is_none() => {
                let response = || response(&codes, about, None).into();
                let known = &mut components.responses;
                known.entry((*name).to_owned()).or_insert_with(response);
                Ref::from_response_name(*name).into()
            }
            (_, own) => {
                let mut response = response(&codes, about, data.as_ref());
                if let (Some(RefOr::T(own)), Some(RefOr::T(content))) =
                    (own, response.content.get_mut(JSON))
                {
                    let own = own
                        .examples
                        .iter()
                        .map(|(name, own)| (name.clone(), own.clone()));
                    content.examples.extend(own);
                }
                response.into()
            }
        };
        responses.insert(status.to_string(), response);
    }
    responses.extend(
        own.into_iter()
            .filter(|(status, _)| matches!(status.as_str(), "101" | "200")),
    );
}

/// One status with these codes.
fn response(codes: &[ApiError], about: &Described, data: Option<&RefOr<Schema>>) -> Response {
    let status = codes.first().map_or(0, |error| error.status().as_u16());
    let lines = codes.iter().map(|error| {
        let code = error.code();
        format!("- [`{code}`](ERRORS.md#{code}): {}", error.advice().client)
    });
    let examples = codes.iter().map(|error| {
        let value = Some(example(*error, about));
        (error.code(), ExampleBuilder::new().value(value).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(schema(codes, data)))
        .examples_from_iter(examples);
    let mut response = ResponseBuilder::new()
        .description(lines.collect::<Vec<_>>().join("\n"))
        .content(JSON, content.build())
        .build();
    response.headers = headers::of(status, about.is_public);
    response
}

/// The envelope with no other code than these.
fn schema(codes: &[ApiError], data: Option<&RefOr<Schema>>) -> Schema {
    let is_partial = codes.contains(&ApiError::PartialFailure);
    let codes = codes.iter().map(|error| error.code());
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes));
    let mut narrower = ObjectBuilder::new().property("code", code).required("code");
    if let Some(data) = data {
        narrower = narrower.property("data", data.clone());
        if is_partial {
            narrower = narrower.required("data");
        }
    }
    AllOfBuilder::new()
        .item(Ref::from_schema_name("Failure"))
        .item(narrower)
        .into()
}

/// A failure with this code, as it is rendered.
fn example(error: ApiError, about: &Described) -> Value {
    let mut failure = Failure::from(error);
    if error == ApiError::InvalidRequest {
        failure.details = vec![FieldProblem::new("channelType", Problem::Required)];
    }
    if error == ApiError::MessageUnconfirmed {
        failure.client_msg_no = ClientMsgNo::parse(super::CLIENT_MSG_NO, usize::MAX).ok();
    }
    let text = failure_json(&failure, Lang::Zh, about.failure, super::REQUEST_ID);
    serde_json::from_slice(&text).unwrap_or_default()
}
