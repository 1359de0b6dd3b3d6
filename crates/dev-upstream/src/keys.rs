//! The storage keys of channels, members and users in each generation, and the channel id of a pair of uids.
//!
//! v2 stores only the FNV-1a-64 of the text and never compares the text itself, so texts with equal hashes are the same key; v3 compares
//! the text. Only this file knows the difference.

use super::Dialect;

/// Channel type of a conversation of two persons.
pub const PERSON: u8 = 1;
/// Channel type of a group.
pub const GROUP: u8 = 2;

/// The uid of the system, which v2 shows as an empty `from_uid`.
pub(super) const SYSTEM_UID: &str = "____system";
/// The device id for which permission checks are skipped: by v3's API, and by the sockets of both.
pub(super) const SYSTEM_DEVICE: &str = "____device";

/// FNV-1a-64 of `text`, the whole key of v2's storage (`pkg/wkdb/key`).
pub fn fnv1a64(text: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    text.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

/// A storage key: the hash alone on v2, the text alone on v3.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64, Box<str>);

impl Dialect {
    pub(super) fn channel_key(self, channel_id: &str, channel_type: u8) -> Key {
        self.uid_key(&channel_text(channel_id, channel_type))
    }

    pub(super) fn uid_key(self, uid: &str) -> Key {
        match self {
            Self::V2 => Key(fnv1a64(uid), Box::from("")),
            Self::V3 => Key(0, Box::from(uid)),
        }
    }

    /// The stored id of the person channel of `from` and `to`: the uid with the larger CRC-32 first.
    ///
    /// With equal CRC-32s v2 gives a different id for each direction; v3 orders by the text.
    pub fn person_channel_id(self, from: &str, to: &str) -> String {
        let (from_crc, to_crc) = (
            crc32fast::hash(from.as_bytes()),
            crc32fast::hash(to.as_bytes()),
        );
        let from_first = from_crc > to_crc || (self == Self::V3 && from_crc == to_crc && from > to);
        if from_first {
            format!("{from}@{to}")
        } else {
            format!("{to}@{from}")
        }
    }
}

/// `<id>-<type>`, the text both generations build a channel's key from.
pub(super) fn channel_text(channel_id: &str, channel_type: u8) -> String {
    format!("{channel_id}-{channel_type}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_pair_of_ids_collides_on_v2_and_not_on_v3() {
        assert_eq!(
            fnv1a64("xbdZAqbat_QtXO-2"),
            fnv1a64("hc-bob@hc-alice-1"),
            "the collision the documentation names"
        );
        let keys = |dialect: Dialect| {
            (
                dialect.channel_key("xbdZAqbat_QtXO", GROUP),
                dialect.channel_key("hc-bob@hc-alice", PERSON),
            )
        };
        let (group, pair) = keys(Dialect::V2);
        assert_eq!(group, pair);
        let (group, pair) = keys(Dialect::V3);
        assert_ne!(group, pair);
    }

    #[test]
    fn a_pair_has_one_id_for_both_users() {
        for dialect in [Dialect::V2, Dialect::V3] {
            assert_eq!(
                dialect.person_channel_id("hc-alice", "hc-bob"),
                "hc-bob@hc-alice"
            );
            assert_eq!(
                dialect.person_channel_id("hc-bob", "hc-alice"),
                "hc-bob@hc-alice"
            );
        }
    }
}
