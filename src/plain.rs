//! JSON in its plainest form, read in one pass over the bytes: no escapes in texts, whole numbers alone, nothing deep. Takes nothing
//! that serde would not take; at the first thing that is not plain it gives up, and serde is to be asked what it is.

use memchr::memchr2;

/// How deep values that are passed over may lie in each other.
const DEEPEST: usize = 8;

/// A place in a text. Each method passes what it gives, or gives up with `None`.
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

    fn pass_space(&mut self) {
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
        let length = memchr2(b'"', b'\\', rest)?;
        let is_control = |byte: &u8| *byte < 0x20;
        // Not `any`: without a way out in the middle, many bytes are compared at a time.
        let controls = rest[..length]
            .iter()
            .fold(false, |found, byte| found | is_control(byte));
        if rest[length] != b'"' || controls {
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

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.strip_prefix(word)?;
        self.at += word.len();
        Some(())
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
