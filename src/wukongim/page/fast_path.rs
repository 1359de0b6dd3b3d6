//! The fast path for pages in WuKongIM's usual format: one pass that skips unused fields, at less than a quarter of serde's cost
//! (docs/PERFORMANCE.md). serde reads everything else.

use std::borrow::Cow;

use super::{BorrowedStr, MAX_PAGE_MESSAGES, WireMessage};
use crate::json::json_scan::JsonScanner;
use crate::json::template::{Reading, Record, Template, set_once};

/// Passes the messages of a page to `take` one by one. After `None` serde must read the page, and the messages passed before are void.
pub(super) fn read<'a>(body: &'a [u8], mut take: impl FnMut(WireMessage<'a>)) -> Option<()> {
    let mut scanner = JsonScanner::of(body)?;
    let mut read = None;
    scanner.members(|scanner, name| {
        if name != "messages" {
            return scanner.value().map(|_| ());
        }
        set_once(&mut read, messages(scanner, &mut take)?)
    })?;
    scanner.end()?;
    read
}

fn messages<'a>(
    scanner: &mut JsonScanner<'a>,
    take: &mut impl FnMut(WireMessage<'a>),
) -> Option<()> {
    let mut template = Template::<MessageFields<'_>>::default();
    let mut count = 0;
    scanner.elements(|scanner| {
        if count == MAX_PAGE_MESSAGES {
            return None;
        }
        count += 1;
        take(template.read(scanner)?.into_message()?);
        Some(())
    })
}

/// The fields of a message that are used, or that differ in every message.
#[derive(Clone, Copy)]
pub(in crate::wukongim) enum MessageField {
    Id,
    Seq,
    Timestamp,
    ChannelType,
    ClientMsgNo,
    From,
    Channel,
    Payload,
    Unused,
}

impl MessageField {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "message_id" => Self::Id,
            "message_seq" => Self::Seq,
            "timestamp" => Self::Timestamp,
            "channel_type" => Self::ChannelType,
            "client_msg_no" => Self::ClientMsgNo,
            "from_uid" => Self::From,
            "channel_id" => Self::Channel,
            "payload" => Self::Payload,
            // The id as a string, and v3's time.
            "message_idstr" | "server_timestamp_ms" => Self::Unused,
            _ => return None,
        })
    }

    /// Reads a message as a part of a record, whose fields of it are made by `field`; `None` also for one without any.
    pub(in crate::wukongim) fn read_all<'a, R: Record<'a>>(
        reading: &mut Reading<'a, '_, R>,
        scanner: &mut JsonScanner<'a>,
        field: impl Fn(Self) -> R::Field,
    ) -> Option<()> {
        let mut is_empty = true;
        scanner.members(|scanner, name| match Self::of(name) {
            Some(of_message) => {
                is_empty = false;
                reading.field(field(of_message), scanner)
            }
            None => scanner.value().map(|_| ()),
        })?;
        (!is_empty).then_some(())
    }
}

/// A message of WuKongIM, as it is read.
#[derive(Default)]
pub(in crate::wukongim) struct MessageFields<'a> {
    pub(in crate::wukongim) id: Option<u64>,
    pub(in crate::wukongim) seq: Option<u64>,
    timestamp: Option<u64>,
    channel_type: Option<u64>,
    pub(in crate::wukongim) client_msg_no: Option<&'a str>,
    pub(in crate::wukongim) from: Option<&'a str>,
    channel: Option<&'a str>,
    pub(in crate::wukongim) payload: Option<&'a str>,
}

impl<'a> Record<'a> for MessageFields<'a> {
    type Field = MessageField;

    fn take(&mut self, field: MessageField, scanner: &mut JsonScanner<'a>) -> Option<()> {
        match field {
            MessageField::Id => set_once(&mut self.id, scanner.number()?),
            MessageField::Seq => set_once(&mut self.seq, scanner.number()?),
            MessageField::Timestamp => set_once(&mut self.timestamp, scanner.number()?),
            MessageField::ChannelType => set_once(&mut self.channel_type, scanner.number()?),
            MessageField::ClientMsgNo => set_once(&mut self.client_msg_no, scanner.string()?),
            MessageField::From => set_once(&mut self.from, scanner.string()?),
            MessageField::Channel => set_once(&mut self.channel, scanner.string()?),
            MessageField::Payload => set_once(&mut self.payload, scanner.string()?),
            MessageField::Unused => scanner.value().map(|_| ()),
        }
    }

    fn read(reading: &mut Reading<'a, '_, Self>, scanner: &mut JsonScanner<'a>) -> Option<()> {
        MessageField::read_all(reading, scanner, |field| field)
    }
}

impl<'a> MessageFields<'a> {
    /// `None` where a field is missing that serde requires.
    pub(in crate::wukongim) fn into_message(self) -> Option<WireMessage<'a>> {
        Some(WireMessage {
            message_id: self.id?,
            client_msg_no: self.client_msg_no.unwrap_or_default().into(),
            message_seq: self.seq?,
            from_uid: self.from.unwrap_or_default().into(),
            channel_id: self.channel?.into(),
            channel_type: self.channel_type?.try_into().ok()?,
            timestamp: self.timestamp.unwrap_or_default(),
            payload: self.payload.map(|text| BorrowedStr(Cow::Borrowed(text))),
        })
    }
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

    /// The fast path returns what serde returns, and accepts nothing that serde would refuse.
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
    fn recorded_pages_take_the_fast_path_and_agree_with_serde() {
        let recordings = [
            include_str!("../../../crates/dev-upstream/tests/recordings/v2.2.5.jsonl"),
            include_str!("../../../crates/dev-upstream/tests/recordings/v3-beta.jsonl"),
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
    fn messages_with_different_templates_are_read_in_any_order() {
        let messages = [
            MESSAGE.to_owned(),
            MESSAGE.replace(r#""client_msg_no":"c1-群","#, ""),
            MESSAGE.replace(r#""expire":0"#, r#""expire":7"#),
            MESSAGE.replace(r#""red_dot":1"#, r#""red_dot":0"#),
            MESSAGE.replace("c1-群", ""),
            MESSAGE.replace(',', " , "),
            r#"{"channel_type":2,"channel_id":"g","message_seq":4,"message_id":5}"#.to_owned(),
        ];
        for one in &messages {
            for other in &messages {
                let body = format!(r#"{{"messages":[{one},{other},{other},{one}]}}"#);
                assert!(assert_agrees(body.as_bytes()), "{body}");
            }
        }
    }

    #[test]
    fn json_outside_the_subset_is_left_to_serde() {
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
        fn the_fast_path_agrees_with_serde_on_mutated_pages(index in 0..MESSAGE.len(), byte: u8, cut in 0..40_usize) {
            let mut bytes = MESSAGE.as_bytes().to_vec();
            bytes[index] = byte;
            bytes.drain(index..(index + cut / 8).min(bytes.len()));
            // Alone, and after and before a message that sets the template.
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
