//! WuKongIM's own connect tokens: made from a secret, so that every replica gives out the same one and nobody can guess it.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::config;
use crate::domain::Uid;

/// The kind of device a connect token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceFlag {
    /// 0: a phone app.
    App,
    /// 1: a browser.
    Web,
    /// 2: a desktop program.
    Pc,
}

impl DeviceFlag {
    /// The flag with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::App),
            1 => Some(Self::Web),
            2 => Some(Self::Pc),
            _ => None,
        }
    }

    /// WuKongIM's number of it.
    pub fn number(self) -> u8 {
        match self {
            Self::App => 0,
            Self::Web => 1,
            Self::Pc => 2,
        }
    }
}

/// A connect token: 43 characters. Neither `Debug` nor any log shows it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ImToken(String);

impl ImToken {
    /// The token itself, for WuKongIM and its user alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ImToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Makes connect tokens: HMAC-SHA256 of uid, device flag and revocation number, as 43 characters of URL-safe base64.
pub struct ImTokens {
    key: hmac::Key,
}

impl ImTokens {
    /// The maker for the configured `im_token.secret`, else for one derived from `jwt_secret` under a label of its own (so that
    /// a connect token tells nothing about JWTs); `None` where neither is set.
    pub fn new(settings: &config::Settings) -> Option<Self> {
        let secret = match (&settings.im_token.secret, &settings.auth.jwt_secret) {
            (Some(secret), _) => {
                hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
            }
            (None, Some(secret)) => {
                let jwt = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
                let derived = hmac::sign(&jwt, b"wukongim-gateway im_token.secret v1");
                hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
            }
            (None, None) => return None,
        };
        Some(Self { key: secret })
    }

    /// The token of (`uid`, `device`); `revocation` is the number of times it was revoked.
    pub fn token(&self, uid: &Uid, device: DeviceFlag, revocation: u64) -> ImToken {
        // Fixed-width fields first: no two inputs run into the same bytes.
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

    fn maker(jwt: &str, own: Option<&str>) -> ImTokens {
        let mut settings = config::Settings::for_tests();
        settings.auth.jwt_secret = Some(jwt.to_owned().into());
        settings.im_token.secret = own.map(|secret| secret.to_owned().into());
        ImTokens::new(&settings).unwrap()
    }

    #[test]
    fn a_token_is_the_same_everywhere_and_differs_in_everything_else() {
        let uid = |text| Uid::parse(text, 128).unwrap();
        let make = |maker: &ImTokens| maker.token(&uid("a"), DeviceFlag::Web, 0);
        let (one, two) = (maker("jwt-secret-1", None), maker("jwt-secret-1", None));
        assert_eq!(make(&one), make(&two));
        assert_eq!(make(&one).as_str().len(), 43);
        let mut all = std::collections::HashSet::new();
        assert!(all.insert(make(&one)));
        assert!(all.insert(make(&maker("jwt-secret-2", None))));
        assert!(all.insert(make(&maker("jwt-secret-1", Some("own")))));
        assert!(all.insert(one.token(&uid("b"), DeviceFlag::Web, 0)));
        assert!(all.insert(one.token(&uid("a"), DeviceFlag::App, 0)));
        assert!(all.insert(one.token(&uid("a"), DeviceFlag::Web, 1)));
    }

    #[test]
    fn a_token_is_shown_to_its_user_alone() {
        let uid = Uid::parse("a", 128).unwrap();
        let token = maker("jwt-secret-1", None).token(&uid, DeviceFlag::Web, 0);
        assert_eq!(format!("{token:?}"), "[redacted]");
        let told = serde_json::to_string(&token).unwrap();
        assert_eq!(told, format!("\"{}\"", token.as_str()));
    }
}
