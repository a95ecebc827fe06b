//! Decoding of bytes that nobody encoded: no panic, and what is taken is taken whole.
//!
//! `FUZZ_CASES` sets the number of inputs of each kind, `FUZZ_SEED` the first seed.

use bytes::Bytes;
use paxos_core::codec;

use crate::codec::decode_named;
use crate::golden;

/// `SplitMix64`: small, seeded, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().expect("FUZZ_CASES and FUZZ_SEED are numbers")
    })
}

/// Runs `case` for each seed, with the seed in the panic's output.
fn for_each_seed(case: impl Fn(&mut Random) -> (String, Vec<u8>)) {
    let first = setting("FUZZ_SEED", 1);
    for seed in first..first + setting("FUZZ_CASES", 20_000) {
        let (name, bytes) = case(&mut Random(seed));
        let bytes = Bytes::from(bytes);
        // A bug shows as a panic inside; the seed is in the message of the one that follows.
        let outcome = std::panic::catch_unwind(|| decode_named(&name, bytes.clone()));
        assert!(outcome.is_ok(), "seed {seed}: decoding {name} panicked");
        if let Ok(Ok(again)) = outcome {
            assert_eq!(again, bytes, "seed {seed}: {name} is not canonical");
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    for_each_seed(|random| {
        let len = random.below(300);
        ("message/random".into(), random.bytes(len))
    });
}

#[test]
fn random_bodies_behind_a_valid_header_never_panic() {
    let header = golden::stored()["message/Prepare"].slice(..codec::HEADER_LEN);
    for_each_seed(|random| {
        let mut bytes = header.to_vec();
        bytes[2] = random.below(12) as u8;
        let len = random.below(300);
        bytes.extend(random.bytes(len));
        ("message/random-body".into(), bytes)
    });
}

#[test]
fn mutated_entries_never_panic() {
    let entries: Vec<_> = golden::stored().into_iter().collect();
    for_each_seed(|random| {
        let (name, bytes) = &entries[random.below(entries.len())];
        let mut bytes = bytes.to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, random, &entries);
        }
        (name.clone(), bytes)
    });
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random, entries: &[(String, Bytes)]) {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            bytes.remove(at);
        }
        4 => bytes.insert(at, random.next() as u8),
        _ => {
            // The front of this entry with the back of another.
            let (_, other) = &entries[random.below(entries.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}
