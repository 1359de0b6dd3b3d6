//! Pages as WuKongIM writes them, read in one pass without looking at what nobody wants. Costs a quarter of serde
//! (docs/PERFORMANCE.md), which reads what is not plain.

use std::borrow::Cow;

use super::{MOST_MESSAGES, Text, WireMessage};
use crate::plain::Scan;

/// The messages of a page; `None` where serde has to read it.
pub(super) fn read(body: &[u8]) -> Option<Vec<WireMessage<'_>>> {
    let mut scan = Scan::of(body)?;
    let mut read = None;
    scan.members(|scan, name| {
        if name != "messages" {
            return scan.value().map(|_| ());
        }
        once(&mut read, messages(scan)?)
    })?;
    scan.end()?;
    read
}

fn messages<'a>(scan: &mut Scan<'a>) -> Option<Vec<WireMessage<'a>>> {
    let mut messages = Vec::with_capacity(64);
    scan.elements(|scan| {
        if messages.len() == MOST_MESSAGES {
            return None;
        }
        messages.push(message(scan)?);
        Some(())
    })?;
    Some(messages)
}

fn message<'a>(scan: &mut Scan<'a>) -> Option<WireMessage<'a>> {
    let (mut id, mut seq, mut timestamp, mut channel_type) = (None, None, None, None);
    let (mut number, mut from, mut channel, mut payload) = (None, None, None, None);
    scan.members(|scan, name| match name {
        "message_id" => once(&mut id, scan.number()?),
        "message_seq" => once(&mut seq, scan.number()?),
        "timestamp" => once(&mut timestamp, scan.number()?),
        "channel_type" => once(&mut channel_type, u8::try_from(scan.number()?).ok()?),
        "client_msg_no" => once(&mut number, scan.string()?),
        "from_uid" => once(&mut from, scan.string()?),
        "channel_id" => once(&mut channel, scan.string()?),
        "payload" => once(&mut payload, scan.string()?),
        _ => scan.value().map(|_| ()),
    })?;
    Some(WireMessage {
        message_id: id?,
        client_msg_no: number.unwrap_or_default().into(),
        message_seq: seq?,
        from_uid: from.unwrap_or_default().into(),
        channel_id: channel?.into(),
        channel_type: channel_type?,
        timestamp: timestamp.unwrap_or_default(),
        payload: payload.map(|text| Text(Cow::Borrowed(text))),
    })
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

    /// What is read quickly is what serde reads, and nothing that serde would refuse.
    fn assert_agrees(body: &[u8]) -> bool {
        let Some(quick) = read(body) else {
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
            let changed = page(&MESSAGE.replace(from, to));
            assert!(read(changed.as_bytes()).is_none(), "{changed}");
        }
        let whole = page(MESSAGE);
        for end in 1..whole.trim_end().len() {
            assert!(read(&whole.as_bytes()[..end]).is_none_or(|_| !whole.is_char_boundary(end)));
        }
        assert!(read(format!("{whole}x").as_bytes()).is_none());
        let mut broken = whole.into_bytes();
        let at = broken.iter().position(|byte| *byte > 0x7f).unwrap();
        broken[at] = 0xff;
        assert!(read(&broken).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_read_quickly_serde_reads_the_same(place in 0..MESSAGE.len(), byte: u8, cut in 0..40_usize) {
            let mut bytes = MESSAGE.as_bytes().to_vec();
            bytes[place] = byte;
            bytes.drain(place..(place + cut / 8).min(bytes.len()));
            let mut body = br#"{"more":0,"messages":["#.to_vec();
            body.extend(bytes);
            body.extend(b"]}");
            assert_agrees(&body);
        }
    }
}
