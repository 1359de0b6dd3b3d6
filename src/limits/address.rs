//! The client address of a request: the peer's, or the one reported by configured proxies. Headers from other peers are ignored.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::config::Cidr;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection; the listener leaves it in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The right-most address that is not a trusted proxy's. Where a proxy reports none that can be parsed, the proxy's own.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address| is_one_of(address, trusted);
    if !is_trusted(peer) {
        return peer;
    }
    let nearest_untrusted = |name: HeaderName, quotes, read: fn(&[u8]) -> Option<IpAddr>| {
        let lines = headers.get_all(name).iter().rev();
        let entries = lines.flat_map(|line| split_from_right(line.as_bytes(), b',', quotes));
        let mut nearest = peer;
        for entry in entries.filter(|entry| !entry.trim_ascii().is_empty()) {
            let Some(address) = read(entry) else { break };
            nearest = address;
            if !is_trusted(nearest) {
                break;
            }
        }
        nearest
    };
    let by_x_forwarded_for = headers
        .contains_key(X_FORWARDED_FOR)
        .then(|| nearest_untrusted(X_FORWARDED_FOR, false, parse_node));
    let by_forwarded = headers
        .contains_key(FORWARDED)
        .then(|| nearest_untrusted(FORWARDED, true, forwarded_for));
    match (by_x_forwarded_for, by_forwarded) {
        // A proxy that writes only one of the headers passes on the client's own value of the other.
        (Some(one), Some(other)) if one != other => peer,
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) => peer,
    }
}

/// Whether an address lies in one of the ranges.
pub(super) fn is_one_of(address: IpAddr, ranges: &[Cidr]) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(address))
}

/// The rate-limit key of an address: the address itself, or the /64 of IPv6, which is what one customer gets.
pub(super) fn rate_limit_key(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (true, u64::from(address.to_bits())),
        IpAddr::V6(address) => (false, (address.to_bits() >> 64) as u64),
    }
}

/// Whether an address is local or private, as those of proxies usually are.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// The only `for` of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut values = split_from_right(element, b';', true).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let name = pair[..at].trim_ascii();
        name.eq_ignore_ascii_case(b"for").then(|| &pair[at + 1..])
    });
    let value = values.next()?.trim_ascii();
    if values.next().is_some() {
        return None;
    }
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    parse_node(quoted.unwrap_or(value))
}

/// Splits a header line at a separator, last part first; with `quotes` only at an unquoted one. From the right, since the left part is
/// written by the client: an unclosed quote there must not hide what a proxy appended.
fn split_from_right(line: &[u8], separator: u8, quotes: bool) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    line.rsplit(move |byte| {
        is_quoted ^= quotes && *byte == b'"';
        *byte == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests;
