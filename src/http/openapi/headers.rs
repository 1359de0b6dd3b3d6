//! The headers of answers.

use std::collections::BTreeMap;

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Components, Ref, RefOr};

pub(super) const REQUEST_ID: &str = "x-request-id";
pub(super) const HAS_MORE: &str = "x-has-more";
const NEXT_CURSOR: &str = "x-next-cursor";
const TOTAL_COUNT: &str = "x-total-count";
const RETRY_AFTER: &str = "Retry-After";
const WWW_AUTHENTICATE: &str = "WWW-Authenticate";
const LIMIT: &str = "RateLimit-Limit";
const REMAINING: &str = "RateLimit-Remaining";
const RESET: &str = "RateLimit-Reset";

/// Those of an answer with this status.
pub(super) fn of(status: u16, is_public: bool) -> BTreeMap<String, RefOr<Header>> {
    let names: &[&str] = match status {
        401 => &[REQUEST_ID, WWW_AUTHENTICATE],
        431 => &[REQUEST_ID],
        503 if is_public => &[REQUEST_ID, RETRY_AFTER],
        _ if is_public => &[REQUEST_ID],
        429 | 503 => &[REQUEST_ID, RETRY_AFTER, LIMIT, REMAINING, RESET],
        _ => &[REQUEST_ID, LIMIT, REMAINING, RESET],
    };
    names
        .iter()
        .map(|name| ((*name).to_owned(), reference(name)))
        .collect()
}

/// The header with this name, as a response refers to it.
pub(super) fn reference(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

/// Adds all of them.
pub(super) fn add_to(components: &mut Components) {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let number = |minimum| {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(minimum))
    };
    let mut add = |name: &str, is_required: bool, schema: ObjectBuilder, description: &str| {
        let header = HeaderBuilder::new().schema(Some(schema));
        let mut header = header.description(Some(description)).build();
        // utoipa's header has no such field.
        header.extensions = is_required.then(|| Extensions::from_iter([("required", true)]));
        components.headers.insert(name.to_owned(), header.into());
    };
    let about = "The request's own id if it had a valid one, else a new one; also in the log.";
    let id = text().pattern(Some("^[A-Za-z0-9._-]{1,128}$"));
    add(REQUEST_ID, true, id, about);
    let about = "Whether there are more entries in the requested direction.";
    let more = text().enum_values(Some(["true", "false"]));
    add(HAS_MORE, true, more, about);
    let about = "The `cursor` of the next page. Absent on the last one.";
    let cursor = text().pattern(Some("^[A-Za-z0-9_-]+$"));
    add(NEXT_CURSOR, false, cursor, about);
    let about = "How many entries all pages have together.";
    add(TOTAL_COUNT, false, number(0), about);
    let about = "Seconds after which to retry.";
    add(RETRY_AFTER, true, number(1), about);
    let bearer = text().enum_values(Some(["Bearer"]));
    add(WWW_AUTHENTICATE, true, bearer, "How to authenticate.");
    let about =
        "The size of the user's token bucket. On every answer to a user with a valid token.";
    add(LIMIT, false, number(1), about);
    add(REMAINING, false, number(0), "Tokens left in it.");
    let about = "Seconds until it is full again.";
    add(RESET, false, number(0), about);
}
