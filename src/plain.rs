//! JSON in its plainest form, read in one pass over the bytes: no escapes in texts, whole numbers alone, nothing deep. Takes nothing
//! that serde would not take; at the first thing that is not plain it gives up, and serde is to be asked what it is.

/// How deep values that are passed over may lie in each other.
const DEEPEST: usize = 8;

/// How many bytes there are before the first that cannot stand for itself in a JSON string: a quote, a backslash, a control character.
///
/// Eight bytes at a time and by hand: most texts are shorter than what it takes to call `memchr` pays for.
pub fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let found = not_plain(u64::from_le_bytes(*word));
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    let end = rest.iter().position(|byte| !is_plain(byte));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// The high bit of the first byte of a word that is not plain, with whatever above it.
fn not_plain(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    // The lowest bit that is set is true; a borrow may set higher ones.
    let below = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, b' ') | is(b'"') | is(b'\\')) & HIGH
}

/// A place in a text. Each method passes what it gives, or gives up with `None`.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// At the beginning of `body`, where that is a text.
    pub fn of(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        Some(Self { text, at: 0 })
    }

    /// Nothing but space is left.
    pub fn end(mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// Passes space.
    pub fn pass_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, not passed.
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

    /// A text without escapes and control characters.
    pub fn string(&mut self) -> Option<&'a str> {
        self.pass(b'"')?;
        let rest = self.text.as_bytes().get(self.at..)?;
        let length = plain_length(rest);
        if *rest.get(length)? != b'"' {
            return None;
        }
        let string = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(string)
    }

    /// A whole number that is not negative, as JSON writes one.
    pub fn number(&mut self) -> Option<u64> {
        self.pass_space();
        let begin = self.at;
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            number = number
                .checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let length = self.at - begin;
        let has_leading_zero = length > 1 && self.text.as_bytes()[begin] == b'0';
        // A fraction or an exponent behind it is no comma, and found where that is expected.
        (length > 0 && !has_leading_zero).then_some(number)
    }

    /// These very bytes.
    pub fn word(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.strip_prefix(word)?;
        self.at += word.len();
        Some(())
    }

    /// What lies from here to a later place in the same text.
    pub fn until(&self, later: &Self) -> Option<&'a str> {
        self.text.get(self.at..later.at)
    }

    /// Calls `take` with each member's name, to pass its value.
    pub fn members(
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

    /// Calls `take` for each element, to pass it.
    pub fn elements(&mut self, mut take: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
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

    /// Any value, as it stands there.
    pub fn value(&mut self) -> Option<&'a str> {
        self.pass_space();
        let begin = self.at;
        self.skip(DEEPEST)?;
        self.text.get(begin..self.at)
    }

    /// Passes any value that lies less than `deepest` deep.
    fn skip(&mut self, deepest: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'0'..=b'9' => self.number().map(|_| ()),
            b'{' => {
                let deepest = deepest.checked_sub(1)?;
                self.members(|scan, _| scan.skip(deepest))
            }
            b'[' => {
                let deepest = deepest.checked_sub(1)?;
                self.elements(|scan| scan.skip(deepest))
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
        fn a_text_is_plain_up_to_its_first_byte_that_is_not(bytes in r#"([ -~é群]|["\\\\\x00-\x20]){0,30}"#) {
            let bytes = bytes.as_bytes();
            let simple = bytes.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
            proptest::prop_assert_eq!(plain_length(bytes), simple.unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn every_byte_is_told_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..17 {
                let mut text = [b'a'; 17];
                text[place] = byte;
                let is_plain = byte >= 0x20 && byte != b'"' && byte != b'\\';
                let expected = if is_plain { 17 } else { place };
                assert_eq!(plain_length(&text), expected, "{byte} {place}");
            }
        }
    }
}
