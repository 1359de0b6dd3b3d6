//! v3's calls about a user's conversations. Paths and shapes as seen on a running server (beta of 2026-08).

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::refusal;
use crate::domain::{Channel, Message, MessageId, MessageText, Uid};
use crate::wukongim::call::{Answer, Call, Node};
use crate::wukongim::conversations::{Conversation, ConversationPage, channel_of};
use crate::wukongim::{Error, Reason};

/// The most candidates of one page (seen: 201 is 400).
pub(crate) const MAX_PAGE_ROWS: usize = 200;

#[derive(Deserialize)]
struct WirePage<'a> {
    #[serde(borrow)]
    conversations: Vec<WireRow<'a>>,
    /// Left and disbanded groups, and live ones without messages (seen): not read.
    #[serde(default)]
    unresolved: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(borrow, default)]
    next_cursor: Cow<'a, str>,
    done: bool,
}

#[derive(Deserialize)]
struct WireRow<'a> {
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    channel_type: u8,
    /// Nanoseconds; 0 for one that was never activated.
    #[serde(default)]
    active_at: u64,
    #[serde(default)]
    read_seq: u64,
    #[serde(default)]
    deleted_to_seq: u64,
    unread: u64,
    #[serde(borrow)]
    last_message: Option<LastMessage<'a>>,
}

#[derive(Deserialize)]
struct LastMessage<'a> {
    message_id: u64,
    message_seq: u64,
    #[serde(borrow, default)]
    from_uid: Cow<'a, str>,
    #[serde(borrow, default)]
    client_msg_no: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Cow<'a, str>,
}

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
    let wire = parse(&answer)?;
    let next = match (wire.done, &*wire.next_cursor) {
        (true, _) => None,
        // It would never end.
        (false, next) if next.is_empty() || next == cursor => {
            return Err(Error::Decode(answer.call));
        }
        (false, next) => Some(next.to_owned()),
    };
    let page = rows(user, &answer, wire);
    Ok(Page { page, next })
}

/// `POST /conversation/retry`: the rows of these channels, at most [`MAX_PAGE_ROWS`]; none for a channel that is not the user's (seen).
pub(crate) async fn of_channels(
    node: &Node,
    user: &Uid,
    channels: &[Channel],
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    let channels = channels.iter().map(|channel| {
        json!({"channel_id": channel.id(), "channel_type": channel.channel_type().number()})
    });
    let channels: Vec<_> = channels.collect();
    let body = json!({"uid": user.as_str(), "channels": channels});
    let path = "/conversation/retry";
    let call = Call::post("conversation_channels", path, &body).max_bytes(max_bytes);
    let answer = node.call(call).await?;
    let wire = parse(&answer)?;
    if !wire.done {
        return Err(Error::Decode(answer.call));
    }
    Ok(rows(user, &answer, wire))
}

fn parse(answer: &Answer) -> Result<WirePage<'_>, Error> {
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    answer.json()
}

fn rows(user: &Uid, answer: &Answer, wire: WirePage<'_>) -> ConversationPage {
    let received = wire.conversations.len();
    let rows = wire.conversations.into_iter().filter_map(|row| {
        let channel = channel_of(user, &row.channel_id, row.channel_type)?;
        let message = row.last_message.map(|message| {
            let id = MessageId(message.message_id);
            let texts = MessageText {
                from_uid: &*message.from_uid,
                client_msg_no: &*message.client_msg_no,
                payload: &*message.payload,
            };
            // As a history has it, where v3 gives no time of messages sent over HTTP.
            Message::within(&answer.body, id, message.message_seq, id.unix_ms(), texts)
        });
        let read_to = row.read_seq.max(row.deleted_to_seq);
        let seen = read_to.saturating_add(row.unread);
        Conversation {
            channel,
            last_seq: message.as_ref().map_or(seen, |message| message.seq),
            unread: row.unread,
            active_ms: row.active_at / 1_000_000,
            message,
        }
        .if_shown()
    });
    let mut page = ConversationPage::new(rows.collect(), received, answer);
    page.complete = wire
        .unresolved
        .is_none_or(|unresolved| unresolved.is_empty());
    page
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
