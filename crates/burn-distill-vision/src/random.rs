//! Drawing from random bits.
//!
//! A teacher cache stores outputs under (sample, augmentation seed), so a seed must mean the same view in every later
//! version. The samplers of `rand` may change with its versions; these few lines do not.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// An integer in `0..bound` (0 if `bound` is 0) from 64 random bits; the bias is below `bound / 2^64`.
pub(crate) fn below(bits: u64, bound: usize) -> usize {
    ((u128::from(bits) * bound as u128) >> 64) as usize
}

/// A number in `[0, 1)` from 64 random bits.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Puts `items` in a uniformly random order (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng.next_u64(), last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_distill_models::rng_from_seed;

    #[test]
    fn below_and_unit_reach_their_ends() {
        assert_eq!((below(0, 5), below(u64::MAX, 5), below(1 << 63, 5), below(u64::MAX, 0)), (0, 4, 2, 0));
        assert_eq!((unit(0), unit(1 << 63)), (0.0, 0.5));
        assert!(unit(u64::MAX) < 1.0);
    }

    #[test]
    fn every_order_is_equally_likely() {
        let mut rng = rng_from_seed(3);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut rng);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // 1000 expected, standard deviation 29: six deviations.
        assert!(counts.values().all(|&count| (826..1174).contains(&count)), "{counts:?}");
    }
}
