//! v3's calls about a user's conversations. Paths and shapes as seen on a running server (beta of 2026-08).

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::conversation_rows::parse;
use super::refusal;
use crate::domain::{ChannelRef, Uid};
use crate::wukongim::call::{Answer, Call, Node};
use crate::wukongim::conversations::ConversationPage;
use crate::wukongim::{Error, Reason};

/// The most candidates of one page (seen: 201 is 400).
pub(crate) const MAX_PAGE_ROWS: usize = 200;

/// A page of the walk, and how it continues.
pub(crate) struct Page {
    pub(crate) page: ConversationPage,
    /// `None` at the end.
    pub(crate) next: Option<String>,
}

/// `POST /conversation/list`: the page after `cursor` (empty for the first) of at most `size` candidates; it may be short or empty.
pub(crate) async fn page(
    node: &Node,
    user: &Uid,
    cursor: &str,
    size: usize,
    max_bytes: usize,
) -> Result<Page, Error> {
    let mut body = json!({"uid": user.as_str(), "limit": size});
    if !cursor.is_empty() {
        body["cursor"] = cursor.into();
    }
    let call = Call::post("conversation_list", "/conversation/list", &body).max_bytes(max_bytes);
    let answer = node.call(call).await?;
    let (page, wire) = parse(user, &answer)?;
    let next = match (wire.done, &*wire.next_cursor) {
        (true, _) => None,
        // It would never end.
        (false, next) if next.is_empty() || next == cursor => {
            return Err(Error::Decode(answer.call));
        }
        (false, next) => Some(next.to_owned()),
    };
    Ok(Page { page, next })
}

/// `POST /conversation/retry`: the rows of these channels, at most [`MAX_PAGE_ROWS`]; none for a channel that is not the user's (seen).
pub(crate) async fn of_channels(
    node: &Node,
    user: &Uid,
    channels: &[ChannelRef<'_>],
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    let channels = channels.iter().map(
        |channel| json!({"channel_id": channel.id, "channel_type": channel.channel_type.number()}),
    );
    let channels: Vec<_> = channels.collect();
    let body = json!({"uid": user.as_str(), "channels": channels});
    let path = "/conversation/retry";
    let call = Call::post("conversation_channels", path, &body).max_bytes(max_bytes);
    let answer = node.call(call).await?;
    let (page, wire) = parse(user, &answer)?;
    if !wire.done {
        return Err(Error::Decode(answer.call));
    }
    Ok(page)
}

/// The answer to a send to a list of uids: v3 has it not stored, so without a seq.
pub(crate) fn command_sent(answer: &Answer) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Sent {
        reason: i64,
    }
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    match answer.json::<Sent>()?.reason {
        1 => Ok(()),
        reason => Err(Error::Refused(Reason(reason))),
    }
}
