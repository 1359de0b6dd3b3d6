//! v2's calls about a user's conversations. Paths and shapes as seen on v2.2.5 (one node, and a cluster of three with a manager token).

use std::borrow::Cow;
use std::cmp::Reverse;
use std::hash::{BuildHasher as _, RandomState};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::conversation_rows::rows;
use super::{data, encode, stored_id};
use crate::domain::{ChannelRef, Uid};
use crate::wukongim::Error;
use crate::wukongim::call::{Call, Node};
use crate::wukongim::conversations::{Conversation, ConversationPage, channel_of};
use crate::wukongim::page::{WireMessage, belongs_to};

/// v2 keeps no more rows of a user than this, the newest by row age (seen: 1,100 groups, 1,000 rows).
pub(crate) const MAX_ROWS: usize = 1000;
/// Limit of the list of ids: 1,000 of 511 bytes.
const MAX_IDS_BYTES: usize = 2 * 1024 * 1024;
/// Rows of stored pointers asked for: more than a user's conversations (seen: all are given).
const MAX_POINTERS: usize = 5000;
/// Limit of these: about 1 KiB a row.
const MAX_POINTERS_BYTES: usize = 8 * 1024 * 1024;

/// A channel in a request.
#[derive(Serialize)]
struct WireChannel<'a> {
    channel_id: Cow<'a, str>,
    channel_type: u8,
    /// Only for `syncMessages`: 0 for the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_msg_seq: Option<u64>,
}

/// `POST /conversation/sync`: the rows from `offset` on, at most `size`, which divides it. Groups without messages are left out after
/// the cut, so a page may be short or empty in the middle (seen).
pub(crate) async fn page(
    node: &Node,
    user: &Uid,
    offset: usize,
    size: usize,
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    let body = json!({
        "uid": user.as_str(),
        "version": 0,
        "last_msg_seqs": "",
        // 0 gives no rows at all (seen).
        "msg_count": 1,
        "page": offset / size + 1,
        "page_size": size,
    });
    let call = Call::post("conversation_sync", "/conversation/sync", &body).max_bytes(max_bytes);
    rows(user, &node.call(call).await?)
}

/// `POST /conversation/syncByChannels`: the rows of these channels. v2 does not check that they are the user's, and gives a row without
/// messages for an unknown one (both seen).
pub(crate) async fn of_channels(
    node: &Node,
    user: &Uid,
    channels: &[ChannelRef<'_>],
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    let channels = channels.iter().map(|channel| WireChannel {
        channel_id: channel.id.into(),
        channel_type: channel.channel_type.number(),
        last_msg_seq: None,
    });
    let channels: Vec<_> = channels.collect();
    let body = json!({"uid": user.as_str(), "channels": channels, "msg_count": 1});
    let path = "/conversation/syncByChannels";
    let call = Call::post("conversation_channels", path, &body).max_bytes(max_bytes);
    let answer = node.call(call).await?;
    let page = rows(user, &answer)?;
    if page.received < channels.len() {
        return Err(Error::Decode(answer.call));
    }
    Ok(page)
}

/// `POST /conversation/channels`: the user's channels, at most [`MAX_ROWS`], a pair by its stored id; with those without messages and the
/// hidden ones (seen).
pub(crate) async fn channel_ids(node: &Node, user: &Uid) -> Result<Vec<(String, u8)>, Error> {
    #[derive(Deserialize)]
    struct Id {
        channel_id: String,
        channel_type: u8,
    }
    let body = json!({"uid": user.as_str()});
    let call = Call::post("conversation_ids", "/conversation/channels", &body);
    let answer = node.call(call.max_bytes(MAX_IDS_BYTES)).await?;
    let ids: Vec<Id> = data(&answer)?;
    let pair = |id: Id| (id.channel_id, id.channel_type);
    Ok(ids.into_iter().map(pair).collect())
}

/// How far the user has read, by channel.
pub(crate) struct Pointers {
    hasher: RandomState,
    /// By the hash of the channel, sorted.
    seqs: Vec<(u64, u64)>,
}

impl Pointers {
    fn of(&self, channel: ChannelRef<'_>) -> u64 {
        let hash = self.hasher.hash_one(channel);
        let found = self.seqs.binary_search_by_key(&hash, |(hash, _)| *hash);
        found.map_or(0, |index| self.seqs[index].1)
    }
}

/// `GET /cluster/conversations`: the stored read pointers of the user's conversations (a row younger than a minute may have none yet).
pub(crate) async fn pointers(node: &Node, user: &Uid) -> Result<Pointers, Error> {
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        channel_id: Cow<'a, str>,
        channel_type: u8,
        readed_to_msg_seq: u64,
    }
    #[derive(Deserialize)]
    struct Rows<'a> {
        #[serde(borrow)]
        data: Option<Vec<Row<'a>>>,
    }
    let uid = encode(user.as_str());
    let path = format!("/cluster/conversations?uid={uid}&limit={MAX_POINTERS}");
    let call = Call::get("conversation_pointers", path).max_bytes(MAX_POINTERS_BYTES);
    let answer = node.call(call).await?;
    let rows: Rows<'_> = data(&answer)?;
    let hasher = RandomState::new();
    let seqs = rows.data.into_iter().flatten().filter_map(|row| {
        let channel = channel_of(user, &row.channel_id, row.channel_type)?;
        Some((hasher.hash_one(channel), row.readed_to_msg_seq))
    });
    let mut seqs: Vec<_> = seqs.collect();
    seqs.sort_unstable();
    Ok(Pointers { hasher, seqs })
}

/// `POST /conversation/syncMessages`: the newest message of each channel in this node's own storage; the rows are without the user's
/// read pointers, see [`merge`].
pub(crate) async fn own_messages(
    node: &Node,
    user: &Uid,
    channels: &[ChannelRef<'_>],
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    #[derive(Deserialize)]
    struct Row<'a> {
        /// A pair's stored id.
        #[serde(borrow)]
        channel_id: Cow<'a, str>,
        channel_type: u8,
        #[serde(borrow)]
        messages: Option<Vec<WireMessage<'a>>>,
        /// The user's own newest message.
        #[serde(default)]
        user_last_msg_seq: u64,
    }
    let asked = channels.iter().map(|channel| WireChannel {
        channel_id: stored_id(user, *channel),
        channel_type: channel.channel_type.number(),
        last_msg_seq: Some(0),
    });
    let asked: Vec<_> = asked.collect();
    let body = json!({"uid": user.as_str(), "channels": asked, "msg_count": 1, "order_by_last": 1});
    let path = "/conversation/syncMessages";
    let call = Call::post("conversation_messages", path, &body).max_bytes(max_bytes);
    let answer = node.call(call).await?;
    let wire: Option<Vec<Row<'_>>> = data(&answer)?;
    let mut page = ConversationPage::new(&answer);
    for row in wire.unwrap_or_default() {
        let newest = row.messages.iter().flatten();
        let newest = newest.max_by_key(|message| message.message_seq);
        page.add(newest.and_then(|newest| {
            let channel = channel_of(user, &row.channel_id, row.channel_type)?;
            if !belongs_to(newest, user, channel) {
                return None;
            }
            let message = newest.borrowed();
            Some(Conversation {
                channel,
                last_seq: message.seq,
                unread: message.seq.saturating_sub(row.user_last_msg_seq),
                active_ms: message.timestamp_ms,
                message: Some(message),
            })
        }));
    }
    Ok(page)
}

/// The rows of all nodes' [`own_messages`]: of each channel that with the highest seq, unread as by the read pointers and by the user's own
/// messages, which count as read.
pub(crate) fn merge(pages: Vec<ConversationPage>, pointers: &Pointers) -> ConversationPage {
    let mut rows: Vec<Conversation<'_>> = pages.iter().flat_map(ConversationPage::iter).collect();
    rows.sort_by_key(|row| {
        let ChannelRef { channel_type, id } = row.channel;
        (channel_type.number(), id, Reverse(row.last_seq))
    });
    rows.dedup_by(|later, first| {
        let is_same = later.channel == first.channel;
        if is_same {
            // The node with the newest message may not have the user's own newest one, and the other way round.
            let unread = first.last_seq.saturating_sub(later.read_to());
            first.unread = first.unread.min(unread);
        }
        is_same
    });
    let mut merged = ConversationPage::default();
    for mut row in rows {
        let unread = row.last_seq.saturating_sub(pointers.of(row.channel));
        row.unread = row.unread.min(unread);
        merged.add(Some(row));
    }
    merged.reservations = pages
        .into_iter()
        .flat_map(|page| page.reservations)
        .collect();
    merged
}
