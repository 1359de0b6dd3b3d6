//! The OpenAPI document, built from the handlers' own documentation and the parts common to all: the envelope, the failures of each kind of
//! operation, the headers, the bearer token. Knows no route.

mod failures;
mod headers;
mod values;

use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::external_docs::ExternalDocs;
use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Response,
};
use utoipa::{PartialSchema, ToSchema};

use crate::http::errors::{ApiError, LocalizedText};

pub use values::{MessageSeq, UnixMs};

const JSON: &str = "application/json";
/// Request id and client_msg_no in examples.
const REQUEST_ID: &str = "62594eb9ff9f49d281ae136bce06db32";
const CLIENT_MSG_NO: &str = "note-1";
const BEARER: &str = "bearer";

const ABOUT: &str = "\
The HTTP gateway in front of WuKongIM.

Every answer is an envelope: `{\"success\":true,\"data\":…}`, or `{\"success\":false,\"message\":\"…\",\"code\":\"…\",\"requestId\":\"…\"}`. \
Programs use `code`, which never changes; `message` is for users: Chinese, or English if `Accept-Language` prefers it. \
[All codes](ERRORS.md), with what to do.

Every answer has `x-request-id`: the request's own if it is 1 to 128 of `[A-Za-z0-9._-]`, else a new one. An unknown path is 404 \
[`not_found`](ERRORS.md#not_found); a method that a path does not support is 405 \
[`method_not_allowed`](ERRORS.md#method_not_allowed) with `Allow`.

`maxLength` and `maxItems` are the maximum of any deployment, and `maxLength` counts characters. The limits of a deployment may be lower, \
and some count bytes: see `limits` of `GET /config`. Unknown fields are ignored, `null` for an optional field or an optional body means \
the same as omitting it, and a field that occurs twice is refused.

A body is UTF-8 JSON without a `Content-Encoding`; a byte-order mark at the start is ignored. Answers must not be cached \
(`Cache-Control: no-store`). Headers of more than 32 KiB, or a token of more than 16 KiB, are 431 \
[`headers_too_large`](ERRORS.md#headers_too_large); more than 100 header lines are 431 without an envelope.";

const TAGS: [(&str, &str); 4] = [
    (
        "connection",
        "Addresses and tokens for connections to WuKongIM.",
    ),
    ("messages", "Sending messages and reading histories."),
    ("channels", "Groups and the roles of their users."),
    ("system", "Health and information about WuKongIM."),
];

/// The documentation of a route.
pub struct Described {
    /// The path below the prefix.
    pub path: &'static str,
    /// The handlers' own documentation: successes, with the `data` of the envelope as their body, and examples of failures with data.
    pub item: PathItem,
    /// The schemas referred to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
    /// Whether it needs no authentication.
    pub is_public: bool,
    /// The text of its 5xx errors.
    pub failure: LocalizedText,
    /// Its errors, in addition to those common to its kind.
    pub refusals: &'static [&'static [ApiError]],
}

/// The document of these routes below `prefix`, as readable JSON.
pub fn document(prefix: &str, routes: impl Iterator<Item = Described>) -> String {
    let mut components = Components::new();
    headers::add_to(&mut components);
    let mut schemas = Vec::new();
    <failures::FailureEnvelope as ToSchema>::schemas(&mut schemas);
    schemas.push(("Failure".to_owned(), failures::FailureEnvelope::schema()));
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT");
    let scheme = scheme.description(Some(
        "The application's own JWT, whose `sub` (else `userId`) is the caller's uid. In forms such as Swagger UI's, enter the token without \
         `Bearer`.",
    ));
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
    let mut paths = Paths::new();
    for mut route in routes {
        schemas.append(&mut route.schemas);
        let mut item = std::mem::take(&mut route.item);
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            complete(operation, &route, &mut components);
        }
        paths.paths.insert(route.path.to_owned(), item);
    }
    components.schemas.extend(schemas);
    let document = whole(prefix, paths, components);
    document.to_pretty_json().unwrap_or_default() + "\n"
}

fn whole(prefix: &str, paths: Paths, components: Components) -> OpenApi {
    let licence = LicenseBuilder::new()
        .name("Apache-2.0")
        .identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("wukongim-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(licence.build()));
    let tags =
        TAGS.map(|(name, what)| TagBuilder::new().name(name).description(Some(what)).build());
    let mut errors = ExternalDocs::new("ERRORS.md");
    errors.description =
        Some("All error codes: what a client does, what an operator checks".to_owned());
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(prefix)]))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(
            BEARER,
            [],
        )]))
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components))
        .external_docs(Some(errors))
        .build()
}

/// Wraps the successes in the envelope, and adds the failures and headers.
fn complete(operation: &mut Operation, about: &Described, components: &mut Components) {
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status == "200", response) {
            succeed(response, about);
        }
    }
    failures::add(operation, about, components);
    if about.is_public {
        operation.security = Some(Vec::new());
    }
}

fn succeed(response: &mut Response, about: &Described) {
    for (name, header) in &mut response.headers {
        *header = headers::reference(name);
    }
    response.headers.extend(headers::of(200, about.is_public));
    let Some(RefOr::T(content)) = response.content.get_mut(JSON) else {
        return;
    };
    let data = content
        .schema
        .take()
        .unwrap_or_else(|| Object::new().into());
    let envelope = ObjectBuilder::new()
        .property("success", only(true))
        .property("data", data)
        .required("success")
        .required("data");
    let example = content
        .example
        .take()
        .map(|data| json!({"success": true, "data": data}));
    *content = ContentBuilder::new()
        .schema(Some(envelope))
        .example(example)
        .build();
}

fn only(value: bool) -> Object {
    let only = ObjectBuilder::new().schema_type(Type::Boolean);
    only.enum_values(Some([Value::Bool(value)])).build()
}

/// The `success` of a failure.
fn no() -> Object {
    only(false)
}
