//! What an answer means, and the signature, without a backend.

use super::*;

fn builtin() -> config::Settings {
    let secret = "a-secret-of-the-tests-0123456789ab".to_owned();
    config::Settings::builtin(&secret.into()).unwrap()
}

#[test]
fn a_signature_can_be_verified_with_the_secret() {
    let settings = config::Authorization {
        callback_url: Some("http://127.0.0.1:1/".parse().unwrap()),
        callback_secret: Some("callback-secret".to_owned().into()),
        ..builtin().authorization
    };
    let callback = Callback::new(&settings, &Arc::new(Metrics::new()));
    let callback = callback.unwrap().unwrap();
    // printf '1700000000.{"uid":"a"}' | openssl dgst -sha256 -hmac callback-secret
    let expected =
        "t=1700000000,v1=613fcb258ba51c6ef251044ad3c96f317b1459bfcdcf425d2729ac42b3ff6c83";
    let signature = callback.client.signature(1_700_000_000, br#"{"uid":"a"}"#);
    assert_eq!(signature, expected);
}

#[test]
fn only_a_whole_allow_of_true_allows() {
    let allows = |text: &str| {
        let refusal = read(text.as_bytes());
        refusal.map(|refusal| refusal.is_none())
    };
    assert_eq!(allows(r#"{"allow":true}"#), Ok(true));
    assert_eq!(
        allows(r#" {"allow":true,"reason":null,"more":[1]} "#),
        Ok(true)
    );
    assert_eq!(allows(r#"{"allow":false}"#), Ok(false));
    for bad in [
        "",
        "true",
        "null",
        "[]",
        "[true,null]",
        "{}",
        r#"{"allow":null}"#,
        r#"{"allow":"true"}"#,
        r#"{"allow":1}"#,
        r#"{"Allow":true}"#,
        r#"{"allow":true"#,
        r#"{"allow":true}{"allow":true}"#,
        r#"{"allow":false,"allow":true}"#,
        r#"{"allow":true,"reason":7}"#,
        r#"{"data":{"allow":true}}"#,
        "\u{feff}{\"allow\":true}",
    ] {
        assert_eq!(allows(bad), Err(CallbackError::Malformed), "{bad}");
    }
}

#[test]
fn a_reason_is_bounded_and_without_control_characters() {
    let reason = |text: &str| read(text.as_bytes()).unwrap().unwrap();
    assert_eq!(&*reason(r#"{"allow":false}"#), "");
    let text = r#"{"allow":false,"reason":"no\r\n\u0000\u001b[31m\u0085 群"}"#;
    assert_eq!(&*reason(text), "no[31m 群");
    let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "群".repeat(5000));
    assert_eq!(reason(&long).chars().count(), MAX_REASON_CHARS);
}
