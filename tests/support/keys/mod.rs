//! The test keys of this directory, and what is signed with them. Used by unit tests and test binaries alike. Signing is
//! `jsonwebtoken`'s, so that the gateway's own reading of tokens is held to another's writing.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::path::Path;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// A key pair: `NAME.pem`, and its public half in `NAME.pub.pem`.
#[derive(Debug, Clone, Copy)]
pub struct TestKey {
    pub name: &'static str,
    /// All that it is for.
    pub algorithms: &'static [Algorithm],
}

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

const fn key(name: &'static str, algorithms: &'static [Algorithm]) -> TestKey {
    TestKey { name, algorithms }
}

pub const RSA_ONE: TestKey = key("rsa-one", RSA);
pub const RSA_TWO: TestKey = key("rsa-two", RSA);
pub const P256_ONE: TestKey = key("p256-one", &[Algorithm::ES256]);
pub const P256_TWO: TestKey = key("p256-two", &[Algorithm::ES256]);
pub const P384_ONE: TestKey = key("p384-one", &[Algorithm::ES384]);
pub const ED_ONE: TestKey = key("ed25519-one", &[Algorithm::EdDSA]);
pub const ED_TWO: TestKey = key("ed25519-two", &[Algorithm::EdDSA]);

/// One of each kind.
pub const KINDS: [TestKey; 4] = [RSA_ONE, P256_ONE, P384_ONE, ED_ONE];

/// The path of a file beside this one.
pub fn path(name: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/keys");
    here.join(name).to_str().unwrap().to_owned()
}

impl TestKey {
    /// Its public half's file.
    pub fn public_file(self) -> String {
        path(&format!("{}.pub.pem", self.name))
    }

    pub fn public_pem(self) -> String {
        std::fs::read_to_string(self.public_file()).unwrap()
    }

    fn private(self) -> EncodingKey {
        let pem = std::fs::read(path(&format!("{}.pem", self.name))).unwrap();
        match self.algorithms[0] {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        }
        .unwrap()
    }

    /// A token by the first of its algorithms.
    pub fn sign(self, kid: Option<&str>, claims: &Value) -> String {
        self.sign_by(self.algorithms[0], kid, claims)
    }

    pub fn sign_by(self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        encode(&header, claims, &self.private()).unwrap()
    }

    /// Its signature of any text, as a token has it.
    pub fn signature(self, algorithm: Algorithm, message: &str) -> String {
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.private(), algorithm).unwrap()
    }

    /// Its public half as a JWK without `alg` and `use`.
    pub fn jwk(self, kid: Option<&str>) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private(), self.algorithms[0]).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        let members = jwk.as_object_mut().unwrap();
        members.remove("alg");
        if let Some(kid) = kid {
            members.insert("kid".to_owned(), kid.into());
        }
        jwk
    }
}

/// A JSON Web Key Set.
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
