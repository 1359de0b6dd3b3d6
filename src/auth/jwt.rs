//! Verifying a JWT: signature, times, issuer, audience, uid. The library checks the signature, the claims are judged here, since
//! who comes in is this project's own business.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use super::Caller;
use crate::config;
use crate::domain::Uid;

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no bearer token")]
    Missing,
    /// Its signature is good and its time is over.
    #[error("token expired")]
    Expired,
    /// Anything else; the word says what, for the log.
    #[error("token invalid: {0}")]
    Invalid(&'static str),
}

/// Checks tokens against the configured keys and claims.
pub struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
    issuer: Option<String>,
    audience: Option<String>,
    uid_claims: Vec<String>,
    admin_roles: Vec<String>,
    admin_permissions: Vec<String>,
    leeway_s: f64,
    id_bytes: usize,
}

impl Verifier {
    /// A verifier for HS256 tokens signed with `jwt_secret` or one of `jwt_previous_secrets`.
    pub fn new(settings: &config::Auth, id_bytes: usize) -> Self {
        let secrets = settings
            .jwt_secret
            .iter()
            .chain(&settings.jwt_previous_secrets);
        let keys = secrets
            .map(|secret| DecodingKey::from_secret(secret.expose_secret().as_bytes()))
            .collect();
        // Signature and algorithm only: an expired token of a wrong issuer is invalid, not expired, so the claims are ours.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            keys,
            validation,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            uid_claims: settings.uid_claims.clone(),
            admin_roles: settings.admin_roles.clone(),
            admin_permissions: settings.admin_permissions.clone(),
            leeway_s: settings.leeway.as_secs_f64(),
            id_bytes,
        }
    }

    /// Who `token` speaks for.
    pub fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |now| now.as_secs_f64());
        self.judge(&self.signed_claims(token)?, now_s)
    }

    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        let mut refusal = TokenError::Invalid("signature");
        for key in &self.keys {
            match jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::InvalidAlgorithm => refusal = TokenError::Invalid("algorithm"),
                    _ => refusal = TokenError::Invalid("malformed"),
                },
            }
        }
        Err(refusal)
    }

    fn judge(&self, claims: &Map<String, Value>, now_s: f64) -> Result<Caller, TokenError> {
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Invalid("iss"));
        }
        if let Some(audience) = &self.audience
            && !claims
                .get("aud")
                .is_some_and(|aud| texts(aud).any(|text| text == audience))
        {
            return Err(TokenError::Invalid("aud"));
        }
        match claims.get("nbf") {
            None => {}
            Some(nbf) if nbf.as_f64().is_some_and(|nbf| nbf <= now_s + self.leeway_s) => {}
            Some(_) => return Err(TokenError::Invalid("nbf")),
        }
        let exp = claims
            .get("exp")
            .and_then(Value::as_f64)
            .ok_or(TokenError::Invalid("exp"))?;
        let uid = self
            .uid_claims
            .iter()
            .find_map(|claim| claims.get(claim))
            .and_then(Value::as_str);
        let uid = uid
            .and_then(|text| Uid::parse(text, self.id_bytes).ok())
            .ok_or(TokenError::Invalid("uid"))?;
        // Last of all: a client may take `token_expired` as "refresh and come back", which must then be enough.
        if exp <= now_s - self.leeway_s {
            return Err(TokenError::Expired);
        }
        let names = |claim: &str, wanted: &[String]| {
            claims
                .get(claim)
                .is_some_and(|list| texts(list).any(|text| wanted.iter().any(|name| name == text)))
        };
        let is_admin =
            names("roles", &self.admin_roles) || names("permissions", &self.admin_permissions);
        Ok(Caller { uid, is_admin })
    }
}

/// The texts of a claim that is a text or a list; anything else in it is passed over.
fn texts(claim: &Value) -> impl Iterator<Item = &str> {
    let list = match claim {
        Value::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    list.iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

    fn verifier(change: impl FnOnce(&mut config::Auth)) -> Verifier {
        let mut settings = config::Settings::for_tests().auth;
        settings.jwt_secret = Some(SECRET.to_owned().into());
        change(&mut settings);
        Verifier::new(&settings, 128)
    }

    fn signed(claims: &Value) -> String {
        encode(
            &Header::default(),
            claims,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap()
    }

    const FAR: u64 = 4_000_000_000;

    #[test]
    fn the_uid_is_sub_or_else_user_id() {
        let verifier = verifier(|_| {});
        let uid = |claims| {
            verifier
                .verify(&signed(&claims))
                .map(|caller| caller.uid.to_string())
        };
        assert_eq!(
            uid(json!({"sub": "a", "userId": "b", "exp": FAR})),
            Ok("a".into())
        );
        assert_eq!(uid(json!({"userId": "b", "exp": FAR})), Ok("b".into()));
        for claims in [
            json!({"exp": FAR}),
            json!({"sub": "", "userId": "b", "exp": FAR}),
            json!({"sub": 7, "exp": FAR}),
            json!({"sub": "a@b", "exp": FAR}),
            json!({"sub": "____system", "exp": FAR}),
        ] {
            assert_eq!(
                uid(claims.clone()),
                Err(TokenError::Invalid("uid")),
                "{claims}"
            );
        }
    }

    #[test]
    fn times_are_judged_with_leeway() {
        let verifier = verifier(|_| {});
        let now = 1_000_000.0;
        let judge = |claims: Value| verifier.judge(claims.as_object().unwrap(), now).map(|_| ());
        assert_eq!(judge(json!({"sub": "a"})), Err(TokenError::Invalid("exp")));
        assert_eq!(
            judge(json!({"sub": "a", "exp": "2000000"})),
            Err(TokenError::Invalid("exp"))
        );
        assert_eq!(judge(json!({"sub": "a", "exp": 1_000_001})), Ok(()));
        assert_eq!(judge(json!({"sub": "a", "exp": 999_971})), Ok(()));
        assert_eq!(
            judge(json!({"sub": "a", "exp": 999_970})),
            Err(TokenError::Expired)
        );
        assert_eq!(
            judge(json!({"sub": "a", "exp": FAR, "nbf": 1_000_030})),
            Ok(())
        );
        assert_eq!(
            judge(json!({"sub": "a", "exp": FAR, "nbf": 1_000_031})),
            Err(TokenError::Invalid("nbf"))
        );
        assert_eq!(
            judge(json!({"sub": "a@b", "exp": 5})),
            Err(TokenError::Invalid("uid"))
        );
    }

    #[test]
    fn issuer_and_audience_are_checked_when_configured() {
        let verifier = verifier(|auth| {
            auth.issuer = Some("openchat".into());
            auth.audience = Some("im".into());
        });
        let check = |claims: Value| verifier.verify(&signed(&claims)).map(|_| ());
        assert_eq!(
            check(json!({"sub": "a", "exp": FAR, "iss": "openchat", "aud": ["x", "im"]})),
            Ok(())
        );
        assert_eq!(
            check(json!({"sub": "a", "exp": FAR, "iss": "openchat", "aud": "im"})),
            Ok(())
        );
        assert_eq!(
            check(json!({"sub": "a", "exp": FAR, "aud": "im"})),
            Err(TokenError::Invalid("iss"))
        );
        assert_eq!(
            check(json!({"sub": "a", "exp": FAR, "iss": "openchat"})),
            Err(TokenError::Invalid("aud"))
        );
    }

    #[test]
    fn other_keys_and_algorithms_are_refused_and_previous_secrets_taken() {
        let claims = json!({"sub": "a", "exp": FAR});
        let old = "another-secret-of-thirty-two-bytes!!";
        let by_old = encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(old.as_bytes()),
        )
        .unwrap();
        assert_eq!(
            verifier(|_| {}).verify(&by_old),
            Err(TokenError::Invalid("signature"))
        );
        let rotated = verifier(|auth| auth.jwt_previous_secrets = vec![old.to_owned().into()]);
        assert!(rotated.verify(&by_old).is_ok());
        let hs512 = encode(
            &Header::new(Algorithm::HS512),
            &claims,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        );
        assert_eq!(
            rotated.verify(&hs512.unwrap()),
            Err(TokenError::Invalid("algorithm"))
        );
        for token in [
            "",
            "a.b.c",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo0MDAwMDAwMDAwfQ.",
        ] {
            assert!(
                matches!(rotated.verify(token), Err(TokenError::Invalid(_))),
                "{token}"
            );
        }
    }

    #[test]
    fn roles_and_permissions_make_an_admin() {
        let verifier = verifier(|_| {});
        let admin = |extra: Value| {
            let mut claims = json!({"sub": "a", "exp": FAR});
            claims
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            verifier.verify(&signed(&claims)).unwrap().is_admin
        };
        assert!(admin(json!({"roles": ["user", "admin"]})));
        assert!(admin(json!({"permissions": ["im:admin"]})));
        assert!(!admin(
            json!({"roles": ["im:admin", 7, null], "scope": "admin im:admin"})
        ));
        assert!(!admin(json!({"roles": {"admin": true}, "permissions": 1})));
    }
}
