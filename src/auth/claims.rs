//! Validation of a token's claims: issuer, audience, times, required claims, uid and admin rights. Does not know signatures.

use serde_json::Value;

use super::{Caller, TokenError};
use crate::config::{self, Algorithm};
use crate::domain::Uid;

/// The claims of a token. The last one of a duplicate counts.
pub(super) type Claims = serde_json::Map<String, Value>;

/// A value this large cannot be seconds: it would be 30,000 years ahead, and the token would never expire.
const MILLISECONDS: f64 = 1e12;

/// The rules for claims.
pub(super) struct ClaimRules {
    settings: config::Auth,
    /// Maximum bytes of a uid.
    id_bytes: usize,
}

/// The validated claims of a token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValidClaims {
    pub(super) caller: Caller,
    /// Its `exp`, in seconds since 1970.
    pub(super) exp_s: f64,
}

impl ClaimRules {
    /// The configured rules; a uid has at most `id_bytes` bytes.
    pub(super) fn new(settings: config::Auth, id_bytes: usize) -> Self {
        Self { settings, id_bytes }
    }

    /// Whether a token may name this algorithm.
    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        let allowed = &self.settings.algorithms;
        allowed.is_empty() || allowed.contains(&algorithm)
    }

    /// Validates the claims at `now_s`, in seconds since 1970.
    pub(super) fn validate(&self, claims: &Claims, now_s: f64) -> Result<ValidClaims, TokenError> {
        let settings = &self.settings;
        let leeway_s = settings.leeway.as_secs_f64();
        if let Some(issuer) = &settings.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Invalid("iss"));
        }
        if let Some(audience) = &settings.audience
            && !claims
                .get("aud")
                .is_some_and(|aud| audience_matches(aud, audience))
        {
            return Err(TokenError::Invalid("aud"));
        }
        match claims.get("nbf") {
            None => {}
            Some(nbf) if nbf.as_f64().is_some_and(|nbf| nbf <= now_s + leeway_s) => {}
            Some(_) => return Err(TokenError::Invalid("nbf")),
        }
        let exp_s = claims
            .get("exp")
            .and_then(Value::as_f64)
            .ok_or(TokenError::Invalid("exp"))?;
        if exp_s >= MILLISECONDS {
            return Err(TokenError::Invalid("exp in milliseconds"));
        }
        let mut required = settings.required_claims.iter();
        if !required.all(|claim| has_claim(claims, claim)) {
            return Err(TokenError::Invalid("required claim"));
        }
        let mut uid_claims = settings.uid_claims.iter();
        let uid = uid_claims
            .find_map(|claim| claims.get(claim))
            .and_then(Value::as_str)
            .and_then(|text| Uid::parse(text, self.id_bytes).ok())
            .ok_or(TokenError::Invalid("uid"))?;
        // Checked last: on `token_expired` a client refreshes its token and retries, which must then suffice.
        if exp_s <= now_s - leeway_s {
            return Err(TokenError::Expired);
        }
        let has_any = |claim: &str, wanted: &[String]| {
            let list = claims.get(claim).and_then(Value::as_array);
            let mut has_any = list.into_iter().flatten().filter_map(Value::as_str);
            has_any.any(|name| wanted.iter().any(|one| one == name))
        };
        let is_admin = has_any("roles", &settings.admin_roles)
            || has_any("permissions", &settings.admin_permissions);
        let caller = Caller { uid, is_admin };
        Ok(ValidClaims { caller, exp_s })
    }
}

/// `aud` is a string or a list of strings.
fn audience_matches(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::Array(list) => list.iter().any(|entry| entry.as_str() == Some(audience)),
        single => single.as_str() == Some(audience),
    }
}

/// Whether a claim is present. `roles`, `permissions` and `scope` must be lists (`scope` also a string); other values count as absent.
fn has_claim(claims: &Claims, claim: &str) -> bool {
    match (claim, claims.get(claim)) {
        ("roles" | "permissions" | "scope", Some(Value::Array(_))) => true,
        ("scope", Some(Value::String(words))) => !words.trim().is_empty(),
        ("roles" | "permissions" | "scope", _) | (_, None | Some(Value::Null)) => false,
        (_, Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FAR: u64 = 4_000_000_000;
    const NOW: f64 = 1_000_000.0;

    fn rules(change: impl FnOnce(&mut config::Auth)) -> ClaimRules {
        let mut settings = config::Settings::for_tests().auth;
        change(&mut settings);
        ClaimRules::new(settings, 128)
    }

    /// These claims, with a valid uid and a distant expiry.
    fn with(extra: &Value) -> Value {
        let mut claims = json!({"sub": "a", "exp": FAR});
        let all = claims.as_object_mut().unwrap();
        all.extend(extra.as_object().unwrap().clone());
        claims
    }

    fn validate(rules: &ClaimRules, claims: &Value) -> Result<ValidClaims, TokenError> {
        rules.validate(claims.as_object().unwrap(), NOW)
    }

    #[test]
    fn the_uid_is_sub_or_else_user_id() {
        let rules = rules(|_| {});
        let uid = |claims: Value| {
            let valid_claims = validate(&rules, &claims);
            valid_claims.map(|valid_claims| valid_claims.caller.uid.to_string())
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
            let result = uid(claims.clone());
            assert_eq!(result, Err(TokenError::Invalid("uid")), "{claims}");
        }
    }

    #[test]
    fn times_are_judged_with_leeway() {
        let rules = rules(|_| {});
        let validate = |claims: Value| super::tests::validate(&rules, &claims).map(|_| ());
        let exp = Err(TokenError::Invalid("exp"));
        assert_eq!(validate(json!({"sub": "a"})), exp);
        assert_eq!(validate(json!({"sub": "a", "exp": "2000000"})), exp);
        let in_milliseconds = Err(TokenError::Invalid("exp in milliseconds"));
        assert_eq!(
            validate(json!({"sub": "a", "exp": 1_000_000_000_000_u64})),
            in_milliseconds
        );
        assert_eq!(validate(json!({"sub": "a", "exp": 1e300})), in_milliseconds);
        assert_eq!(
            validate(json!({"sub": "a", "exp": 999_999_999_999_u64})),
            Ok(())
        );
        assert_eq!(validate(json!({"sub": "a", "exp": 1_000_001})), Ok(()));
        assert_eq!(validate(json!({"sub": "a", "exp": 999_971})), Ok(()));
        assert_eq!(
            validate(json!({"sub": "a", "exp": 999_970})),
            Err(TokenError::Expired)
        );
        assert_eq!(
            validate(json!({"sub": "a", "exp": FAR, "nbf": 1_000_030})),
            Ok(())
        );
        assert_eq!(
            validate(json!({"sub": "a", "exp": FAR, "nbf": 1_000_031})),
            Err(TokenError::Invalid("nbf"))
        );
        assert_eq!(
            validate(json!({"sub": "a@b", "exp": 5})),
            Err(TokenError::Invalid("uid"))
        );
    }

    #[test]
    fn issuer_and_audience_are_checked_when_configured() {
        let rules = rules(|auth| {
            auth.issuer = Some("openchat".into());
            auth.audience = Some("im".into());
        });
        let check = |claims: Value| validate(&rules, &with(&claims)).map(|_| ());
        assert_eq!(
            check(json!({"iss": "openchat", "aud": ["x", "im"]})),
            Ok(())
        );
        assert_eq!(check(json!({"iss": "openchat", "aud": "im"})), Ok(()));
        assert_eq!(check(json!({"aud": "im"})), Err(TokenError::Invalid("iss")));
        for aud in [json!("imx"), json!([]), json!([["im"]]), json!({"im": 1})] {
            assert_eq!(
                check(json!({"iss": "openchat", "aud": aud})),
                Err(TokenError::Invalid("aud"))
            );
        }
    }

    #[test]
    fn required_claims_must_be_there_in_the_shape_they_have() {
        let check = |required: &str, claims: Value| {
            let rules = rules(|auth| auth.required_claims = vec![required.to_owned()]);
            validate(&rules, &with(&claims)).map(|_| ())
        };
        for (required, good) in [
            ("roles", json!({"roles": ["user"]})),
            ("roles", json!({"roles": []})),
            ("roles", json!({"roles": [7, "user"]})),
            ("permissions", json!({"permissions": ["read"]})),
            ("scope", json!({"scope": "im openid"})),
            ("scope", json!({"scope": ["im"]})),
            ("tenant", json!({"tenant": 7})),
            ("tenant", json!({"tenant": ""})),
        ] {
            assert_eq!(check(required, good.clone()), Ok(()), "{good}");
        }
        for (required, bad) in [
            ("roles", json!({})),
            ("roles", json!({"roles": null})),
            ("roles", json!({"roles": "user"})),
            ("roles", json!({"roles": {"user": true}})),
            ("roles", json!({"roles": 1, "scope": "roles"})),
            ("permissions", json!({"permissions": true})),
            ("scope", json!({"scope": "  "})),
            ("scope", json!({"scope": 7})),
            ("tenant", json!({"tenant": null})),
        ] {
            let result = check(required, bad.clone());
            assert_eq!(result, Err(TokenError::Invalid("required claim")), "{bad}");
        }
    }

    #[test]
    fn lists_of_roles_and_permissions_make_an_admin_and_nothing_else_does() {
        let admin = |rules: &ClaimRules, claims: &Value| {
            let valid_claims = validate(rules, &with(claims));
            valid_claims.unwrap().caller.is_admin
        };
        let usual = rules(|_| {});
        let by_role = json!({"roles": ["user", 7, null, "admin"]});
        let by_permission = json!({"permissions": ["im:admin"]});
        assert!(admin(&usual, &by_role));
        assert!(admin(&usual, &by_permission));
        for claims in [
            json!({"roles": ["im:admin", ["admin"]], "scope": "admin im:admin"}),
            json!({"roles": "admin", "permissions": "im:admin"}),
            json!({"roles": {"admin": true}, "permissions": 1}),
            json!({"scope": ["admin", "im:admin"]}),
            json!({"roles": ["Admin", " admin", "admin "]}),
        ] {
            assert!(!admin(&usual, &claims), "{claims}");
        }
        let no_admins = rules(|auth| {
            auth.admin_roles.clear();
            auth.admin_permissions.clear();
        });
        assert!(!admin(&no_admins, &by_role) && !admin(&no_admins, &by_permission));
    }
}
