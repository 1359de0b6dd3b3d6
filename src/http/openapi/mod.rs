//! The OpenAPI document, built from the handlers' own documentation and the parts common to all: the envelope, the failures of each kind of
//! operation, the headers, the bearer token. The English one also has the Chinese summaries; in the Chinese one they take the place of the
//! English ones. Knows no route.

mod failures;
mod headers;
mod values;

use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::extensions::Extensions;
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

use crate::http::errors::{ApiError, Lang, LocalizedText};

pub use values::{MessageSeq, UnixMs};

const JSON: &str = "application/json";
/// Request id and client_msg_no in examples.
const REQUEST_ID: &str = "62594eb9ff9f49d281ae136bce06db32";
const CLIENT_MSG_NO: &str = "note-1";
const BEARER: &str = "bearer";
/// An operation's `summary` in Chinese.
const SUMMARY_ZH: &str = "x-summary-zh";
/// A `description` in Chinese: of the document and of its tags.
const DESCRIPTION_ZH: &str = "x-description-zh";

const ABOUT: LocalizedText = LocalizedText {
    en: ABOUT_EN,
    zh: ABOUT_ZH,
};
const ABOUT_EN: &str = "\
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
const ABOUT_ZH: &str = "\
悟空IM 前面的 HTTP 网关。

每个响应都是统一的信封：`{\"success\":true,\"data\":…}`，或 `{\"success\":false,\"message\":\"…\",\"code\":\"…\",\"requestId\":\"…\"}`。\
程序判断 `code`，它永远不变；`message` 给用户看，默认中文，`Accept-Language` 更偏好英文时为英文。[全部错误码](ERRORS.md)及处理办法。

每个响应都带 `x-request-id`：请求自带的值若由 1 到 128 个 `[A-Za-z0-9._-]` 组成则沿用，否则新生成。未知路径返回 404 \
[`not_found`](ERRORS.md#not_found)；路径不支持的方法返回 405 [`method_not_allowed`](ERRORS.md#method_not_allowed)，并带 `Allow`。

`maxLength` 和 `maxItems` 是任何部署都不会超过的上限，`maxLength` 按字符计。实际部署的限制可能更小，有些按字节计：见 `GET /config` 的 `limits`。\
未知字段会被忽略；可选字段或可选请求体传 `null` 等于不传；同一字段出现两次会被拒绝。

请求体是 UTF-8 的 JSON，不能带 `Content-Encoding`，开头的 BOM 会被忽略。响应不可缓存（`Cache-Control: no-store`）。\
请求头超过 32 KiB，或 Token 超过 16 KiB，返回 431 [`headers_too_large`](ERRORS.md#headers_too_large)；请求头超过 100 行时返回 431，没有信封。";

/// Each tag with its description.
const TAGS: [(&str, LocalizedText); 5] = [
    (
        "connection",
        LocalizedText {
            en: "Addresses and tokens for connections to WuKongIM.",
            zh: "连接悟空IM的地址与 Token。",
        },
    ),
    (
        "messages",
        LocalizedText {
            en: "Sending messages and reading histories.",
            zh: "发送消息，同步历史消息。",
        },
    ),
    (
        "conversations",
        LocalizedText {
            en: "A user's own conversations: the list, unread counts, deletion.",
            zh: "用户自己的最近会话：列表、未读数、删除。",
        },
    ),
    (
        "channels",
        LocalizedText {
            en: "Groups and the roles of their users.",
            zh: "群频道及其成员的角色。",
        },
    ),
    (
        "system",
        LocalizedText {
            en: "Health and information about WuKongIM.",
            zh: "悟空IM的健康状况与系统信息。",
        },
    ),
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

/// The document of these routes below `prefix` with summaries in this language, as readable JSON.
pub fn document(prefix: &str, lang: Lang, routes: impl Iterator<Item = Described>) -> String {
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
            if lang == Lang::Zh {
                operation.summary = chinese_summary(operation);
            }
        }
        paths.paths.insert(route.path.to_owned(), item);
    }
    components.schemas.extend(schemas);
    let document = whole(prefix, lang, paths, components);
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// What takes the place of the English summary; the document has it once.
fn chinese_summary(operation: &mut Operation) -> Option<String> {
    let extensions = operation.extensions.take()?;
    extensions.get(SUMMARY_ZH)?.as_str().map(str::to_owned)
}

/// A description in this language, and where that is English the extension with the Chinese one.
fn described(text: LocalizedText, lang: Lang) -> (&'static str, Option<Extensions>) {
    let chinese = || Extensions::from_iter([(DESCRIPTION_ZH, text.zh)]);
    (text.in_lang(lang), (lang == Lang::En).then(chinese))
}

fn whole(prefix: &str, lang: Lang, paths: Paths, components: Components) -> OpenApi {
    let licence = LicenseBuilder::new()
        .name("Apache-2.0")
        .identifier(Some("Apache-2.0"));
    let (about, chinese) = described(ABOUT, lang);
    let info = InfoBuilder::new()
        .title("wukongim-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .license(Some(licence.build()))
        .extensions(chinese);
    let tags = TAGS.map(|(name, text)| {
        let (what, chinese) = described(text, lang);
        let tag = TagBuilder::new().name(name).description(Some(what));
        tag.extensions(chinese).build()
    });
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
