//! Mixup and cutmix: batches whose samples are mixed with one another.

use burn_distill_models::rng_from_seed;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_distr::{Beta, Distribution};

use crate::error::{Result, VisionError};
use crate::random::{below, shuffle, unit};

/// Which ways of mixing are on.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    mixup: Option<Beta<f64>>,
    cutmix: Option<Beta<f64>>,
}

/// How the rows of a batch were mixed.
#[derive(Debug, PartialEq)]
pub(crate) struct Mixed {
    /// The row each row was mixed with.
    pub(crate) partners: Vec<usize>,
    /// The share a row keeps of itself, in `[0, 1]`.
    pub(crate) own_share: f64,
}

impl Mix {
    pub(crate) fn new(mixup_alpha: Option<f64>, cutmix_alpha: Option<f64>) -> Result<Self> {
        let beta = |field, alpha: Option<f64>| match alpha {
            None => Ok(None),
            Some(alpha) if alpha.is_finite() => match Beta::new(alpha, alpha) {
                Ok(beta) => Ok(Some(beta)),
                Err(_) => Err(VisionError::out_of_range(field, "(0, inf)", alpha)),
            },
            Some(alpha) => Err(VisionError::out_of_range(field, "(0, inf)", alpha)),
        };
        Ok(Self { mixup: beta("mixup_alpha", mixup_alpha)?, cutmix: beta("cutmix_alpha", cutmix_alpha)? })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.mixup.is_some() || self.cutmix.is_some()
    }

    /// Mixes `views` (`[rows, channels, height, width]`, `shape` is the last three) in place; `None` if mixing is off.
    ///
    /// Labelled rows are mixed with labelled rows, unlabelled with unlabelled ones, so that mixing neither loses a
    /// label nor invents one. All rows of a batch share one draw, as in the reference code of both papers.
    pub(crate) fn apply(&self, views: &mut [f32], shape: [usize; 3], labelled: &[bool], seed: u64) -> Option<Mixed> {
        let mut rng = rng_from_seed(seed);
        let coin = rng.next_u64();
        let use_cutmix = self.cutmix.is_some() && (self.mixup.is_none() || unit(coin) < 0.5);
        let beta = if use_cutmix { self.cutmix } else { self.mixup }?;
        let partners = partners(labelled, &mut rng);
        let share = beta.sample(&mut rng).clamp(0.0, 1.0);
        let [_, height, width] = shape;
        let before = views.to_vec();
        let rows = |row: usize| row * shape.iter().product::<usize>()..(row + 1) * shape.iter().product::<usize>();
        if !use_cutmix {
            let (own, other) = (share as f32, (1.0 - share) as f32);
            for (row, &partner) in partners.iter().enumerate() {
                let pixels = views[rows(row)].iter_mut().zip(&before[rows(partner)]);
                pixels.for_each(|(pixel, partner)| *pixel = own * *pixel + other * partner);
            }
            return Some(Mixed { partners, own_share: share });
        }
        let cut = (1.0 - share).sqrt();
        let ys = cut_range(below(rng.next_u64(), height), cut, height);
        let xs = cut_range(below(rng.next_u64(), width), cut, width);
        for (row, &partner) in partners.iter().enumerate() {
            let planes = views[rows(row)].chunks_exact_mut(height * width);
            for (plane, partner) in planes.zip(before[rows(partner)].chunks_exact(height * width)) {
                for y in ys.clone() {
                    plane[y * width..][xs.clone()].copy_from_slice(&partner[y * width..][xs.clone()]);
                }
            }
        }
        Some(Mixed { partners, own_share: 1.0 - (ys.len() * xs.len()) as f64 / (height * width) as f64 })
    }
}

/// A random order of the labelled rows among themselves, and of the others.
fn partners(labelled: &[bool], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut partners = vec![0; labelled.len()];
    for group in [true, false] {
        let rows: Vec<_> = (0..labelled.len()).filter(|&row| labelled[row] == group).collect();
        let mut shuffled = rows.clone();
        shuffle(&mut shuffled, rng);
        rows.into_iter().zip(shuffled).for_each(|(row, partner)| partners[row] = partner);
    }
    partners
}

/// One side of cutmix's box, as in the authors' code: half of `cut * size` to both sides of the centre.
fn cut_range(center: usize, cut: f64, size: usize) -> std::ops::Range<usize> {
    let half = (cut * size as f64) as usize / 2;
    center.saturating_sub(half)..(center + half).min(size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: [usize; 3] = [2, 4, 6];
    const SIZE: usize = 48;

    /// Row `r` is constant `r`.
    fn rows(n: usize) -> Vec<f32> {
        (0..n).flat_map(|row| [row as f32; SIZE]).collect()
    }

    #[test]
    fn mixup_blends_every_pixel_with_one_share() {
        let mix = Mix::new(Some(1.0), None).unwrap();
        let mut views = rows(8);
        let mixed = mix.apply(&mut views, SHAPE, &[true; 8], 5).unwrap();
        assert!((0.0..=1.0).contains(&mixed.own_share));
        let mut sorted = mixed.partners.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..8).collect::<Vec<_>>());
        for (row, &partner) in mixed.partners.iter().enumerate() {
            let expected = mixed.own_share * row as f64 + (1.0 - mixed.own_share) * partner as f64;
            assert!(views[row * SIZE..][..SIZE].iter().all(|&value| (f64::from(value) - expected).abs() < 1e-5));
        }
    }

    #[test]
    fn cutmix_pastes_a_box_and_reports_its_true_area() {
        let mix = Mix::new(None, Some(1.0)).unwrap();
        let mut areas = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut views = rows(3);
            let mixed = mix.apply(&mut views, SHAPE, &[true; 3], seed).unwrap();
            let plane = |row: usize, channel: usize| &views[row * SIZE + channel * 24..][..24];
            for (row, &partner) in mixed.partners.iter().enumerate().filter(|(row, partner)| row != *partner) {
                let pasted = plane(row, 0).iter().filter(|&&value| value == partner as f32).count();
                assert!((1.0 - pasted as f64 / 24.0 - mixed.own_share).abs() < 1e-9);
                assert_eq!(plane(row, 0), plane(row, 1));
                assert!(plane(row, 0).iter().all(|&value| value == partner as f32 || value == row as f32));
                areas.insert(pasted);
                // A box: the pasted pixels fill the rectangle they span.
                let at = |i: &usize| plane(row, 0)[*i] == partner as f32;
                let (ys, xs): (Vec<_>, Vec<_>) = (0..24).filter(at).map(|i| (i / 6, i % 6)).unzip();
                let span = |s: &[usize]| s.iter().max().zip(s.iter().min()).map_or(0, |(max, min)| max - min + 1);
                assert_eq!(span(&ys) * span(&xs), pasted);
            }
        }
        assert!(areas.len() > 4, "{areas:?}");
    }

    #[test]
    fn labelled_rows_keep_to_themselves() {
        let labelled = [true, false, true, true, false, true, false];
        for seed in 0..50 {
            let partners = partners(&labelled, &mut rng_from_seed(seed));
            assert!(partners.iter().enumerate().all(|(row, &partner)| labelled[row] == labelled[partner]));
        }
        let mut alone = rows(2);
        let mixed = Mix::new(Some(1.0), None).unwrap().apply(&mut alone, SHAPE, &[true, false], 1).unwrap();
        assert_eq!((mixed.partners, alone), (vec![0, 1], rows(2)));
    }

    #[test]
    fn both_take_turns_and_none_does_nothing() {
        let mut untouched = rows(4);
        assert_eq!(Mix::new(None, None).unwrap().apply(&mut untouched, SHAPE, &[true; 4], 1), None);
        assert_eq!(untouched, rows(4));
        let both = Mix::new(Some(1.0), Some(1.0)).unwrap();
        let blended = |seed: u64| {
            let mut views = rows(4);
            both.apply(&mut views, SHAPE, &[true; 4], seed);
            views.iter().any(|value| value.fract() != 0.0)
        };
        let count = (0..400).filter(|&seed| blended(seed)).count();
        // Half of them, less the few whose partners are all themselves (1 of 24); standard deviation 10.
        assert!((140..250).contains(&count), "{count}");
    }

    #[test]
    fn shares_follow_the_beta_distribution() {
        // Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
        for alpha in [0.2, 1.0, 8.0] {
            let mix = Mix::new(Some(alpha), None).unwrap();
            let share = |seed| mix.apply(&mut rows(1), SHAPE, &[true], seed).unwrap().own_share;
            let shares: Vec<_> = (0..4000).map(share).collect();
            let mean = shares.iter().sum::<f64>() / 4000.0;
            let variance = shares.iter().map(|share| (share - 0.5).powi(2)).sum::<f64>() / 4000.0;
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 5.0 * (expected / 4000.0f64).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.1, "{alpha}: {variance} {expected}");
        }
    }

    proptest! {
        #[test]
        fn shares_stay_in_range(exponent in -4.0..4.0f64, seed: u64, cutmix: bool, labelled in prop::collection::vec(any::<bool>(), 0..6)) {
            let alpha = Some(10f64.powf(exponent));
            let mix = if cutmix { Mix::new(None, alpha) } else { Mix::new(alpha, None) }.unwrap();
            let mut views = rows(labelled.len());
            let mixed = mix.apply(&mut views, SHAPE, &labelled, seed).unwrap();
            prop_assert!((0.0..=1.0).contains(&mixed.own_share));
            prop_assert!(views.iter().all(|value| (0.0..=labelled.len() as f32).contains(value)));
        }
    }
}
