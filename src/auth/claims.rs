//! What a token says, judged: issuer, audience, times, what must be in it, who it speaks for, whether he is an admin. Knows no
//! signature.

use serde_json::{Map, Value};

use super::{Caller, TokenError};
use crate::config;
use crate::domain::Uid;

/// What is asked of claims.
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    uid_claims: Vec<String>,
    required: Vec<String>,
    admin_roles: Vec<String>,
    admin_permissions: Vec<String>,
    leeway_s: f64,
    id_bytes: usize,
}

/// A token that lets somebody in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) caller: Caller,
    /// Its `exp`, in seconds since 1970.
    pub(super) exp_s: f64,
}

impl Rules {
    /// The configured rules; a uid has at most `id_bytes` bytes.
    pub(super) fn new(settings: &config::Auth, id_bytes: usize) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            uid_claims: settings.uid_claims.clone(),
            required: settings.required_claims.clone(),
            admin_roles: settings.admin_roles.clone(),
            admin_permissions: settings.admin_permissions.clone(),
            leeway_s: settings.leeway.as_secs_f64(),
            id_bytes,
        }
    }

    /// Who these claims speak for at `now_s`, in seconds since 1970.
    pub(super) fn judge(
        &self,
        claims: &Map<String, Value>,
        now_s: f64,
    ) -> Result<Judged, TokenError> {
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Invalid("iss"));
        }
        if let Some(audience) = &self.audience
            && !claims.get("aud").is_some_and(|aud| is_for(aud, audience))
        {
            return Err(TokenError::Invalid("aud"));
        }
        match claims.get("nbf") {
            None => {}
            Some(nbf) if nbf.as_f64().is_some_and(|nbf| nbf <= now_s + self.leeway_s) => {}
            Some(_) => return Err(TokenError::Invalid("nbf")),
        }
        let exp_s = claims
            .get("exp")
            .and_then(Value::as_f64)
            .ok_or(TokenError::Invalid("exp"))?;
        if !self.required.iter().all(|claim| has(claims, claim)) {
            return Err(TokenError::Invalid("required claim"));
        }
        let uid = self
            .uid_claims
            .iter()
            .find_map(|claim| claims.get(claim))
            .and_then(Value::as_str);
        let uid = uid
            .and_then(|text| Uid::parse(text, self.id_bytes).ok())
            .ok_or(TokenError::Invalid("uid"))?;
        // Last of all: a client may take `token_expired` as "refresh and come back", which must then be enough.
        if exp_s <= now_s - self.leeway_s {
            return Err(TokenError::Expired);
        }
        let names = |claim: &str, wanted: &[String]| {
            let list = claims.get(claim).and_then(Value::as_array);
            let mut names = list.into_iter().flatten().filter_map(Value::as_str);
            names.any(|name| wanted.iter().any(|one| one == name))
        };
        let is_admin =
            names("roles", &self.admin_roles) || names("permissions", &self.admin_permissions);
        let caller = Caller { uid, is_admin };
        Ok(Judged { caller, exp_s })
    }
}

/// `aud` is one text or a list.
fn is_for(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::Array(list) => list.iter().any(|entry| entry.as_str() == Some(audience)),
        single => single.as_str() == Some(audience),
    }
}

/// Whether a claim is there. The three that are lists count only as lists: what else stands there is passed over.
fn has(claims: &Map<String, Value>, claim: &str) -> bool {
    match (claim, claims.get(claim)) {
        ("roles" | "permissions" | "scope", Some(Value::Array(_))) => true,
        ("scope", Some(Value::String(words))) => !words.trim().is_empty(),
        ("roles" | "permissions" | "scope", _) | (_, None | Some(Value::Null)) => false,
        (_, Some(_)) => true,
    }
}
