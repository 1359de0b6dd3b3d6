//! FNV-1a-64, the hash that WuKongIM v2 uses as storage key.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a-64 of the concatenated parts.
pub fn fnv1a64(parts: &[&[u8]]) -> u64 {
    parts.iter().copied().flatten().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}
