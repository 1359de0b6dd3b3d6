//! Pages as WuKongIM writes them, read in one pass without looking at what nobody wants. Costs less than a quarter of
//! serde (docs/PERFORMANCE.md), which reads what is not plain.

use std::borrow::Cow;

use super::{MOST_MESSAGES, Text, WireMessage};
use crate::plain::Scan;

/// Gives the messages of a page one by one; `None` where serde has to read it, and those given before mean nothing.
pub(super) fn read<'a>(body: &'a [u8], mut take: impl FnMut(WireMessage<'a>)) -> Option<()> {
    let mut scan = Scan::of(body)?;
    let mut read = None;
    scan.members(|scan, name| {
        if name != "messages" {
            return scan.value().map(|_| ());
        }
        once(&mut read, messages(scan, &mut take)?)
    })?;
    scan.end()?;
    read
}

fn messages<'a>(scan: &mut Scan<'a>, take: &mut impl FnMut(WireMessage<'a>)) -> Option<()> {
    let mut shape = Shape::default();
    let mut count = 0;
    scan.elements(|scan| {
        if count == MOST_MESSAGES {
            return None;
        }
        count += 1;
        let fields = match alike(scan, &shape) {
            Some(fields) => fields,
            None => any(scan, &mut shape)?,
        };
        take(fields.into_message()?);
        Some(())
    })
}

/// What is read of a message.
#[derive(Clone, Copy)]
enum Field {
    Id,
    /// The id once more, as a text: not wanted, but never twice the same.
    IdText,
    Seq,
    Timestamp,
    ChannelType,
    Number,
    From,
    Channel,
    Payload,
}

/// How many there are.
const FIELDS: usize = 9;

impl Field {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "message_id" => Self::Id,
            "message_idstr" => Self::IdText,
            "message_seq" => Self::Seq,
            "timestamp" => Self::Timestamp,
            "channel_type" => Self::ChannelType,
            "client_msg_no" => Self::Number,
            "from_uid" => Self::From,
            "channel_id" => Self::Channel,
            "payload" => Self::Payload,
            _ => return None,
        })
    }
}

#[derive(Default)]
struct Fields<'a> {
    id: Option<u64>,
    id_text: Option<&'a str>,
    seq: Option<u64>,
    timestamp: Option<u64>,
    channel_type: Option<u64>,
    number: Option<&'a str>,
    from: Option<&'a str>,
    channel: Option<&'a str>,
    payload: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Reads a field's value; each comes once.
    fn take(&mut self, field: Field, scan: &mut Scan<'a>) -> Option<()> {
        match field {
            Field::Id => once(&mut self.id, scan.number()?),
            Field::IdText => once(&mut self.id_text, scan.string()?),
            Field::Seq => once(&mut self.seq, scan.number()?),
            Field::Timestamp => once(&mut self.timestamp, scan.number()?),
            Field::ChannelType => once(&mut self.channel_type, scan.number()?),
            Field::Number => once(&mut self.number, scan.string()?),
            Field::From => once(&mut self.from, scan.string()?),
            Field::Channel => once(&mut self.channel, scan.string()?),
            Field::Payload => once(&mut self.payload, scan.string()?),
        }
    }

    fn into_message(self) -> Option<WireMessage<'a>> {
        Some(WireMessage {
            message_id: self.id?,
            client_msg_no: self.number.unwrap_or_default().into(),
            message_seq: self.seq?,
            from_uid: self.from.unwrap_or_default().into(),
            channel_id: self.channel?.into(),
            channel_type: self.channel_type?.try_into().ok()?,
            timestamp: self.timestamp.unwrap_or_default(),
            payload: self.payload.map(|text| Text(Cow::Borrowed(text))),
        })
    }
}

/// A message without its values: each piece of text with the field whose value stood behind it, and what stood behind the last.
///
/// The messages of a page differ in their values alone. What was read once is compared from then on, not read again.
#[derive(Default)]
struct Shape<'a> {
    pieces: [Option<(&'a str, Field)>; FIELDS],
    end: &'a str,
}

/// Reads a message of this shape; passes nothing where the next one has another.
fn alike<'a>(scan: &mut Scan<'a>, shape: &Shape<'a>) -> Option<Fields<'a>> {
    if shape.end.is_empty() {
        return None;
    }
    let mut ahead = *scan;
    let mut fields = Fields::default();
    for (piece, field) in shape.pieces.iter().flatten() {
        ahead.word(piece)?;
        fields.take(*field, &mut ahead)?;
    }
    ahead.word(shape.end)?;
    *scan = ahead;
    Some(fields)
}

/// Reads a message of any shape, and keeps that.
fn any<'a>(scan: &mut Scan<'a>, shape: &mut Shape<'a>) -> Option<Fields<'a>> {
    *shape = Shape::default();
    let mut fields = Fields::default();
    let mut pieces = shape.pieces.iter_mut();
    let mut last = *scan;
    scan.members(|scan, name| match Field::of(name) {
        Some(field) => {
            scan.pass_space();
            *pieces.next()? = Some((last.until(scan)?, field));
            fields.take(field, scan)?;
            last = *scan;
            Some(())
        }
        None => scan.value().map(|_| ()),
    })?;
    shape.end = last.until(scan)?;
    Some(fields)
}

/// Keeps the value of a field that was not there before.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{WireMessages, WirePage};
    use super::*;

    const MESSAGE: &str = r#"{"header":{"no_persist":0,"red_dot":1,"sync_once":0},"setting":0,"message_id":2124846632913506304,
        "message_idstr":"2124846632913506304","client_msg_no":"c1-群","message_seq":1,"from_uid":"alice","channel_id":"bob",
        "channel_type":1,"expire":0,"timestamp":1795437889,"payload":"eyJ0eXBlIjogMX0="}"#;

    fn all(body: &[u8]) -> Option<Vec<WireMessage<'_>>> {
        let mut messages = Vec::new();
        read(body, |message| messages.push(message))?;
        Some(messages)
    }

    /// What is read quickly is what serde reads, and nothing that serde would refuse.
    fn assert_agrees(body: &[u8]) -> bool {
        let Some(quick) = all(body) else {
            return false;
        };
        let shown = String::from_utf8_lossy(body);
        let page = serde_json::from_slice::<WirePage<'_>>(body);
        let page = page.unwrap_or_else(|error| panic!("{error}: {shown}"));
        let WireMessages(wire) = page.messages.unwrap();
        assert_eq!(quick, wire, "{shown}");
        true
    }

    #[test]
    fn recorded_pages_are_read_quickly_and_as_serde_reads_them() {
        let recordings = [
            include_str!("../../../tests/recordings/v2.2.5.jsonl"),
            include_str!("../../../tests/recordings/v3-beta.jsonl"),
        ];
        for recording in recordings {
            let mut pages = 0;
            for line in recording.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let response = &line["response"];
                if line["request"]["path"] != "/channel/messagesync" || response["status"] != 200 {
                    continue;
                }
                let body = response["body"].as_str().unwrap();
                assert!(assert_agrees(body.as_bytes()), "{body}");
                pages += 1;
            }
            assert!(pages > 5, "{pages}");
        }
    }

    #[test]
    fn messages_of_several_shapes_are_read_in_any_order() {
        let shapes = [
            MESSAGE.to_owned(),
            MESSAGE.replace(r#""client_msg_no":"c1-群","#, ""),
            MESSAGE.replace(r#""expire":0"#, r#""expire":7"#),
            MESSAGE.replace(r#""red_dot":1"#, r#""red_dot":0"#),
            MESSAGE.replace("c1-群", ""),
            MESSAGE.replace(',', " , "),
            r#"{"channel_type":2,"channel_id":"g","message_seq":4,"message_id":5}"#.to_owned(),
        ];
        for one in &shapes {
            for other in &shapes {
                let body = format!(r#"{{"messages":[{one},{other},{other},{one}]}}"#);
                assert!(assert_agrees(body.as_bytes()), "{body}");
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_serde() {
        let page = |message: &str| format!(r#" {{ "more" : 0 , "messages" : [ {message} ] }} "#);
        assert!(assert_agrees(page(MESSAGE).as_bytes()));
        for (from, to) in [
            ("群", r"\u7fa4"),
            (r#""setting":0"#, r#""setting":-1"#),
            (r#""setting":0"#, r#""setting":1.5"#),
            (r#""setting":0"#, r#""setting":01"#),
            (r#""setting":0"#, r#""setting":"\"#),
            (r#""setting":0"#, "\"setting\":\"\u{1}\""),
            (r#""setting":0"#, r#""setting":{"a":}"#),
            (r#""setting":0"#, r#""setting":[1,]"#),
            (r#""setting":0"#, r#""setting":[[[[[[[[[[]]]]]]]]]]"#),
            (r#""setting":0"#, r#""message_seq":2"#),
            (r#""message_seq":1,"#, ""),
            (r#""message_seq":1,"#, r#""message_seq":"1","#),
            (
                r#""message_seq":1,"#,
                r#""message_seq":18446744073709551616,"#,
            ),
            (r#""channel_type":1"#, r#""channel_type":257"#),
            (r#""payload":"eyJ0eXBlIjogMX0=""#, r#""payload":null"#),
        ] {
            assert!(MESSAGE.contains(from), "{from}");
            let changed = MESSAGE.replace(from, to);
            for messages in [changed.clone(), format!("{MESSAGE},{changed}")] {
                let changed = page(&messages);
                assert!(all(changed.as_bytes()).is_none(), "{changed}");
            }
        }
        let whole = page(MESSAGE);
        for end in 1..whole.trim_end().len() {
            assert!(all(&whole.as_bytes()[..end]).is_none_or(|_| !whole.is_char_boundary(end)));
        }
        assert!(all(format!("{whole}x").as_bytes()).is_none());
        let mut broken = whole.into_bytes();
        let at = broken.iter().position(|byte| *byte > 0x7f).unwrap();
        broken[at] = 0xff;
        assert!(all(&broken).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_read_quickly_serde_reads_the_same(place in 0..MESSAGE.len(), byte: u8, cut in 0..40_usize) {
            let mut bytes = MESSAGE.as_bytes().to_vec();
            bytes[place] = byte;
            bytes.drain(place..(place + cut / 8).min(bytes.len()));
            // Alone, and behind and before one that tells how the others are expected to look.
            let message = MESSAGE.as_bytes();
            for messages in [vec![&*bytes], vec![message, &bytes], vec![&bytes, message], vec![message, &bytes, message]] {
                let mut body = br#"{"more":0,"messages":["#.to_vec();
                body.extend(messages.join(&b','));
                body.extend(b"]}");
                assert_agrees(&body);
            }
        }
    }
}
