//! Keys from secrets, PEM files and JSON Web Keys. A key's algorithms are fixed when it is loaded; nothing in a token can change them. Does
//! not know HTTP.

use std::collections::HashSet;
use std::path::Path;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use serde::Deserialize as _;

use super::claims::Claims;
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
pub struct VerifyingKey {
    /// Its id: the file name without extension, or the `kid` of a JWK.
    pub(super) kid: Option<String>,
    key: DecodingKey,
    /// Has the key's algorithms. The library's rules for claims are off: the gateway's are in [`super::claims`].
    validation: Validation,
}

impl VerifyingKey {
    /// The public key in this PEM file, with the file's name as its id. Only algorithms in `allowed_algorithms` are used, if that is not
    /// empty.
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
        let key = from_der(block.contents())?;
        let kid = path.file_stem().and_then(|name| name.to_str());
        Self::for_algorithms(key, kid.map(str::to_owned), |algorithm| {
            allowed_algorithms.is_empty() || allowed_algorithms.contains(&algorithm)
        })
    }

    /// The key in this JWK (RFC 7517), if it is for signatures. Symmetric keys are refused, since a published key is not secret.
    pub(super) fn from_jwk(
        jwk: &serde_json::Value,
        allowed_algorithms: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let jwk = Jwk::deserialize(jwk).map_err(|_| KeyError::Kind)?;
        let (usage, operations) = (&jwk.common.public_key_use, &jwk.common.key_operations);
        let is_for_signatures = usage
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && operations
                .as_ref()
                .is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures {
            return Err(KeyError::Kind);
        }
        let only = jwk.common.key_algorithm.map(Algorithm::try_from);
        let only = only.transpose().map_err(|_| KeyError::Kind)?;
        let key = from_components(&jwk)?;
        Self::for_algorithms(key, jwk.common.key_id, |algorithm| {
            only.is_none_or(|only| only == algorithm)
                && (allowed_algorithms.is_empty() || allowed_algorithms.contains(&algorithm))
        })
    }

    /// The key of HS256 with this secret.
    pub(super) fn from_secret(secret: &[u8]) -> Self {
        Self::new(
            DecodingKey::from_secret(secret),
            None,
            vec![Algorithm::HS256],
        )
    }

    fn for_algorithms(
        (key, mut algorithms): (DecodingKey, Vec<Algorithm>),
        kid: Option<String>,
        is_allowed: impl Fn(Algorithm) -> bool,
    ) -> Result<Self, KeyError> {
        algorithms.retain(|algorithm| is_allowed(*algorithm));
        if algorithms.is_empty() {
            return Err(KeyError::Algorithm);
        }
        Ok(Self::new(key, kid, algorithms))
    }

    fn new(key: DecodingKey, kid: Option<String>, algorithms: Vec<Algorithm>) -> Self {
        let validation = Validation {
            algorithms,
            required_spec_claims: HashSet::new(),
            validate_exp: false,
            validate_aud: false,
            ..Validation::default()
        };
        Self {
            kid,
            key,
            validation,
        }
    }

    /// Whether it may verify signatures of this algorithm.
    pub(super) fn supports(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// The claims of `token`, if this key signed it by one of its algorithms.
    pub(super) fn decode(&self, token: &str) -> jsonwebtoken::errors::Result<Claims> {
        let decoded = jsonwebtoken::decode(token, &self.key, &self.validation)?;
        Ok(decoded.claims)
    }
}

/// The curves. The library looks at a key when it is used; these look at it when it is loaded. Each accepts only its own key type.
const CURVES: [(Algorithm, &dyn VerificationAlgorithm); 3] = [
    (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED),
    (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED),
    (Algorithm::EdDSA, &ED25519),
];

/// Parses the DER of a public key (RFC 5280, or RFC 8017 for RSA).
fn from_der(der: &[u8]) -> Result<(DecodingKey, Vec<Algorithm>), KeyError> {
    if let Ok(key) = rsa::PublicKey::from_der(der) {
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
        return from_rsa(&n, &e);
    }
    let of_curve = |(_, curve): &(_, _)| ParsedPublicKey::new(*curve, der).is_ok();
    let (algorithm, _) = CURVES.into_iter().find(of_curve).ok_or(KeyError::Kind)?;
    let key = match algorithm {
        Algorithm::EdDSA => DecodingKey::from_ed_der(der),
        _ => DecodingKey::from_ec_der(der),
    };
    Ok((key, vec![algorithm]))
}

fn from_components(jwk: &Jwk) -> Result<(DecodingKey, Vec<Algorithm>), KeyError> {
    let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Kind)?;
    if let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() {
        return from_rsa(n, e);
    }
    let algorithm = match &jwk.algorithm {
        // The library joins the coordinates; of unequal length they could be a point that the issuer did not mean.
        AlgorithmParameters::EllipticCurve(point) if point.x.len() == point.y.len() => {
            match point.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                _ => return Err(KeyError::Kind),
            }
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return Err(KeyError::Kind),
    };
    let bytes = key.try_get_as_bytes().map_err(|_| KeyError::Kind)?;
    let on_curve = |(of, curve)| of == algorithm && ParsedPublicKey::new(curve, bytes).is_ok();
    if !CURVES.into_iter().any(on_curve) {
        return Err(KeyError::Kind);
    }
    Ok((key, vec![algorithm]))
}

fn from_rsa(n: &[u8], e: &[u8]) -> Result<(DecodingKey, Vec<Algorithm>), KeyError> {
    // Some issuers add a leading zero byte, which the library refuses.
    let without_zeros = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (n, e) = (without_zeros(n), without_zeros(e));
    let unused = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (n.len() * 8).saturating_sub(unused as usize);
    if !(2048..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::Size);
    }
    let key = DecodingKey::from_rsa_raw_components(&n, &e);
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| KeyError::Kind)?;
    Ok((key, AlgorithmFamily::Rsa.algorithms().to_vec()))
}
