//! What the document says of a text is what the gateway holds it to: but for the bytes, which a schema cannot count.

use proptest::prelude::*;
use wukongim_gateway::domain::{ClientMsgNo, Payload, Uid, caps};

use crate::support::document::{DOCUMENT, fits};

/// Whether the document takes a text for one of these values.
fn is_documented(value: &str, text: &str) -> bool {
    fits(&DOCUMENT["components"]["schemas"][value], &text.into()).is_ok()
}

/// Texts on both sides of every rule.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a.@#&/?%\\\\ _\u{0}-\u{a1}]{0,4}",
        "[a\u{1680}\u{180e}\u{2000}-\u{200b}\u{2028}\u{2029}\u{202f}\u{205f}\u{2060}\u{3000}\u{feff}]{1,3}",
        "(____|___)?[a.]{0,2}(____cmd|___cmd|___vstr|__vstr)?(a|\n)?",
        "[a\u{e9}\u{7fa4}]{250,260}",
    ]
}

proptest! {
    #[test]
    fn an_id_is_documented_exactly_when_it_is_one(text in texts()) {
        let is_short = text.len() <= caps::ID_BYTES;
        prop_assert_eq!(is_short && is_documented("Uid", &text), Uid::parse(&text, usize::MAX).is_ok());
        prop_assert_eq!(is_documented("ChannelId", &text), is_documented("Uid", &text));
    }

    #[test]
    fn a_number_is_documented_exactly_when_it_is_one(text in texts()) {
        let is_short = text.len() <= caps::CLIENT_MSG_NO_BYTES;
        let is_one = ClientMsgNo::parse(&text, usize::MAX).is_ok();
        prop_assert_eq!(is_short && is_documented("ClientMsgNo", &text), is_one);
    }

    #[test]
    fn a_payload_is_documented_exactly_when_it_is_one(text in "[A-Za-z0-9+/]{0,9}={0,2}|[AQg=w]{0,5}|[A-D_ \n-]{3,5}") {
        prop_assert_eq!(is_documented("Payload", &text), Payload::parse(&text, usize::MAX).is_ok());
    }
}

#[test]
fn the_longest_payload_is_documented_as_such() {
    let most = caps::PAYLOAD_BYTES.div_ceil(3) * 4;
    let schema = &DOCUMENT["components"]["schemas"]["Payload"];
    assert_eq!(schema["maxLength"].as_u64(), Some(most as u64));
    let ends = if caps::PAYLOAD_BYTES % 3 == 2 {
        "AAA="
    } else {
        "AA=="
    };
    let text = "A".repeat(most - 4) + ends;
    assert!(Payload::parse(&text, usize::MAX).is_ok());
    assert!(Payload::parse(&"A".repeat(most + 4), usize::MAX).is_err());
}
