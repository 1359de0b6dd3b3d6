//! Reading the rows of v2's answers about conversations. Shapes as seen on v2.2.5.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;

use super::data;
use crate::domain::Uid;
use crate::json::json_scan::JsonScanner;
use crate::json::template::{Reading, Record, Template, set_once};
use crate::wukongim::Error;
use crate::wukongim::call::Answer;
use crate::wukongim::conversations::{Conversation, ConversationPage, channel_of};
use crate::wukongim::page::{MessageField, MessageFields, WireMessage, belongs_to};

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

/// The rows of an answer.
pub(super) fn rows(user: &Uid, answer: &Answer) -> Result<ConversationPage, Error> {
    let mut page = ConversationPage::new(answer);
    if answer.status == StatusCode::OK
        && read_quickly(&answer.body, |row| {
            page.add(to_conversation(user, &row));
        })
        .is_some()
    {
        return Ok(page);
    }
    page = ConversationPage::new(answer);
    for row in data::<Vec<WireRow<'_>>>(answer)? {
        page.add(to_conversation(user, &row));
    }
    Ok(page)
}

fn to_conversation<'a>(user: &Uid, row: &'a WireRow<'_>) -> Option<Conversation<'a>> {
    let channel = channel_of(user, &row.channel_id, row.channel_type)?;
    let newest = row.recents.iter().flatten().next();
    // Another channel's with the same storage key.
    if newest.is_some_and(|message| !belongs_to(message, user, channel)) {
        return None;
    }
    let message = newest.map(WireMessage::borrowed);
    Conversation {
        channel,
        last_seq: message
            .map_or(0, |message| message.seq)
            .max(row.last_msg_seq),
        unread: row.unread.max(0).unsigned_abs(),
        active_ms: row.timestamp.max(0).unsigned_abs().saturating_mul(1000),
        message,
    }
    .if_shown()
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
