use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Mixes numbers into one seed: a pure function, the same on every platform and in every version.
///
/// SplitMix64 (Steele, Lea, Flood 2014) applied to each part in turn.
///
/// ```
/// use burn_distill_models::mix_seed;
/// assert_eq!(mix_seed(&[1, 2]), mix_seed(&[1, 2]));
/// assert_ne!(mix_seed(&[1, 2]), mix_seed(&[2, 1]));
/// ```
pub fn mix_seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// The one random generator used for data order and augmentation: ChaCha with 8 rounds, whose stream is stable
/// across versions and platforms. [`SeededLoader`](crate::SeededLoader) shows an augmentation that draws from it.
///
/// ```
/// use burn_distill_models::{mix_seed, rng_from_seed};
/// use rand::RngExt;
///
/// // Two things random about one item: a stream for each.
/// let (crop, flip) = (mix_seed(&[42, 0]), mix_seed(&[42, 1]));
/// let offset: u32 = rng_from_seed(crop).random_range(0..8);
/// assert_eq!(offset, rng_from_seed(crop).random_range(0..8));
/// let _flipped = rng_from_seed(flip).random_bool(0.5);
/// ```
pub fn rng_from_seed(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}
