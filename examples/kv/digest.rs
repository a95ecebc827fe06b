//! A hash of one key and its value that is the same in every process, release and machine.
//!
//! Owns: the mixing function. Invariant: its results never change, for replicas of different
//! releases compare them. It finds accidents, not forgeries: replicas trust each other.

/// Odd, and without a pattern: digits of the golden ratio and of square roots.
const K: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b];

/// The hash of an entry. The hash of a map is the wrapping sum of its entries' hashes, whatever the
/// order: adding, replacing and removing one takes time that does not depend on the others.
pub(crate) fn entry(key: &[u8], value: &[u8]) -> u128 {
    let mut lanes = [K[0] ^ key.len() as u64, K[1] ^ value.len() as u64];
    absorb(&mut lanes, key);
    absorb(&mut lanes, value);
    let [first, second] = lanes;
    u128::from(fold(first ^ K[2], second.rotate_left(32) ^ K[3])) << 64
        | u128::from(fold(second ^ K[0], first.rotate_left(32) ^ K[1]))
}

/// One number out of many, such as the parts of a state hash.
pub(crate) fn combine(parts: [u128; 2]) -> u128 {
    entry(&parts[0].to_le_bytes(), &parts[1].to_le_bytes())
}

/// Takes in bytes, 16 at a time; the last piece is filled up with zeros, which the lengths that
/// stand at the beginning tell apart from zeros of the data.
fn absorb(lanes: &mut [u64; 2], bytes: &[u8]) {
    let mut pieces = bytes.chunks_exact(16);
    for piece in &mut pieces {
        absorb_piece(lanes, piece.try_into().expect("a piece has 16 bytes"));
    }
    let rest = pieces.remainder();
    if !rest.is_empty() {
        let mut piece = [0; 16];
        piece[..rest.len()].copy_from_slice(rest);
        absorb_piece(lanes, &piece);
    }
}

fn absorb_piece(lanes: &mut [u64; 2], piece: &[u8; 16]) {
    let both = u128::from_le_bytes(*piece);
    let (low, high) = (both as u64, (both >> 64) as u64);
    lanes[0] = lanes[0].rotate_left(23).wrapping_add(fold(low ^ lanes[1] ^ K[2], high ^ K[3]));
    lanes[1] = lanes[1].rotate_left(29).wrapping_add(fold(high ^ lanes[0] ^ K[0], low ^ K[1]));
}

/// Both halves of the product, folded into one.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
