//! The trace context of a request (W3C Trace Context): parsed from the client's headers and propagated to calls.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest propagated `traceparent` of a later version, in bytes.
const MAX_TRACEPARENT_BYTES: usize = 128;
/// The longest propagated `tracestate`, in bytes: the minimum that the standard requires.
const MAX_TRACESTATE_BYTES: usize = 512;

/// The trace context that a request's calls propagate. Behind an `Arc`, so that requests without a trace pay only for a header lookup.
#[derive(Debug)]
pub struct Trace {
    pub(crate) parent: HeaderValue,
    pub(crate) state: Option<HeaderValue>,
    /// The request's own span, if it is exported.
    #[cfg(feature = "otel")]
    pub(crate) own: Option<OwnSpan>,
}

/// A request's span, as the parent of its calls' spans.
#[cfg(feature = "otel")]
#[derive(Debug)]
pub(crate) struct OwnSpan {
    pub(crate) tracer: opentelemetry_sdk::trace::SdkTracer,
    pub(crate) context: opentelemetry::trace::SpanContext,
}

impl Trace {
    /// The trace context in a request's headers; `None` without exactly one valid `traceparent`.
    pub fn of(headers: &HeaderMap) -> Option<Arc<Self>> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let parent = all.next()?;
        if all.next().is_some() || !is_valid_parent(parent.as_bytes()) {
            return None;
        }
        Some(Arc::new(Self {
            parent: parent.clone(),
            state: state(headers),
            #[cfg(feature = "otel")]
            own: None,
        }))
    }

    /// Adds it to the headers of a call.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone());
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

/// Whether it is `version-trace-parent-flags` in lower-case hex, with neither id all zeros. Later versions may have more fields.
fn is_valid_parent(text: &[u8]) -> bool {
    let is_hex = |part: &[u8], length| {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.len() == length && part.iter().all(is_digit)
    };
    let is_id = |part: &[u8], length| is_hex(part, length) && part.iter().any(|byte| *byte != b'0');
    let mut parts = text.splitn(5, |byte| *byte == b'-');
    let four = [(); 4].map(|()| parts.next().unwrap_or_default());
    let [version, trace, parent, flags] = four;
    let has_more = parts.next().is_some();
    is_hex(version, 2)
        && version != b"ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && (!has_more || version != b"00" && text.len() <= MAX_TRACEPARENT_BYTES)
}

/// All `tracestate` headers joined; members at the end are dropped where it would be too long.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let all = headers
        .get_all(TRACESTATE)
        .iter()
        .map(HeaderValue::as_bytes);
    let mut joined = all.collect::<Vec<_>>().join(&b',');
    if joined.len() > MAX_TRACESTATE_BYTES {
        let end = joined[..=MAX_TRACESTATE_BYTES]
            .iter()
            .rposition(|byte| *byte == b',')?;
        joined.truncate(end);
    }
    let value = is_valid_state(&joined).then(|| HeaderValue::from_bytes(&joined));
    value?.ok()
}

/// Checks the allowed characters; the members are not interpreted.
fn is_valid_state(text: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    !text.trim_ascii().is_empty() && text.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// `traceparent` and `tracestate` of a call for a request with these headers.
    fn passed_on(headers: &[(&'static str, &[u8])]) -> Option<(String, Option<String>)> {
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            given.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut sent = HeaderMap::new();
        Trace::of(&given)?.put_into(&mut sent);
        let text = |name: &str| {
            let value = sent.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        Some((text("traceparent").unwrap(), text("tracestate")))
    }

    fn parent(text: &str) -> Option<String> {
        Some(passed_on(&[("traceparent", text.as_bytes())])?.0)
    }

    fn states(states: &[&[u8]]) -> Option<String> {
        let mut headers = vec![("traceparent", GOOD.as_bytes())];
        headers.extend(states.iter().map(|state| ("tracestate", *state)));
        let (parent, state) = passed_on(&headers).unwrap();
        assert_eq!(parent, GOOD, "a bad state takes nothing from the parent");
        state
    }

    #[test]
    fn a_valid_parent_is_passed_on_as_it_is() {
        let later = format!("01{}-what-comes-next", &GOOD[2..]);
        let never_sampled = format!("{}00", &GOOD[..53]);
        let known_later = format!("cc{}", &GOOD[2..]);
        for good in [GOOD, &later, &never_sampled, &known_later] {
            assert_eq!(parent(good).as_deref(), Some(good));
        }
    }

    #[test]
    fn anything_else_is_not() {
        let endless = format!("01{}-{}", &GOOD[2..], "a".repeat(MAX_TRACEPARENT_BYTES));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &format!("01{}0", &GOOD[2..]),
            &endless,
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0g-", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("-01", "-0x"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("319c-b7", "319c0b7"),
        ] {
            assert_eq!(parent(bad), None, "{bad}");
        }
        assert_eq!(passed_on(&[]), None);
        assert_eq!(passed_on(&[("tracestate", b"a=1")]), None, "without parent");
        let twice = [("traceparent", GOOD.as_bytes()); 2];
        assert_eq!(passed_on(&twice), None, "whose is it?");
    }

    #[test]
    fn a_state_is_one_header_of_whole_members_and_never_too_long() {
        let sent = |given: &[&[u8]]| states(given);
        assert_eq!(sent(&[b"a=1, b=2"]).as_deref(), Some("a=1, b=2"));
        assert_eq!(sent(&[b"a=1", b"b=2,c=3"]).as_deref(), Some("a=1,b=2,c=3"));
        for bad in [&b""[..], b"  ", b"a=\xff"] {
            assert_eq!(sent(&[bad]), None);
        }
        let member = |key: char, bytes: usize| format!("{key}={}", "v".repeat(bytes - 2));
        let (half, rest) = (member('a', 256), member('b', 255));
        let whole = format!("{half},{rest}");
        assert_eq!(whole.len(), MAX_TRACESTATE_BYTES);
        assert_eq!(sent(&[whole.as_bytes()]), Some(whole.clone()));
        let too_long = format!("{whole},c=1");
        assert_eq!(sent(&[too_long.as_bytes()]), Some(whole.clone()));
        let by_one = format!("{whole}v");
        assert_eq!(sent(&[by_one.as_bytes()]), Some(half.clone()));
        assert_eq!(sent(&[half.as_bytes(), by_one.as_bytes()]), Some(half));
        assert_eq!(
            sent(&[member('a', MAX_TRACESTATE_BYTES + 1).as_bytes()]),
            None
        );
    }
}
