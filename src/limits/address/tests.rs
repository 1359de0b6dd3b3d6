//! Which peers' headers are trusted.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// The client where 10.0.0.0/8 and fd00::/8 are proxies.
fn client_of(peer: &str, lines: &[(&str, &str)]) -> String {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
    client(peer.parse().unwrap(), &headers(lines), &trusted).to_string()
}

#[test]
fn only_trusted_peers_are_believed_up_to_the_first_untrusted_address() {
    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";
    for (peer, lines, expected) in [
        ("192.0.2.1", vec![], "192.0.2.1"),
        ("192.0.2.1", vec![(XFF, "198.51.100.7")], "192.0.2.1"),
        ("192.0.2.1", vec![(FWD, "for=198.51.100.7")], "192.0.2.1"),
        ("10.0.0.1", vec![], "10.0.0.1"),
        ("10.0.0.1", vec![(XFF, "198.51.100.7")], "198.51.100.7"),
        (
            "10.0.0.1",
            vec![(XFF, "1.1.1.1, 198.51.100.7 , 10.2.2.2")],
            "198.51.100.7",
        ),
        (
            "10.0.0.1",
            vec![(XFF, "1.1.1.1"), (XFF, "198.51.100.7")],
            "198.51.100.7",
        ),
        ("10.0.0.1", vec![(XFF, "10.9.9.9, 10.8.8.8")], "10.9.9.9"),
        ("10.0.0.1", vec![(XFF, "198.51.100.7:4711")], "198.51.100.7"),
        ("10.0.0.1", vec![(XFF, "198.51.100.7, ,")], "198.51.100.7"),
        ("10.0.0.1", vec![(XFF, "[2001:db8::7]:4711")], "2001:db8::7"),
        ("10.0.0.1", vec![(XFF, "2001:db8::7")], "2001:db8::7"),
        (
            "10.0.0.1",
            vec![(XFF, "::ffff:198.51.100.7")],
            "198.51.100.7",
        ),
        (
            "::ffff:10.0.0.1",
            vec![(XFF, "198.51.100.7")],
            "198.51.100.7",
        ),
        ("fd00::1", vec![(XFF, "2001:db8::7")], "2001:db8::7"),
        // What a proxy cannot name is the proxy's own.
        ("10.0.0.1", vec![(XFF, "1.1.1.1, unknown")], "10.0.0.1"),
        (
            "10.0.0.1",
            vec![(XFF, "1.1.1.1, unknown, 10.2.2.2")],
            "10.2.2.2",
        ),
        ("10.0.0.1", vec![(XFF, "")], "10.0.0.1"),
        (
            "10.0.0.1",
            vec![(
                FWD,
                "for=1.1.1.1, For=\"[2001:db8:cafe::17]:4711\";proto=https;by=10.0.0.1",
            )],
            "2001:db8:cafe::17",
        ),
        (
            "10.0.0.1",
            vec![(
                FWD,
                "proto=http; for=198.51.100.7 ;host=\"a,b;for=1.1.1.1\"",
            )],
            "198.51.100.7",
        ),
        (
            "10.0.0.1",
            vec![(FWD, "for=1.1.1.1, proto=https")],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            vec![(FWD, "for=1.1.1.1, for=_hidden")],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            vec![(FWD, "for=1.1.1.1;for=2.2.2.2")],
            "10.0.0.1",
        ),
        // An unclosed quote of the client does not hide what the proxy appends.
        (
            "10.0.0.1",
            vec![(FWD, "for=\"1.1.1.1, for=198.51.100.7")],
            "198.51.100.7",
        ),
        // One of the two is from the client.
        (
            "10.0.0.1",
            vec![(XFF, "198.51.100.7"), (FWD, "for=1.1.1.1")],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            vec![(XFF, "198.51.100.7"), (FWD, "for=198.51.100.7")],
            "198.51.100.7",
        ),
    ] {
        assert_eq!(client_of(peer, &lines), expected, "{peer} {lines:?}");
    }
}

#[test]
fn an_address_of_ipv6_counts_as_its_64_and_one_of_ipv4_as_itself() {
    let rate_limit_key = |text: &str| rate_limit_key(text.parse().unwrap());
    assert_eq!(
        rate_limit_key("2001:db8:0:1::1"),
        rate_limit_key("2001:db8:0:1:ffff::9")
    );
    assert_ne!(
        rate_limit_key("2001:db8:0:1::1"),
        rate_limit_key("2001:db8:0:2::1")
    );
    assert_ne!(rate_limit_key("192.0.2.1"), rate_limit_key("192.0.2.2"));
    assert_eq!(
        rate_limit_key("192.0.2.1"),
        rate_limit_key("::ffff:192.0.2.1")
    );
    assert_ne!(rate_limit_key("0.0.0.5"), rate_limit_key("0:0:0:5::"));
}

#[test]
fn private_addresses_are_known() {
    for private in [
        "10.1.2.3",
        "172.18.0.1",
        "127.0.0.1",
        "::1",
        "fd12::1",
        "fe80::1",
    ] {
        assert!(is_private(private.parse().unwrap()), "{private}");
    }
    for public in ["192.0.2.1", "172.32.0.1", "2001:db8::1"] {
        assert!(!is_private(public.parse().unwrap()), "{public}");
    }
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        (0..4_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
    ]
}

/// An address as some proxy writes it into `Forwarded`.
fn quoted(address: IpAddr, style: u8) -> String {
    match (address, style % 3) {
        (IpAddr::V4(v4), 0) => format!("for={v4}"),
        (IpAddr::V4(v4), 1) => format!("for=\"{v4}:80\";proto=https"),
        (IpAddr::V4(v4), _) => format!("by=10.0.0.1;FOR={v4}"),
        (IpAddr::V6(v6), 0) => format!("for=\"[{v6}]\""),
        (IpAddr::V6(v6), 1) => format!("for=\"[{v6}]:80\";proto=https"),
        (IpAddr::V6(v6), _) => format!("by=\"[::1]\";For=\"[{v6}]\""),
    }
}

fn plain(address: IpAddr, style: u8) -> String {
    match (address, style % 3) {
        (IpAddr::V6(v6), 0) => format!("[{v6}]"),
        (address, 1) => SocketAddr::new(address, 80).to_string(),
        (address, _) => address.to_string(),
    }
}

proptest! {
    /// Whatever the client writes on the left, the address is what the trusted proxy appends on the right.
    #[test]
    fn a_client_cannot_choose_its_address(
        // Bytes a header may have.
        junk in proptest::collection::vec(prop_oneof![32..127_u8, 128..=255_u8, Just(b'"'), Just(b','), Just(b';'), Just(b'=')], 0..60),
        address in addresses(),
        style in any::<u8>(),
        on_its_own_line in any::<bool>(),
        forwarded in any::<bool>(),
    ) {
        let trusted: Vec<Cidr> = vec!["203.0.113.9".parse().unwrap()];
        let address = address.to_canonical();
        prop_assume!(!trusted[0].contains(address));
        let (name, entry) = if forwarded {
            (FORWARDED, quoted(address, style))
        } else {
            (X_FORWARDED_FOR, plain(address, style))
        };
        let mut headers = HeaderMap::new();
        if on_its_own_line {
            headers.append(&name, HeaderValue::from_bytes(&junk).unwrap());
            headers.append(&name, entry.parse().unwrap());
        } else {
            let line = [&*junk, b", ", entry.as_bytes()].concat();
            headers.append(&name, HeaderValue::from_bytes(&line).unwrap());
        }
        let proxy = IpAddr::from([203, 0, 113, 9]);
        prop_assert_eq!(client(proxy, &headers, &trusted), address);
        // From an untrusted peer the headers are ignored.
        let stranger = IpAddr::from([203, 0, 113, 10]);
        prop_assert_eq!(client(stranger, &headers, &trusted), stranger);
    }

    /// Of a chain of addresses, the right-most one that is no proxy's, in both spellings.
    #[test]
    fn the_right_most_untrusted_entry_is_the_address(
        chain in proptest::collection::vec((addresses(), any::<u8>()), 1..8),
        forwarded in any::<bool>(),
    ) {
        let trusted: Vec<Cidr> = vec!["10.0.0.0/8".parse().unwrap()];
        let proxy = IpAddr::from([10, 255, 255, 255]);
        let expected = chain
            .iter()
            .rev()
            .map(|(address, _)| address.to_canonical())
            .find(|address| !trusted[0].contains(*address))
            .unwrap_or(chain[0].0.to_canonical());
        let write: fn(IpAddr, u8) -> String = if forwarded { quoted } else { plain };
        let name = if forwarded { FORWARDED } else { X_FORWARDED_FOR };
        let line: Vec<_> = chain.iter().map(|(address, style)| write(*address, *style)).collect();
        let mut headers = HeaderMap::new();
        headers.insert(name, line.join(",").parse().unwrap());
        prop_assert_eq!(client(proxy, &headers, &trusted), expected);
    }

    /// No header bytes cause a panic, and the result is always an address in the headers or the peer.
    #[test]
    fn any_bytes_are_borne(
        lines in proptest::collection::vec((any::<bool>(), proptest::collection::vec(prop_oneof![32..127_u8, 128..=255_u8, Just(b'"'), Just(b','), Just(b'[')], 0..80)), 0..4),
    ) {
        let trusted: Vec<Cidr> = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (forwarded, bytes) in &lines {
            let name = if *forwarded { FORWARDED } else { X_FORWARDED_FOR };
            headers.append(name, HeaderValue::from_bytes(bytes).unwrap());
        }
        client(IpAddr::from([127, 0, 0, 1]), &headers, &trusted);
    }
}
