//! Where every random choice of a simulation comes from.
//!
//! Owns: [`Rng`], a small generator that gives the same numbers for the same seed on every
//! platform and in every release. Not for secrets.
//! Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (`SplitMix64`).

use core::time::Duration;

/// A seeded generator: one addition and one mixing function a number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rng(u64);

/// Spreads every bit of `word` over the whole result.
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Rng {
    /// The generator of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5eed))
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A generator of its own, so that draws on one side do not shift those on the other.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// A number from 0 to `bound` − 1; 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range has its low end first");
        low + self.below(high - low + 1)
    }

    /// A duration from `low` to `high`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.between(low.as_nanos() as u64, high.as_nanos() as u64))
    }

    /// True `per_mille` times in a thousand.
    pub const fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille as u64
    }

    /// One of `choices`, which is not empty.
    pub const fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "there is something to pick from");
        &choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..8).map(|_| rng.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_both() {
        let mut rng = Rng::new(1);
        let drawn: Vec<_> = (0..1000).map(|_| rng.between(3, 6)).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
        let hits = (0..10_000).filter(|_| rng.chance(250)).count();
        assert!(
            (2200..2800).contains(&hits),
            "{hits} of 10,000 at a quarter"
        );
    }
}
