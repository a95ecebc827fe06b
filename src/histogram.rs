//! Distributions of durations and sizes at a fixed cost.
//!
//! Owns: [`Histogram`], counted into by one or more threads, and [`Distribution`], a copy of it.
//! Invariant: a value falls into a bucket whose bounds are at most a quarter of it apart, so that
//! quantiles are off by no more than that.

use core::sync::atomic::{AtomicU64, Ordering};

/// Each doubling is divided into this many buckets.
const PARTS: usize = 4;
/// Values up to 2^48: as nanoseconds, three days.
const BUCKETS: usize = 48 * PARTS;

/// Counts values into buckets. 1.6 KiB; one value costs one atomic addition and two for the sum
/// and the maximum.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Distribution {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let max = self.max.load(Ordering::Relaxed);
        let count: u64 = counts.iter().sum();
        Distribution {
            count,
            sum: self.sum.load(Ordering::Relaxed),
            p50: quantile(&counts, count, 50).min(max),
            p99: quantile(&counts, count, 99).min(max),
            max,
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < PARTS as u64 {
        return value as usize;
    }
    let log = value.ilog2() as usize;
    // The two bits after the leading one.
    let part = (value >> (log - 2)) as usize & (PARTS - 1);
    ((log - 1) * PARTS + part).min(BUCKETS - 1)
}

/// The largest value that falls into a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let log = bucket / PARTS + 1;
    let part = (bucket % PARTS) as u64;
    (((PARTS as u64 + part + 1) << log) >> 2) - 1
}

fn quantile(counts: &[u64], count: u64, percent: u64) -> u64 {
    let rank = (count * percent).div_ceil(100);
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= rank && rank > 0 {
            return bucket_end(bucket);
        }
    }
    0
}

/// What was counted, at the time of asking. Quantiles are upper bounds, off by at most a quarter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// All but one in a hundred are at most this.
    pub p99: u64,
    /// The largest, exactly.
    pub max: u64,
}

impl Distribution {
    /// The mean, rounded down; zero of nothing.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend((12..47).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1]));
        for value in values {
            let bucket = bucket(value);
            let end = bucket_end(bucket);
            assert!(end >= value, "{value} beyond {end}");
            assert!(end - value <= value / 4, "{value} far from {end}");
            assert!(bucket == 0 || bucket_end(bucket - 1) < value);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_near_and_never_below() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot(), Distribution::default());
        for value in 1..=1000 {
            histogram.record(value);
        }
        let counted = histogram.snapshot();
        assert_eq!((counted.count, counted.max), (1000, 1000));
        assert_eq!(counted.mean(), 500);
        assert!((500..=625).contains(&counted.p50), "{}", counted.p50);
        assert!((990..=1000).contains(&counted.p99), "{}", counted.p99);
    }
}
