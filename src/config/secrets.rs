//! Detection of weak secrets, and generation of new ones.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

/// Minimum bytes of a secret, the output size of HS256.
const MIN_BYTES: usize = 32;

/// Secrets printed in documentation and source (OpenChat's, jwt.io's, tutorials'), letters and digits only, lower case.
const KNOWN_SAMPLES: [&str; 12] = [
    "yourjwtsecretatleast32characterslong",
    "yourjwtsecretatleast32characters",
    "openchatjwtsecret2026productionserverkey",
    "openchatsecretkey",
    "testsecretkeyfortestingpurposesonly",
    "testsecretkeyfortestingpurposeonly",
    "adminopenapicontracttestsecret",
    "asecretkeythatislongenoughforhs256",
    "asecretstringatleast256bitslong",
    "thisisaverylongsecretkeyforjwttokens",
    "secretsecretsecretsecretsecretsecret",
    "mysupersecretkeymysupersecretkey",
];

/// Prefixes of placeholders.
const PLACEHOLDER_PREFIXES: [&str; 9] = [
    "yoursecret",
    "yourjwt",
    "yoursuper",
    "yourvery",
    "yourlong",
    "your256",
    "your512",
    "yourprivate",
    "replace",
];

/// Words of placeholders; too long to occur in a random secret by chance.
const PLACEHOLDER_WORDS: [&str; 6] = [
    "changeme",
    "changethis",
    "changeit",
    "changeinprod",
    "atleast32char",
    "donotuseinprod",
];

/// Why a secret is weak, if it is.
pub(super) fn weakness(secret: &SecretString) -> Option<&'static str> {
    let secret = secret.expose_secret();
    let plain: String = secret
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let first = secret.bytes().next();
    if KNOWN_SAMPLES.contains(&plain.as_str())
        || PLACEHOLDER_PREFIXES
            .iter()
            .any(|start| plain.starts_with(start))
        || PLACEHOLDER_WORDS.iter().any(|word| plain.contains(word))
    {
        Some("is a known sample: must be random, such as from `openssl rand -base64 32`")
    } else if secret.bytes().all(|byte| Some(byte) == first) {
        Some("is one character repeated: must be random, such as from `openssl rand -base64 32`")
    } else if secret.len() < MIN_BYTES {
        Some("is too short: must have at least 32 bytes, such as from `openssl rand -base64 32`")
    } else {
        None
    }
}

/// A new secret of 256 random bits; `None` when the system provides no randomness.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_short_secrets_are_weak() {
        for weak in [
            "secret",
            "0123456789abcdef0123456789abcde",
            "your-secret-key-change-in-production",
            "Your-JWT-secret-at-least-32-characters-long",
            "changeme-changeme-changeme-changeme",
            "please_change_this_to_something_else",
            "replace_this_with_a_very_long_random_strong_secret",
            "OpenChatJwtSecret_2026_Production_Server_Key",
            "dev-secret-key-change-in-production",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "                                    ",
        ] {
            assert!(weakness(&weak.into()).is_some(), "{weak}");
        }
    }

    #[test]
    fn a_random_secret_is_not_weak_and_never_the_same() {
        let (one, two) = (random().unwrap(), random().unwrap());
        assert_ne!(one, two);
        assert_eq!(weakness(&one.into()), None);
        assert_eq!(weakness(&"0123456789abcdef0123456789abcdef".into()), None);
    }
}
