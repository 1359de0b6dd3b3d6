//! v2's calls about a user's conversations. Paths and shapes as seen on v2.2.5 (one node, and a cluster of three with a manager token).

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{data, encode, stored_id};
use crate::domain::{Channel, Uid};
use crate::json::json_scan::JsonScanner;
use crate::json::template::{Reading, Record, Template, set_once};
use crate::wukongim::Error;
use crate::wukongim::call::{Answer, Call, Node};
use crate::wukongim::conversations::{Conversation, ConversationPage, channel_of};
use crate::wukongim::page::{MessageField, MessageFields, WireMessage, belongs_to, to_message};

/// v2 keeps no more rows of a user than this, the newest by row age (seen: 1,100 groups, 1,000 rows).
pub(crate) const MAX_ROWS: usize = 1000;
/// Limit of the list of ids: 1,000 of 511 bytes.
const MAX_IDS_BYTES: usize = 2 * 1024 * 1024;
/// Rows of stored pointers asked for: more than a user's conversations (seen: all are given).
const MAX_POINTERS: usize = 5000;
/// Limit of these: about 1 KiB a row.
const MAX_POINTERS_BYTES: usize = 8 * 1024 * 1024;

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct WireRow<'a> {
    /// The peer's uid, or the group's id.
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    channel_type: u8,
    unread: i64,
    /// Seconds.
    timestamp: i64,
    last_msg_seq: u64,
    /// Newest first.
    #[serde(borrow)]
    recents: Option<Vec<WireMessage<'a>>>,
}

/// A row, as it is read in one pass.
#[derive(Default)]
struct RowFields<'a> {
    channel_id: Option<&'a str>,
    channel_type: Option<u64>,
    unread: Option<u64>,
    timestamp: Option<u64>,
    last_msg_seq: Option<u64>,
    message: Option<MessageFields<'a>>,
}

#[derive(Clone, Copy)]
enum Field {
    ChannelId,
    ChannelType,
    Unread,
    Timestamp,
    LastSeq,
    Message(MessageField),
    /// Not used, but it differs in every row.
    Unused,
}

impl<'a> Record<'a> for RowFields<'a> {
    type Field = Field;

    fn take(&mut self, field: Field, scanner: &mut JsonScanner<'a>) -> Option<()> {
        match field {
            Field::ChannelId => set_once(&mut self.channel_id, scanner.string()?),
            Field::ChannelType => set_once(&mut self.channel_type, scanner.number()?),
            Field::Unread => set_once(&mut self.unread, scanner.number()?),
            Field::Timestamp => set_once(&mut self.timestamp, scanner.number()?),
            Field::LastSeq => set_once(&mut self.last_msg_seq, scanner.number()?),
            Field::Message(field) => self.message.get_or_insert_default().take(field, scanner),
            Field::Unused => scanner.value().map(|_| ()),
        }
    }

    fn read(reading: &mut Reading<'a, '_, Self>, scanner: &mut JsonScanner<'a>) -> Option<()> {
        let (mut recents, mut message) = (None, None);
        scanner.members(|scanner, name| {
            let field = match name {
                "channel_id" => Field::ChannelId,
                "channel_type" => Field::ChannelType,
                "unread" => Field::Unread,
                "timestamp" => Field::Timestamp,
                "last_msg_seq" => Field::LastSeq,
                "last_client_msg_no" | "offset_msg_seq" | "readed_to_msg_seq" | "version" => {
                    Field::Unused
                }
                "recents" => {
                    set_once(&mut recents, ())?;
                    return scanner.elements(|scanner| {
                        // No more than one is ever asked for.
                        set_once(&mut message, ())?;
                        MessageField::read_all(reading, scanner, Field::Message)
                    });
                }
                _ => return scanner.value().map(|_| ()),
            };
            reading.field(field, scanner)
        })?;
        recents
    }
}

impl<'a> RowFields<'a> {
    /// `None` where a field is missing that serde requires.
    fn into_row(self) -> Option<WireRow<'a>> {
        let recents = match self.message {
            Some(message) => vec![message.into_message()?],
            None => Vec::new(),
        };
        Some(WireRow {
            channel_id: self.channel_id?.into(),
            channel_type: self.channel_type?.try_into().ok()?,
            unread: self.unread?.try_into().ok()?,
            timestamp: self.timestamp?.try_into().ok()?,
            last_msg_seq: self.last_msg_seq?,
            recents: Some(recents),
        })
    }
}

/// Passes rows to `take` in one pass. After `None` serde must read them, and those passed before are void.
fn read_quickly<'a>(body: &'a [u8], mut take: impl FnMut(WireRow<'a>)) -> Option<()> {
    let mut template = Template::<RowFields<'_>>::default();
    let mut scanner = JsonScanner::of(body)?;
    scanner.elements(|scanner| {
        take(template.read(scanner)?.into_row()?);
        Some(())
    })?;
    scanner.end()
}

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
    channels: &[Channel],
    max_bytes: usize,
) -> Result<ConversationPage, Error> {
    let channels = channels.iter().map(|channel| WireChannel {
        channel_id: channel.id().into(),
        channel_type: channel.channel_type().number(),
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

fn rows(user: &Uid, answer: &Answer) -> Result<ConversationPage, Error> {
    let mut page = ConversationPage::new(answer);
    if answer.status == StatusCode::OK
        && read_quickly(&answer.body, |row| {
            page.add(to_conversation(user, answer, &row));
        })
        .is_some()
    {
        return Ok(page);
    }
    page = ConversationPage::new(answer);
    for row in data::<Vec<WireRow<'_>>>(answer)? {
        page.add(to_conversation(user, answer, &row));
    }
    Ok(page)
}

fn to_conversation(user: &Uid, answer: &Answer, row: &WireRow<'_>) -> Option<Conversation> {
    let channel = channel_of(user, &row.channel_id, row.channel_type)?;
    let newest = row.recents.iter().flatten().next();
    // Another channel's with the same storage key.
    if newest.is_some_and(|message| !belongs_to(message, user, &channel)) {
        return None;
    }
    let message = newest.map(|message| to_message(&answer.body, message));
    let last_seq = message
        .as_ref()
        .map_or(0, |message| message.seq)
        .max(row.last_msg_seq);
    Conversation {
        channel,
        last_seq,
        unread: row.unread.max(0).unsigned_abs(),
        active_ms: row.timestamp.max(0).unsigned_abs().saturating_mul(1000),
        message,
    }
    .if_shown()
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
    fn of(&self, channel: &Channel) -> u64 {
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
        Some((hasher.hash_one(&channel), row.readed_to_msg_seq))
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
    channels: &[Channel],
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
        channel_id: stored_id(user, channel),
        channel_type: channel.channel_type().number(),
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
            if !belongs_to(newest, user, &channel) {
                return None;
            }
            let message = to_message(&answer.body, newest);
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
    let mut merged = ConversationPage::default();
    for page in pages {
        merged.rows.extend(page.rows);
        merged.reservations.extend(page.reservations);
    }
    let channel = |row: &Conversation| {
        (
            row.channel.channel_type().number(),
            row.channel.id().to_owned(),
        )
    };
    let read_to = |row: &Conversation| row.last_seq - row.unread;
    merged
        .rows
        .sort_by_cached_key(|row| (channel(row), std::cmp::Reverse(row.last_seq)));
    merged.rows.dedup_by(|later, first| {
        let is_same = later.channel == first.channel;
        if is_same {
            // The node with the newest message may not have the user's own newest one, and the other way round.
            first.unread = first
                .unread
                .min(first.last_seq.saturating_sub(read_to(later)));
        }
        is_same
    });
    for row in &mut merged.rows {
        let unread = row.last_seq.saturating_sub(pointers.of(&row.channel));
        row.unread = row.unread.min(unread);
    }
    merged.received = merged.rows.len();
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wukongim::dialect::row_tests::RowReader;

    const ROW: &str = r#"{"channel_id":"群","channel_type":2,"unread":3,"timestamp":17,"last_msg_seq":151,"last_client_msg_no":"c","offset_msg_seq":0,"readed_to_msg_seq":148,"version":9,"recents":[{"header":{"red_dot":1},"setting":0,"message_id":7,"message_idstr":"7","client_msg_no":"c","message_seq":151,"from_uid":"alice","channel_id":"g","channel_type":2,"expire":0,"timestamp":17,"payload":"YQ=="}]}"#;

    fn page(rows: &[&str]) -> String {
        format!("[{}]", rows.join(","))
    }

    /// One pass reads what serde reads, and nothing that serde would refuse. Returns whether it reads this.
    fn agrees(body: &[u8]) -> bool {
        let mut quick = Vec::new();
        if read_quickly(body, |row| quick.push(row)).is_none() {
            return false;
        }
        let serde = serde_json::from_slice::<Vec<WireRow<'_>>>(body);
        assert_eq!(quick, serde.unwrap(), "{}", String::from_utf8_lossy(body));
        true
    }

    const READER: RowReader = RowReader {
        row: ROW,
        page,
        agrees,
    };

    #[test]
    fn recorded_rows_are_read_in_one_pass() {
        let recording = include_str!(
            "../../../../crates/dev-upstream/tests/recordings/v2.2.5-conversations.jsonl"
        );
        READER.reads_recorded(recording, |request| {
            let path = request["path"].as_str().unwrap();
            ["/conversation/sync", "/conversation/syncByChannels"].contains(&path)
                && request["body"]["msg_count"] == 1
        });
    }

    #[test]
    fn rows_of_any_shape_follow_each_other_and_the_rest_is_left_to_serde() {
        READER.reads_changed(&[
            ("\"群\"", "\"b\"", true),
            (r#""version":9"#, r#""version":null"#, true),
            (r#""unread":3"#, r#""unread":-3"#, false),
            (r#""unread":3"#, r#""unread":18446744073709551615"#, false),
            (r#""unread":3,"#, "", false),
            (r#""unread":3"#, r#""unread":3,"unread":3"#, false),
            (r#""channel_type":2"#, r#""channel_type":256"#, false),
            ("群", r"\u7fa4", false),
            (r#"[{"header""#, r#"[],"more":[{"header""#, true),
            (r#"[{"header""#, r#"null,"more":[{"header""#, false),
            (r#"[{"header""#, r#"[{},{"header""#, false),
            (r#"[{"header""#, r#"[],"recents":[{"header""#, false),
            (r#""message_id":7,"#, "", false),
            (r#","recents":["#, r#","other":["#, false),
        ]);
    }

    #[test]
    fn mutated_rows_are_read_as_serde_reads_them() {
        READER.reads_mutated();
    }
}
