//! `GET /channel/subscribers`: the members of a group.

use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use utoipa::{IntoParams, ToSchema};

use super::channels::actor;
use super::conversations::{bad_cursor, limit, write_paging};
use super::synced;
use crate::auth::Caller;
use crate::channels::{MemberPage, MemberPosition, Role};
use crate::domain::ChannelId;
use crate::http::envelope::success;
use crate::http::errors::Failure;
use crate::http::extract::{Cursor, GroupType, MAX_NUMBER, Number, Query, request};
use crate::state::App;

/// Rows of a page when the request has no limit.
const DEFAULT_ROWS: u64 = 100;
/// Rows of a page at most.
const MAX_ROWS: u64 = 500;
/// The name of the list in its cursors.
const LIST: &str = "subscribers";
/// Bytes of a row besides the uid.
const ROW_OVERHEAD: usize = 32;

request! {
    /// A page of a group's subscribers.
    #[derive(Debug, IntoParams)]
    #[into_params(parameter_in = Query)]
    pub(super) struct ListSubscribersRequest: param {
        /// The group's id.
        "channelId" => channel_id: ChannelId,
        /// 2: a group.
        "channelType" => channel_type: GroupType,
        /// The maximum number of subscribers, 100 by default; more than 500 means 500.
        #[param(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_usize)]
        "limit" => limit: Option<Number<1, MAX_NUMBER>>,
        /// Where the page begins: the `x-next-cursor` of the page before, which is opaque. Without it the first page.
        #[param(value_type = Option<String>, max_length = 512, pattern = "^[A-Za-z0-9_-]*$")]
        "cursor" => cursor: Option<Cursor>,
    }
}

/// A subscriber of a group.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "`write` writes it; this is its shape")]
pub(super) struct Subscriber {
    uid: String,
    role: SubscriberRole,
}

/// The role of a subscriber.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "`write` writes it; this is its shape")]
pub(super) enum SubscriberRole {
    Owner,
    Manager,
    Member,
}

/// Lists the subscribers of a group: the owner first, then managers, then by uid; for its subscribers, its owner and admins.
///
/// Owner and managers are listed only while they are subscribers. A deployment may hide the list from ordinary members.
#[utoipa::path(
    get,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("群频道的订阅者列表：群主在前，其次管理员，再按 uid 排序"))),
    params(ListSubscribersRequest),
    responses((
        status = 200, description = "The subscribers.", headers(("x-has-more"), ("x-next-cursor"), ("x-total-count")),
        body = [Subscriber], example = json!([
            {"uid": "user1", "role": "owner"}, {"uid": "user2", "role": "manager"}, {"uid": "user3", "role": "member"}
        ])
    ))
)]
pub(super) async fn list_subscribers(
    caller: Caller,
    State(app): State<App>,
    Query(request): Query<ListSubscribersRequest>,
) -> Result<Response, Failure> {
    let ListSubscribersRequest {
        channel_id: group,
        channel_type: GroupType,
        ..
    } = request;
    let after = request.cursor.map(|Cursor(cursor)| {
        let position = app.cursors.open(LIST, group.as_str(), &cursor);
        let position = position.and_then(|bytes| MemberPosition::from_bytes(&bytes));
        position.ok_or_else(bad_cursor)
    });
    let after = after.transpose()?;
    let limit = limit(request.limit, DEFAULT_ROWS, MAX_ROWS);
    let subscribers = &app.subscribers;
    let page = subscribers
        .page(actor(&caller), &group, after.as_ref(), limit)
        .await?;
    let size = page.iter().map(|(uid, _)| uid.len() + ROW_OVERHEAD).sum();
    let mut response = success(size, |out| write(out, &page));
    let next = page.next().map(|position| position.to_bytes());
    let headers = response.headers_mut();
    write_paging(headers, &app.cursors, LIST, group.as_str(), next);
    headers.insert("x-total-count", HeaderValue::from(page.total()));
    Ok(response)
}

/// Writes a list of [`Subscriber`].
fn write(out: &mut Vec<u8>, page: &MemberPage) {
    out.push(b'[');
    for (index, (uid, role)) in page.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"uid":"#);
        synced::write_escaped(out, uid.as_bytes());
        out.extend_from_slice(match role {
            Role::Owner => br#","role":"owner"}"#,
            Role::Manager => br#","role":"manager"}"#,
            Role::Member => br#","role":"member"}"#,
        });
    }
    out.push(b']');
}
