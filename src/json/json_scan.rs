//! A scanner for a subset of JSON, in one pass over the bytes: strings without escapes, non-negative integers, limited depth. It accepts
//! nothing that serde would refuse. At the first byte outside the subset it returns `None`, and the caller falls back to serde.

/// Maximum nesting of skipped values.
const MAX_DEPTH: usize = 8;

/// The number of bytes before the first one that a JSON string must escape: a quote, a backslash or a control character.
///
/// Eight bytes at a time, without `memchr`: most strings are too short to pay for the call.
pub(crate) fn unescaped_prefix_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (offset, word) in words.iter().enumerate() {
        let found = escape_mask(u64::from_le_bytes(*word));
        if found != 0 {
            return offset * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_unescaped = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    let end = rest.iter().position(|byte| !is_unescaped(byte));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// Sets the high bit of the first byte of a word that needs an escape. Bits above that one are undefined.
fn escape_mask(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    // Only the lowest set bit is reliable; a borrow may set higher ones.
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH * u64::from(bound)) & !word;
    let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, b' ') | is(b'"') | is(b'\\')) & HIGH
}

/// A position in a JSON text. Each method consumes what it returns, or returns `None` for what is outside the subset.
#[derive(Clone, Copy)]
pub(crate) struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonScanner<'a> {
    /// Starts at the beginning of `body`; `None` where that is not UTF-8.
    pub(crate) fn of(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        Some(Self { text, at: 0 })
    }

    /// Succeeds when only whitespace is left.
    pub(crate) fn end(mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// Skips whitespace.
    pub(crate) fn pass_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not whitespace, without consuming it.
    fn peek(&mut self) -> Option<u8> {
        self.pass_space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn pass(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// A string without escapes and control characters.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        self.pass(b'"')?;
        let rest = self.text.as_bytes().get(self.at..)?;
        let length = unescaped_prefix_len(rest);
        if *rest.get(length)? != b'"' {
            return None;
        }
        let string = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(string)
    }

    /// A non-negative integer in JSON notation.
    pub(crate) fn number(&mut self) -> Option<u64> {
        self.pass_space();
        let begin = self.at;
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            number = number
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let length = self.at - begin;
        // Fewer digits cannot overflow.
        if length > 19 {
            number = self.text.get(begin..self.at)?.parse().ok()?;
        }
        let has_leading_zero = length > 1 && self.text.as_bytes()[begin] == b'0';
        // A fraction or an exponent is detected by the caller, which expects a comma or an end here.
        (length > 0 && !has_leading_zero).then_some(number)
    }

    /// Consumes exactly `word`.
    pub(crate) fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.strip_prefix(word.as_bytes())?;
        self.at += word.len();
        Some(())
    }

    /// The text between this position and a later one.
    pub(crate) fn until(&self, later: &Self) -> Option<&'a str> {
        self.text.get(self.at..later.at)
    }

    /// Calls `take` with each member's name; `take` must consume the value.
    pub(crate) fn members(
        &mut self,
        mut take: impl FnMut(&mut Self, &'a str) -> Option<()>,
    ) -> Option<()> {
        self.pass(b'{')?;
        if self.peek()? == b'}' {
            return self.pass(b'}');
        }
        loop {
            let name = self.string()?;
            self.pass(b':')?;
            take(self, name)?;
            if self.peek()? == b'}' {
                return self.pass(b'}');
            }
            self.pass(b',')?;
        }
    }

    /// Calls `take` for each element; `take` must consume it.
    pub(crate) fn elements(&mut self, mut take: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.pass(b'[')?;
        if self.peek()? == b']' {
            return self.pass(b']');
        }
        loop {
            take(self)?;
            if self.peek()? == b']' {
                return self.pass(b']');
            }
            self.pass(b',')?;
        }
    }

    /// Consumes any value and returns its text.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        self.pass_space();
        let begin = self.at;
        self.skip(MAX_DEPTH)?;
        self.text.get(begin..self.at)
    }

    /// Skips any value nested less than `depth_left` levels deep.
    fn skip(&mut self, depth_left: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'0'..=b'9' => self.number().map(|_| ()),
            b'{' => {
                let depth_left = depth_left.checked_sub(1)?;
                self.members(|scanner, _| scanner.skip(depth_left))
            }
            b'[' => {
                let depth_left = depth_left.checked_sub(1)?;
                self.elements(|scanner| scanner.skip(depth_left))
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_prefix_ends_at_the_first_byte_that_needs_an_escape(bytes in r#"([ -~é群]|["\\\\\x00-\x20]){0,30}"#) {
            let bytes = bytes.as_bytes();
            let simple = bytes.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
            proptest::prop_assert_eq!(unescaped_prefix_len(bytes), simple.unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn numbers_of_every_length_are_read_as_serde_reads_them() {
        let digits = "18446744073709551615";
        for begin in 0..digits.len() {
            for end in begin + 1..=digits.len() {
                for after in ["", ",", ":", "/", "}", "群", "\u{0}"] {
                    let text = format!("{}{after}", &digits[begin..end]);
                    let mut scanner = JsonScanner::of(text.as_bytes()).unwrap();
                    let expected = serde_json::from_str(&digits[begin..end]).ok();
                    assert_eq!(scanner.number(), expected, "{text}");
                    if expected.is_some() {
                        assert_eq!(&text[scanner.at..], after);
                    }
                }
            }
        }
        let too_large = JsonScanner::of(b"18446744073709551616").unwrap().number();
        assert_eq!(too_large, None);
    }

    #[test]
    fn every_byte_is_classified_at_every_offset() {
        for byte in 0..=u8::MAX {
            for offset in 0..17 {
                let mut text = [b'a'; 17];
                text[offset] = byte;
                let is_unescaped = byte >= 0x20 && byte != b'"' && byte != b'\\';
                let expected = if is_unescaped { 17 } else { offset };
                assert_eq!(unescaped_prefix_len(&text), expected, "{byte} {offset}");
            }
        }
    }
}
