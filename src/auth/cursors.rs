//! Cursors of lists: a position that only the gateway can have made, for one subject. Knows nothing of the lists.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::im_token::secret_key;
use crate::config;

/// Bytes of the tag in front of the position.
const TAG_BYTES: usize = 16;

/// Makes and reads cursors: the same on every replica and after a restart, as its key is derived from the connect tokens' secret.
pub struct Cursors {
    key: hmac::Key,
}

impl Cursors {
    /// `None` where neither `im_token.secret` nor `auth.jwt_secret` is set.
    pub fn new(settings: &config::Settings) -> Option<Self> {
        let secret = secret_key(settings)?;
        let key = hmac::sign(&secret, b"wukongim-gateway cursor v1");
        Some(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
        })
    }

    /// The cursor of `position` in the list `list` of `owner`, in URL-safe base64.
    pub fn seal(&self, list: &str, owner: &str, position: &[u8]) -> String {
        let tag = self.tag(list, owner, position);
        URL_SAFE_NO_PAD.encode([&tag.as_ref()[..TAG_BYTES], position].concat())
    }

    /// The position of a cursor that was made for this list of this owner.
    pub fn open(&self, list: &str, owner: &str, cursor: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (told, position) = bytes.split_at_checked(TAG_BYTES)?;
        let tag = self.tag(list, owner, position);
        verify_slices_are_equal(&tag.as_ref()[..TAG_BYTES], told).ok()?;
        Some(position.to_vec())
    }

    fn tag(&self, list: &str, owner: &str, position: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // With their lengths, so that the encoding is unambiguous.
        for part in [list, owner] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(position);
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_everywhere_for_its_owners_list_alone() {
        let [one, two] = [(); 2].map(|()| Cursors::new(&config::Settings::for_tests()).unwrap());
        let cursor = one.seal("a", "bc", b"here");
        assert_eq!(two.open("a", "bc", &cursor).unwrap(), b"here");
        let mut settings = config::Settings::for_tests();
        settings.im_token.secret = Some("another-secret-of-32-bytes-or-more".to_owned().into());
        let other = Cursors::new(&settings).unwrap();
        assert!(other.open("a", "bc", &cursor).is_none());
        for (list, owner) in [("a", "b"), ("b", "bc"), ("ab", "c"), ("", "abc")] {
            assert!(one.open(list, owner, &cursor).is_none(), "{list} {owner}");
        }
        let other_position = one.seal("a", "bc", b"there");
        let forged = format!("{}{}", &cursor[..21], &other_position[21..]);
        for bad in [
            "",
            "AAAA",
            &cursor[1..],
            &format!("{cursor}A"),
            &forged,
            "!",
            "=",
        ] {
            assert!(one.open("a", "bc", bad).is_none(), "{bad}");
        }
        assert_eq!(one.open("a", "bc", &one.seal("a", "bc", b"")), Some(vec![]));
    }
}
