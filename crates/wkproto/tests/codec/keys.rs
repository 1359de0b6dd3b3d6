//! Public keys and sealed bytes that are refused.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use wkproto::{KeyError, KeyPair, is_valid_public_key};

const SALT: &str = "z3DlSVzlr5jbKWbK";

#[test]
fn a_public_key_is_base64_of_32_bytes() {
    let good = KeyPair::generate().unwrap().public_key().to_owned();
    assert!(is_valid_public_key(&good));
    let bad = [
        String::new(),
        BASE64_STANDARD.encode([7; 31]),
        BASE64_STANDARD.encode([7; 33]),
        good.trim_end_matches('=').to_owned(),
        good.replace('=', "\n"),
        "*".repeat(44),
    ];
    for key in bad {
        assert!(!is_valid_public_key(&key), "{key}");
    }
}

#[test]
fn a_point_without_a_shared_secret_is_refused() {
    let pair = KeyPair::generate().unwrap();
    let zero = BASE64_STANDARD.encode([0; 32]);
    assert!(is_valid_public_key(&zero), "its shape is right");
    assert_eq!(pair.agree(&zero, SALT).err(), Some(KeyError::PublicKey));
}

#[test]
fn a_salt_is_cut_to_16_bytes_and_not_shorter() {
    let (client, server) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let longer = format!("{SALT}-and-more");
    let sealed = client
        .agree(server.public_key(), &longer)
        .unwrap()
        .seal(b"hi");
    let opener = server.agree(client.public_key(), SALT).unwrap();
    assert_eq!(opener.open(&sealed).unwrap(), b"hi");
    let refused = server.agree(client.public_key(), &SALT[1..]).err();
    assert_eq!(refused, Some(KeyError::Salt));
}

#[test]
fn what_is_no_base64_of_sealed_blocks_is_not_opened() {
    let (client, server) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let cipher = client.agree(server.public_key(), SALT).unwrap();
    for sealed in [&b""[..], b"aGk=", b"not base64", b"\xFF\xFE", &[b'A'; 64]] {
        assert_eq!(cipher.open(sealed).err(), Some(KeyError::Sealed));
    }
}
