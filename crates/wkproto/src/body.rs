//! Fields of bodies: big-endian integers, and strings after their length in 16 bits.

use super::frame::{DecodeError, EncodeError, Frame, FrameKind, MAX_STRING};

/// Reads fields one after another.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the body of a frame that must be of this kind.
    pub(crate) fn new(frame: Frame<'a>, kind: FrameKind) -> Result<Self, DecodeError> {
        if frame.kind != kind {
            return Err(DecodeError::WrongKind(frame.kind));
        }
        Ok(Self { rest: frame.body })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A message seq: 64 bits since version 6, 32 before.
    pub(crate) fn message_seq(&mut self, version: u8) -> Result<u64, DecodeError> {
        if version >= 6 {
            self.u64()
        } else {
            self.u32().map(u64::from)
        }
    }

    /// A string whose UTF-8 is the caller's concern.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(self.array().map(u16::from_be_bytes)?);
        if length > MAX_STRING {
            return Err(DecodeError::StringTooLong(length));
        }
        self.take(length)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Utf8)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends a string.
pub(crate) fn put(out: &mut Vec<u8>, text: impl AsRef<[u8]>) -> Result<(), EncodeError> {
    let text = text.as_ref();
    let length = u16::try_from(text.len())
        .ok()
        .filter(|length| usize::from(*length) <= MAX_STRING)
        .ok_or(EncodeError::StringTooLong(text.len()))?;
    out.extend(length.to_be_bytes());
    out.extend(text);
    Ok(())
}

/// Appends a message seq: 64 bits since version 6, 32 before.
pub(crate) fn put_message_seq(out: &mut Vec<u8>, version: u8, seq: u64) -> Result<(), EncodeError> {
    if version >= 6 {
        out.extend(seq.to_be_bytes());
    } else {
        let short = u32::try_from(seq).map_err(|_| EncodeError::MessageSeq(seq))?;
        out.extend(short.to_be_bytes());
    }
    Ok(())
}
