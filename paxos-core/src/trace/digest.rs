//! A running hash that is the same on every platform and in every build.
//!
//! Owns: [`Digest`]. Two lanes of 64 bits, each one multiplication a word. Tells two runs apart; is
//! no defence against anybody who wants two things to have one digest.

use core::hash::Hasher;

/// 128 bits that two equal sequences of words share, and two others practically never.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest {
    one: u64,
    other: u64,
}

impl Digest {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self { one: 0x243f_6a88_85a3_08d3, other: 0x1319_8a2e_0370_7344 }
    }

    /// Takes one more word in.
    pub const fn word(&mut self, word: u64) {
        let one = (self.one ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.one = one ^ one >> 32;
        let other = (self.other.rotate_left(29) ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.other = other ^ other >> 29;
    }

    /// The number for all that was taken in so far.
    pub const fn value(&self) -> u128 {
        let mut end = *self;
        end.word(0x5eed);
        end.word(end.one ^ end.other);
        (end.one as u128) << 64 | end.other as u128
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.value() as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            word[7] = rest.len() as u8;
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.word(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.word(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.word(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn write_u128(&mut self, number: u128) {
        self.word(number as u64);
        self.word((number >> 64) as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hash;
    use std::collections::BTreeSet;

    fn of(what: impl Hash) -> u128 {
        let mut digest = Digest::new();
        what.hash(&mut digest);
        digest.value()
    }

    #[test]
    fn what_differs_in_one_bit_or_in_order_or_in_length_has_another_digest() {
        let mut seen = BTreeSet::new();
        for bit in 0..64 {
            assert!(seen.insert(of(1_u64 << bit)), "bit {bit}");
            let mut bytes = [0_u8; 13];
            bytes[bit / 8] |= 1 << (bit % 8);
            assert!(seen.insert(of(bytes)), "bit {bit} of bytes");
        }
        for length in 0..40 {
            assert!(seen.insert(of(vec![0_u8; length])), "{length} zeros");
        }
        assert_ne!(of((1_u64, 2_u64)), of((2_u64, 1_u64)));
        // Each half tells them apart by itself.
        let low: BTreeSet<u64> = seen.iter().map(|digest| *digest as u64).collect();
        let high: BTreeSet<u64> = seen.iter().map(|digest| (*digest >> 64) as u64).collect();
        assert_eq!((low.len(), high.len()), (seen.len(), seen.len()));
    }

    #[test]
    fn the_number_is_the_same_on_every_platform() {
        let mut digest = Digest::new();
        digest.write(b"chosen");
        digest.write_u64(7);
        assert_eq!(digest.value(), GOLDEN, "{:#x}", digest.value());
    }

    const GOLDEN: u128 = 0x8a0c_7ce1_c642_fd8b_ea8a_477b_0466_e766;
}
