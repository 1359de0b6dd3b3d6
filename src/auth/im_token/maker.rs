//! How a connect token is made: of the configured secret, whose it is, and how often it was revoked.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;

use super::{DeviceFlag, ImToken};
use crate::config;
use crate::domain::Uid;

/// `im_token.secret`, else a key derived from `jwt_secret` with a separate label (so that a connect token reveals nothing about JWTs);
/// `None` where neither is set.
pub(in crate::auth) fn secret_key(settings: &config::Settings) -> Option<hmac::Key> {
    let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
    match (&settings.im_token.secret, &settings.auth.jwt_secret) {
        (Some(secret), _) => Some(key(secret.expose_secret().as_bytes())),
        (None, Some(secret)) => {
            let jwt = key(secret.expose_secret().as_bytes());
            let derived = hmac::sign(&jwt, b"wukongim-gateway im_token.secret v1");
            Some(key(derived.as_ref()))
        }
        (None, None) => None,
    }
}

/// Derives connect tokens: HMAC-SHA256 of uid, device flag and revocation count, as 43 characters of URL-safe base64.
pub(super) struct TokenDeriver {
    key: hmac::Key,
}

impl TokenDeriver {
    /// Uses [`secret_key`].
    pub(super) fn new(settings: &config::Settings) -> Option<Self> {
        let key = secret_key(settings)?;
        Some(Self { key })
    }

    /// The token of (`uid`, `device`) for the revocation count `revocation`.
    pub(super) fn token(&self, uid: &Uid, device: DeviceFlag, revocation: u64) -> ImToken {
        // Fixed-width fields first, so that the encoding is unambiguous.
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&revocation.to_be_bytes());
        context.update(&[device.number()]);
        context.update(uid.as_str().as_bytes());
        ImToken(URL_SAFE_NO_PAD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deriver(jwt: &str, own: Option<&str>) -> TokenDeriver {
        let mut settings = config::Settings::for_tests();
        settings.auth.jwt_secret = Some(jwt.to_owned().into());
        settings.im_token.secret = own.map(|secret| secret.to_owned().into());
        TokenDeriver::new(&settings).unwrap()
    }

    #[test]
    fn a_token_is_the_same_everywhere_and_differs_in_everything_else() {
        let uid = |text| Uid::parse(text, 128).unwrap();
        let make = |deriver: &TokenDeriver| deriver.token(&uid("a"), DeviceFlag::Web, 0);
        let (one, two) = (deriver("jwt-secret-1", None), deriver("jwt-secret-1", None));
        assert_eq!(make(&one), make(&two));
        assert_eq!(make(&one).as_str().len(), 43);
        let mut all = std::collections::HashSet::new();
        assert!(all.insert(make(&one)));
        assert!(all.insert(make(&deriver("jwt-secret-2", None))));
        assert!(all.insert(make(&deriver("jwt-secret-1", Some("own")))));
        assert!(all.insert(one.token(&uid("b"), DeviceFlag::Web, 0)));
        assert!(all.insert(one.token(&uid("a"), DeviceFlag::App, 0)));
        assert!(all.insert(one.token(&uid("a"), DeviceFlag::Web, 1)));
    }

    #[test]
    fn a_token_is_shown_to_its_user_alone() {
        let uid = Uid::parse("a", 128).unwrap();
        let token = deriver("jwt-secret-1", None).token(&uid, DeviceFlag::Web, 0);
        assert_eq!(format!("{token:?}"), "[redacted]");
        let result = serde_json::to_string(&token).unwrap();
        assert_eq!(result, format!("\"{}\"", token.as_str()));
    }
}
