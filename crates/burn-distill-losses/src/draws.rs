//! Random draws that are pure functions of numbers, so that a resumed run draws what the whole one drew.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator of a seed, a step and two numbers of the caller: the same stream on every platform and in every version.
pub(crate) fn generator(seed: u64, step: usize, parts: [u64; 2]) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, step as u64, parts[0], parts[1]];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
