//! Latencies in buckets of at most 1.6 % width, from a microsecond to a minute. Pure.

use std::time::Duration;

/// Sub-buckets of each power of two.
const SUB: usize = 64;
const SUB_BITS: u32 = 6;
/// Powers of two above the linear part; in nanoseconds.
const POWERS: usize = 36;

/// Counts of latencies.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; SUB * (POWERS + 1)], total: 0, max: 0 }
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let at = index(nanos).min(self.counts.len() - 1);
        self.counts[at] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// What is left without another's counts, which are among these.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let counts =
            self.counts.iter().zip(&other.counts).map(|(all, part)| all.saturating_sub(*part)).collect();
        Self { counts, total: self.total.saturating_sub(other.total), max: self.max }
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        self.total
    }

    /// The latency that `share` (0 to 1) of all do not exceed, in microseconds; the upper edge of its bucket.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return upper(at).min(self.max) as f64 / 1000.0;
            }
        }
        self.max as f64 / 1000.0
    }
}

fn index(nanos: u64) -> usize {
    if nanos < SUB as u64 {
        return nanos as usize;
    }
    let power = nanos.ilog2() - SUB_BITS;
    (power as usize + 1) * SUB + (nanos >> power) as usize - SUB
}

fn upper(at: usize) -> u64 {
    if at < SUB {
        return at as u64;
    }
    let power = at / SUB - 1;
    (((at % SUB + SUB + 1) as u64) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_within_its_bucket_and_buckets_are_narrow() {
        for nanos in [0, 1, 63, 64, 65, 127, 128, 1000, 999_999, 1_000_000, 123_456_789, 60_000_000_000] {
            let edge = upper(index(nanos));
            assert!(edge >= nanos && edge as f64 <= nanos as f64 * 1.016 + 1.0, "{nanos}: {edge}");
        }
    }

    #[test]
    fn a_part_is_taken_out_again() {
        let (mut all, mut part) = (Histogram::new(), Histogram::new());
        (1..=100u64).for_each(|micros| all.record(Duration::from_micros(micros)));
        for micros in 51..=100 {
            part.record(Duration::from_micros(micros));
        }
        let rest = all.without(&part);
        assert_eq!(rest.count(), 50);
        assert!((rest.quantile_us(1.0) - 50.0).abs() < 1.0);
    }

    #[test]
    fn quantiles_are_counted_from_below() {
        let mut histogram = Histogram::new();
        (1..=1000u64).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let near = |share: f64, wanted: f64| {
            let found = histogram.quantile_us(share);
            assert!((found - wanted).abs() <= wanted * 0.017, "{share}: {found} instead of {wanted}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(1.0, 1000.0);
    }
}
