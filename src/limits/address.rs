//! Whose address a request comes from: the peer's, or the one its proxies tell, where they are configured. Never what a stranger says.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::config::Cidr;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection; the listener leaves it in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The right-most address that is no trusted proxy's. Where a proxy names none that can be read, the proxy's own.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address| is_one_of(address, trusted);
    if !is_trusted(peer) {
        return peer;
    }
    let walk = |entries: &mut dyn Iterator<Item = &[u8]>, read: fn(&[u8]) -> Option<IpAddr>| {
        let mut nearest = peer;
        for entry in entries {
            let Some(address) = read(entry) else { break };
            nearest = address;
            if !is_trusted(nearest) {
                break;
            }
        }
        nearest
    };
    let lines = |name| headers.get_all(name).iter().rev();
    let by_x_forwarded_for = headers.contains_key(X_FORWARDED_FOR).then(|| {
        let mut entries = lines(X_FORWARDED_FOR)
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .filter(|entry| !entry.trim_ascii().is_empty());
        walk(&mut entries, node)
    });
    let by_forwarded = headers.contains_key(FORWARDED).then(|| {
        let mut entries = lines(FORWARDED)
            .flat_map(|line| FromTheRight::new(line.as_bytes(), b','))
            .filter(|entry| !entry.trim_ascii().is_empty());
        walk(&mut entries, forwarded_for)
    });
    match (by_x_forwarded_for, by_forwarded) {
        // A proxy that writes one of them passes on what a stranger wrote into the other.
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

/// What the limits count an address as: itself, or the /64 of IPv6, which is what one customer gets.
pub(super) fn counted(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (true, u64::from(address.to_bits())),
        IpAddr::V6(address) => (false, (address.to_bits() >> 64) as u64),
    }
}

/// Whether an address is of this machine or of a private network, where proxies stand.
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
fn node(text: &[u8]) -> Option<IpAddr> {
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
    let mut values = FromTheRight::new(element, b';').filter_map(|pair| {
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
    node(quoted.unwrap_or(value))
}

/// The parts of a line, last one first, cut at a byte that stands in no quotes. From the right, since what stands on the left is a
/// stranger's: a quote he opened there must not swallow what a proxy wrote behind it.
struct FromTheRight<'a> {
    rest: Option<&'a [u8]>,
    cut_at: u8,
}

impl<'a> FromTheRight<'a> {
    fn new(line: &'a [u8], cut_at: u8) -> Self {
        Self {
            rest: Some(line),
            cut_at,
        }
    }
}

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut quoted = false;
        let cut = rest.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == self.cut_at && !quoted
        });
        let Some(cut) = cut else { return Some(rest) };
        self.rest = Some(&rest[..cut]);
        Some(&rest[cut + 1..])
    }
}

#[cfg(test)]
mod tests;
