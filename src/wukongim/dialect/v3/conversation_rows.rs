//! Reading the rows of v3's answers about conversations. Shapes as seen on a running server (beta of 2026-08).

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::refusal;
use crate::domain::{MessageId, MessageRef, MessageText, Uid};
use crate::json::json_scan::JsonScanner;
use crate::json::template::{Reading, Record, Template, set_once};
use crate::wukongim::Error;
use crate::wukongim::call::Answer;
use crate::wukongim::conversations::{Conversation, ConversationPage, channel_of};
use crate::wukongim::page::{MessageField, MessageFields, are_raw};

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct WirePage<'a> {
    #[serde(borrow)]
    conversations: Vec<WireRow<'a>>,
    /// Left and disbanded groups, and live ones without messages (seen): not read.
    #[serde(default)]
    unresolved: Option<Vec<IgnoredAny>>,
    #[serde(borrow, default)]
    pub(super) next_cursor: Cow<'a, str>,
    pub(super) done: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
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
#[cfg_attr(test, derive(Debug, PartialEq))]
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

/// A row, as it is read in one pass.
#[derive(Default)]
struct RowFields<'a> {
    channel_id: Option<&'a str>,
    channel_type: Option<u64>,
    active_at: Option<u64>,
    read_seq: Option<u64>,
    deleted_to_seq: Option<u64>,
    unread: Option<u64>,
    message: Option<MessageFields<'a>>,
}

#[derive(Clone, Copy)]
enum Field {
    ChannelId,
    ChannelType,
    ActiveAt,
    ReadSeq,
    DeletedToSeq,
    Unread,
    Message(MessageField),
}

impl<'a> Record<'a> for RowFields<'a> {
    type Field = Field;

    fn take(&mut self, field: Field, scanner: &mut JsonScanner<'a>) -> Option<()> {
        match field {
            Field::ChannelId => set_once(&mut self.channel_id, scanner.string()?),
            Field::ChannelType => set_once(&mut self.channel_type, scanner.number()?),
            Field::ActiveAt => set_once(&mut self.active_at, scanner.number()?),
            Field::ReadSeq => set_once(&mut self.read_seq, scanner.number()?),
            Field::DeletedToSeq => set_once(&mut self.deleted_to_seq, scanner.number()?),
            Field::Unread => set_once(&mut self.unread, scanner.number()?),
            Field::Message(field) => self.message.get_or_insert_default().take(field, scanner),
        }
    }

    fn read(reading: &mut Reading<'a, '_, Self>, scanner: &mut JsonScanner<'a>) -> Option<()> {
        let mut message = None;
        scanner.members(|scanner, name| {
            let field = match name {
                "channel_id" => Field::ChannelId,
                "channel_type" => Field::ChannelType,
                "active_at" => Field::ActiveAt,
                "read_seq" => Field::ReadSeq,
                "deleted_to_seq" => Field::DeletedToSeq,
                "unread" => Field::Unread,
                "last_message" => {
                    set_once(&mut message, ())?;
                    scanner.pass_space();
                    if scanner.word("null").is_some() {
                        return Some(());
                    }
                    return MessageField::read_all(reading, scanner, Field::Message);
                }
                _ => return scanner.value().map(|_| ()),
            };
            reading.field(field, scanner)
        })
    }
}

impl<'a> RowFields<'a> {
    /// `None` where a field is missing that serde requires.
    fn into_row(self) -> Option<WireRow<'a>> {
        let last_message = self.message.map(|message| {
            Some(LastMessage {
                message_id: message.id?,
                message_seq: message.seq?,
                from_uid: message.from.unwrap_or_default().into(),
                client_msg_no: message.client_msg_no.unwrap_or_default().into(),
                payload: message.payload.unwrap_or_default().into(),
            })
        });
        Some(WireRow {
            channel_id: self.channel_id?.into(),
            channel_type: self.channel_type?.try_into().ok()?,
            active_at: self.active_at.unwrap_or_default(),
            read_seq: self.read_seq.unwrap_or_default(),
            deleted_to_seq: self.deleted_to_seq.unwrap_or_default(),
            unread: self.unread?,
            last_message: match last_message {
                Some(message) => Some(message?),
                None => None,
            },
        })
    }
}

/// Passes a page's rows to `take` in one pass, and returns the page without them. After `None` serde must read it, and the rows passed
/// before are void.
fn read_quickly<'a>(body: &'a [u8], mut take: impl FnMut(WireRow<'a>)) -> Option<WirePage<'a>> {
    let (mut rows, mut unresolved, mut next_cursor, mut done) = (None, None, None, None);
    let mut scanner = JsonScanner::of(body)?;
    scanner.members(|scanner, name| match name {
        "conversations" => {
            set_once(&mut rows, Vec::new())?;
            let mut template = Template::<RowFields<'_>>::default();
            scanner.elements(|scanner| {
                take(template.read(scanner)?.into_row()?);
                Some(())
            })
        }
        "unresolved" => {
            let mut all = Vec::new();
            scanner.elements(|scanner| {
                all.push(IgnoredAny);
                scanner.value().map(|_| ())
            })?;
            set_once(&mut unresolved, all)
        }
        "next_cursor" => set_once(&mut next_cursor, scanner.string()?),
        "done" => match scanner.value()? {
            "true" => set_once(&mut done, true),
            "false" => set_once(&mut done, false),
            _ => None,
        },
        _ => scanner.value().map(|_| ()),
    })?;
    scanner.end()?;
    Some(WirePage {
        conversations: rows?,
        unresolved,
        next_cursor: next_cursor.unwrap_or_default().into(),
        done: done?,
    })
}

/// The rows of an answer, and what it has besides them.
pub(super) fn parse<'a>(
    user: &Uid,
    answer: &'a Answer,
) -> Result<(ConversationPage, WirePage<'a>), Error> {
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    let mut page = ConversationPage::new(answer);
    let quick = read_quickly(&answer.body, |row| {
        page.add(to_conversation(user, &row));
    });
    let wire = match quick {
        Some(wire) => wire,
        None => {
            page = ConversationPage::new(answer);
            let wire: WirePage<'_> = answer.json()?;
            for row in &wire.conversations {
                page.add(to_conversation(user, row));
            }
            wire
        }
    };
    let unresolved = wire.unresolved.as_ref();
    page.is_partial = unresolved.is_some_and(|rows| !rows.is_empty());
    Ok((page, wire))
}

fn to_conversation<'a>(user: &Uid, row: &'a WireRow<'_>) -> Option<Conversation<'a>> {
    let message = row.last_message.as_ref().map(|message| {
        let LastMessage {
            from_uid,
            client_msg_no,
            payload,
            ..
        } = message;
        let id = MessageId(message.message_id);
        MessageRef {
            id,
            seq: message.message_seq,
            // As a history has it, where v3 gives no time of messages sent over HTTP.
            timestamp_ms: id.unix_ms(),
            texts: MessageText {
                from_uid: from_uid.as_bytes(),
                client_msg_no: client_msg_no.as_bytes(),
                payload: payload.as_bytes(),
            },
            needs_no_escape: are_raw([from_uid, client_msg_no, payload]),
        }
    });
    let read_to = row.read_seq.max(row.deleted_to_seq);
    let seen = read_to.saturating_add(row.unread);
    Conversation {
        channel: channel_of(user, &row.channel_id, row.channel_type)?,
        last_seq: message.map_or(seen, |message| message.seq),
        unread: row.unread,
        active_ms: row.active_at / 1_000_000,
        message,
    }
    .if_shown()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wukongim::dialect::row_tests::RowReader;

    const ROW: &str = r#"{"channel_id":"群","channel_type":2,"active_at":5,"read_seq":148,"deleted_to_seq":0,"unread":3,"last_message":{"message_id":7,"message_idstr":"7","client_msg_no":"c","message_seq":151,"from_uid":"alice","payload":"YQ==","server_timestamp_ms":8}}"#;

    fn page(rows: &[&str]) -> String {
        let rows = rows.join(",");
        format!(
            r#"{{"conversations":[{rows}],"unresolved":[{{}}],"next_cursor":"c","done":false,"more":[0]}}"#
        )
    }

    /// One pass reads what serde reads, and nothing that serde would refuse. Returns whether it reads this.
    fn agrees(body: &[u8]) -> bool {
        let mut rows = Vec::new();
        let Some(mut quick) = read_quickly(body, |row| rows.push(row)) else {
            return false;
        };
        quick.conversations = rows;
        let serde = serde_json::from_slice::<WirePage<'_>>(body);
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
            "../../../../crates/dev-upstream/tests/recordings/v3-beta-conversations.jsonl"
        );
        READER.reads_recorded(recording, |request| {
            let path = request["path"].as_str().unwrap();
            ["/conversation/list", "/conversation/retry"].contains(&path)
        });
    }

    #[test]
    fn rows_of_any_shape_follow_each_other_and_the_rest_is_left_to_serde() {
        READER.reads_changed(&[
            ("\"群\"", "\"b\"", true),
            (r#""read_seq":148,"#, "", true),
            (r#""unread":3,"#, "", false),
            (r#""unread":3"#, r#""unread":-3"#, false),
            (r#""unread":3"#, r#""unread":3,"unread":3"#, false),
            (r#""channel_type":2"#, r#""channel_type":256"#, false),
            ("群", r"\u7fa4", false),
            (
                r#""active_at":5"#,
                r#""active_at":5,"more":[{"a":true}]"#,
                true,
            ),
            (r#""message_id":7,"#, "", false),
            (r#""payload":"YQ==","#, "", true),
            (r#"{"message_id""#, r#"null,"more":{"message_id""#, true),
            (r#"{"message_id""#, r#"{},"more":{"message_id""#, false),
            (
                r#"{"message_id""#,
                r#"null,"last_message":{"message_id""#,
                false,
            ),
            (r#","last_message":{"#, r#","other":{"#, true),
        ]);
    }

    #[test]
    fn mutated_rows_are_read_as_serde_reads_them() {
        READER.reads_mutated();
    }
}
