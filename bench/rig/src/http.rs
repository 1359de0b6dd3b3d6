//! As much HTTP/1.1 as a benchmark's fake server needs: whole requests with a `Content-Length`, answered in order.

use std::io;
use std::ops::Range;

use memchr::memmem;

/// One request in a buffer, by places: no byte is copied.
pub struct Request {
    /// `POST`, and the like.
    pub method: Range<usize>,
    /// Path and query.
    pub target: Range<usize>,
    /// The body.
    pub body: Range<usize>,
}

/// The first whole request in `bytes`, if there is one.
///
/// # Errors
/// For what this server does not speak: better an end than a wrong figure.
pub fn parse(bytes: &[u8]) -> io::Result<Option<Request>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let line_end = memmem::find(head, b"\r\n").unwrap_or(end);
    let mut spaces = memchr::memchr_iter(b' ', &head[..line_end]);
    let (Some(first), Some(second)) = (spaces.next(), spaces.next()) else {
        return Err(io::Error::other("no request line"));
    };
    let mut length = 0;
    let mut rest = line_end;
    while rest < end {
        let start = rest + 2;
        let stop = memchr::memchr(b'\r', &head[start..]).map_or(end, |at| start + at);
        let line = &head[start..stop];
        if let Some(value) = value_of(line, b"content-length:") {
            length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| io::Error::other("content-length is no number"))?;
        } else if value_of(line, b"transfer-encoding:").is_some() {
            return Err(io::Error::other("a chunked body"));
        }
        rest = stop;
    }
    let body = end + 4;
    Ok((bytes.len() >= body + length).then_some(Request {
        method: 0..first,
        target: first + 1..second,
        body: body..body + length,
    }))
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}

/// Appends a whole answer with a JSON body.
pub fn answer(out: &mut Vec<u8>, status: &str, body: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// The text between `before` and the next quotation mark.
pub fn text_after<'a>(body: &'a [u8], before: &[u8]) -> Option<&'a [u8]> {
    let start = memmem::find(body, before)? + before.len();
    let length = memchr::memchr(b'"', &body[start..])?;
    Some(&body[start..start + length])
}

/// The number right after `before`.
pub fn number_after(body: &[u8], before: &[u8]) -> Option<u64> {
    let start = memmem::find(body, before)? + before.len();
    let digits = body[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let mut number = 0_u64;
    for digit in digits {
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(number)
}
