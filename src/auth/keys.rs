//! Public keys from PEM files and JSON Web Keys. A key's algorithms are fixed when it is loaded; nothing in a token can change them. Does
//! not know tokens or HTTP.

use std::path::Path;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::config::Algorithm;

/// Maximum size of a key file, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// The largest accepted RSA modulus, in bits; the smallest is 2048.
const MAX_RSA_BITS: usize = 8192;

/// Why a key cannot be used; the text continues a sentence that names the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// Not one PEM block of a public key.
    #[error(
        "must be a PEM file with one public key (BEGIN PUBLIC KEY), not a certificate or a private key"
    )]
    NotPem,
    /// A curve or key type without a supported algorithm.
    #[error("must be an RSA, P-256, P-384 or Ed25519 key")]
    Kind,
    /// An RSA key that is too small or too large.
    #[error("must be an RSA key of 2048 to 8192 bits")]
    Size,
    /// None of its algorithms is allowed.
    #[error("is a key for none of the algorithms in auth.algorithms")]
    Algorithm,
}

/// A key and the algorithms of its family that it may verify.
pub struct PublicKey {
    /// Its id: the file name without extension, or the `kid` of a JWK.
    pub(super) kid: Option<String>,
    checks: Vec<(Algorithm, ParsedPublicKey)>,
}

impl PublicKey {
    /// The key in this PEM file, with the file's name as its id. Only algorithms in `allowed_algorithms` are used, if that is not empty.
    pub fn from_file(path: &Path, allowed_algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let metadata = std::fs::metadata(path).map_err(KeyError::Unreadable)?;
        if metadata.len() > MAX_FILE {
            return Err(KeyError::NotPem);
        }
        let text = std::fs::read(path).map_err(KeyError::Unreadable)?;
        let blocks = pem::parse_many(text).map_err(|_| KeyError::NotPem)?;
        let [block] = blocks.as_slice() else {
            return Err(KeyError::NotPem);
        };
        if !matches!(block.tag(), "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err(KeyError::NotPem);
        }
        let kid = path.file_stem().and_then(|name| name.to_str());
        Self::with_algorithms(
            kid.map(str::to_owned),
            from_der(block.contents())?,
            None,
            allowed_algorithms,
        )
    }

    /// The key in this JWK (RFC 7517), if it is for signatures. Symmetric keys are refused, since a published key is not secret.
    pub(super) fn from_jwk(
        jwk: &serde_json::Value,
        allowed_algorithms: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let jwk = Jwk::deserialize(jwk).map_err(|_| KeyError::Kind)?;
        let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return Err(KeyError::Kind);
        }
        let only = match &jwk.alg {
            None => None,
            Some(name) => Some(Algorithm::named(name).ok_or(KeyError::Kind)?),
        };
        Self::with_algorithms(
            jwk.kid.clone(),
            from_components(&jwk)?,
            only,
            allowed_algorithms,
        )
    }

    fn with_algorithms(
        kid: Option<String>,
        mut checks: Vec<(Algorithm, ParsedPublicKey)>,
        only: Option<Algorithm>,
        allowed_algorithms: &[Algorithm],
    ) -> Result<Self, KeyError> {
        checks.retain(|(algorithm, _)| {
            only.is_none_or(|only| only == *algorithm)
                && (allowed_algorithms.is_empty() || allowed_algorithms.contains(algorithm))
        });
        if checks.is_empty() {
            return Err(KeyError::Algorithm);
        }
        Ok(Self { kid, checks })
    }

    /// Whether it may verify signatures of this algorithm.
    pub(super) fn supports(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(is, _)| *is == algorithm)
    }

    /// Whether `signature` is this key's signature of `message` by this algorithm.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let check = self.checks.iter().find(|(is, _)| *is == algorithm);
        check.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
];

const EC: [(Algorithm, &EcdsaVerificationAlgorithm); 2] = [
    (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED),
    (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED),
];

/// Parses the DER of a public key (RFC 5280, or RFC 8017 for RSA). Each parser accepts only its own key type.
fn from_der(der: &[u8]) -> Result<Vec<(Algorithm, ParsedPublicKey)>, KeyError> {
    if let Ok(key) = rsa::PublicKey::from_der(der) {
        let modulus = key.modulus();
        check_rsa_size(modulus.big_endian_without_leading_zero())?;
        let parse = |(algorithm, parameters): (_, &'static RsaParameters)| {
            Some((algorithm, ParsedPublicKey::new(parameters, der).ok()?))
        };
        return Ok(RSA.into_iter().filter_map(parse).collect());
    }
    for (algorithm, parameters) in EC {
        if let Ok(key) = ParsedPublicKey::new(parameters, der) {
            return Ok(vec![(algorithm, key)]);
        }
    }
    let key = ParsedPublicKey::new(&signature::ED25519, der).map_err(|_| KeyError::Kind)?;
    Ok(vec![(Algorithm::EdDsa, key)])
}

/// `modulus` without leading zeros.
fn check_rsa_size(modulus: &[u8]) -> Result<(), KeyError> {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (modulus.len() * 8).saturating_sub(unused as usize);
    if (2048..=MAX_RSA_BITS).contains(&bits) {
        Ok(())
    } else {
        Err(KeyError::Size)
    }
}

/// The members of a JWK that are used.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn from_components(jwk: &Jwk) -> Result<Vec<(Algorithm, ParsedPublicKey)>, KeyError> {
    let bytes = |member: &Option<String>| {
        let text = member.as_deref().ok_or(KeyError::Kind)?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Kind)
    };
    let point = |length: usize| {
        let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
        if (x.len(), y.len()) != (length, length) {
            return Err(KeyError::Kind);
        }
        // 4: an uncompressed point.
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    };
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => return from_rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?),
        ("EC", Some("P-256")) => (EC[0].0, ParsedPublicKey::new(EC[0].1, point(32)?)),
        ("EC", Some("P-384")) => (EC[1].0, ParsedPublicKey::new(EC[1].1, point(48)?)),
        ("OKP", Some("Ed25519")) => {
            let key = ParsedPublicKey::new(&signature::ED25519, bytes(&jwk.x)?);
            (Algorithm::EdDsa, key)
        }
        _ => return Err(KeyError::Kind),
    };
    Ok(vec![(algorithm, key.map_err(|_| KeyError::Kind)?)])
}

fn from_rsa(n: &[u8], e: &[u8]) -> Result<Vec<(Algorithm, ParsedPublicKey)>, KeyError> {
    // Some issuers add a leading zero byte, which the library refuses.
    let without_zeros = |number: &'_ [u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (n, e) = (without_zeros(n), without_zeros(e));
    check_rsa_size(&n)?;
    let components = RsaPublicKeyComponents { n, e };
    let parse = |(algorithm, parameters)| {
        let key = components.to_parsed_public_key(parameters);
        key.map(|key| (algorithm, key)).map_err(|_| KeyError::Kind)
    };
    RSA.into_iter().map(parse).collect()
}
