//! What a sample looks like in one epoch.

use burn::config::Config;
use burn_distill_models::rng_from_seed;
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::dataset::ImageItem;
use crate::error::{Result, VisionError};
use crate::mix::Mix;
use crate::normalization::Normalization;
use crate::random::{below, unit};

/// What lies outside an image when it is padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaddingMode {
    /// Black: byte 0, before normalisation.
    #[default]
    Zero,
    /// The image mirrored at its border pixels, which are not repeated: `c b | a b c | b a`.
    Reflect,
}

/// How images are augmented and normalised.
///
/// [`new`](Self::new) only normalises; the rest is off until it is set. In this order:
///
/// 1. *random crop*: pad every side by `crop_padding`, then crop the original size at a random place;
/// 2. *horizontal flip* with `flip_probability`;
/// 3. *normalisation*;
/// 4. *cutout* (DeVries and Taylor 2017, arXiv:1708.04552): with `cutout_probability`, a square of `cutout_size` pixels
///    around a random pixel becomes 0, the mean; what lies outside the image is cut off;
/// 5. *mixup* (Zhang et al. 2018, arXiv:1710.09412) or *cutmix* (Yun et al. 2019, arXiv:1905.04899): the samples of a
///    batch are mixed with one another. With both set, a batch uses one of them, each with probability 1/2.
///
/// Steps 1 to 4 depend on the sample and its seed and on nothing else: not on the batch, the thread or the order. Each
/// draws the same random numbers whether or not the others are on. Step 5 depends on the samples and seeds of the
/// whole batch.
///
/// # Example
/// ```
/// use burn_distill_vision::{AugmentConfig, ImageItem, Normalization};
///
/// let augment = AugmentConfig::new(Normalization::none(1)).with_flip_probability(1.0).init([1, 1, 3])?;
/// let item = ImageItem::new(vec![0, 51, 255], [1, 1, 3], None)?;
/// assert_eq!(augment.view(&item, 7), [1.0, 0.2, 0.0]);
/// # Ok::<(), burn_distill_vision::VisionError>(())
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct AugmentConfig {
    /// The statistics of the channels.
    pub normalization: Normalization,
    /// Pixels added at every side before the crop; less than height and width. 0: no crop.
    #[config(default = 0)]
    pub crop_padding: usize,
    /// What the added pixels are.
    #[config(default = "PaddingMode::Zero")]
    pub padding_mode: PaddingMode,
    /// The probability of a flip, in `[0, 1]`.
    #[config(default = 0.0)]
    pub flip_probability: f64,
    /// The side of the square that cutout erases, in pixels; at most height and width. 0: no cutout.
    #[config(default = 0)]
    pub cutout_size: usize,
    /// The probability of cutout, in `[0, 1]`.
    #[config(default = 1.0)]
    pub cutout_probability: f64,
    /// Mixup's `alpha`, in `(0, inf)`: a sample's share is drawn from `Beta(alpha, alpha)`.
    pub mixup_alpha: Option<f64>,
    /// Cutmix's `alpha`, in `(0, inf)`: the kept share of the area is drawn from `Beta(alpha, alpha)`.
    pub cutmix_alpha: Option<f64>,
}

impl AugmentConfig {
    /// The same normalisation and nothing random, for validation and test.
    pub fn for_evaluation(&self) -> Self {
        Self::new(self.normalization.clone())
    }

    /// The pipeline for images of `shape` (`[channels, height, width]`).
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`], naming the field, if a value lies outside the range documented at it.
    pub fn init(&self, shape: [usize; 3]) -> Result<Augment> {
        let [channels, height, width] = shape;
        self.normalization.check(channels)?;
        let side = height.min(width);
        if self.crop_padding > 0 && self.crop_padding >= side {
            return Err(VisionError::out_of_range("crop_padding", format!("[0, {side})"), self.crop_padding));
        }
        if self.cutout_size > side {
            return Err(VisionError::out_of_range("cutout_size", format!("[0, {side}]"), self.cutout_size));
        }
        for (field, probability) in
            [("flip_probability", self.flip_probability), ("cutout_probability", self.cutout_probability)]
        {
            if !(0.0..=1.0).contains(&probability) {
                return Err(VisionError::out_of_range(field, "[0, 1]", probability));
            }
        }
        Ok(Augment {
            shape,
            tables: (0..channels).map(|channel| self.normalization.table(channel)).collect(),
            crop_padding: self.crop_padding,
            padding_mode: self.padding_mode,
            flip_probability: self.flip_probability,
            cutout_size: self.cutout_size,
            cutout_probability: self.cutout_probability,
            mix: Mix::new(self.mixup_alpha, self.cutmix_alpha)?,
        })
    }
}

/// A validated [`AugmentConfig`] for images of one size.
#[derive(Clone, Debug)]
pub struct Augment {
    shape: [usize; 3],
    /// The normalised value of every byte, per channel.
    tables: Vec<[f32; 256]>,
    crop_padding: usize,
    padding_mode: PaddingMode,
    flip_probability: f64,
    cutout_size: usize,
    cutout_probability: f64,
    pub(crate) mix: Mix,
}

/// The position of a padding pixel that is black.
const OUTSIDE: usize = usize::MAX;

impl Augment {
    /// `[channels, height, width]` of the images and of their views.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Whether a view depends on its seed, or on the samples around it.
    pub fn is_random(&self) -> bool {
        let cutout = self.cutout_size > 0 && self.cutout_probability > 0.0;
        self.crop_padding > 0 || self.flip_probability > 0.0 || cutout || self.mix.is_on()
    }

    /// The view of `item` under `seed`, row-major `[channels, height, width]`, not mixed with other samples.
    ///
    /// # Panics
    /// If the item has another shape than [`shape`](Self::shape).
    pub fn view(&self, item: &ImageItem, seed: u64) -> Vec<f32> {
        let mut view = Vec::new();
        self.append_view(item, seed, &mut view);
        view
    }

    pub(crate) fn append_view(&self, item: &ImageItem, seed: u64, views: &mut Vec<f32>) {
        let [_, height, width] = self.shape;
        assert_eq!(item.shape(), self.shape, "the item's [channels, height, width] must be that of the augmentation");
        let mut rng = rng_from_seed(seed);
        let [top, left, flip, cutout, cutout_y, cutout_x] = std::array::from_fn(|_| rng.next_u64());

        let rows = self.positions(top, height, false);
        let columns = self.positions(left, width, unit(flip) < self.flip_probability);
        let start = views.len();
        for (plane, table) in item.pixels().chunks_exact(height * width).zip(&self.tables) {
            for &row in &rows {
                let row = plane.get(row.saturating_mul(width)..).and_then(|rest| rest.get(..width));
                let byte = |&column: &usize| row.and_then(|row| row.get(column)).copied().unwrap_or(0);
                views.extend(columns.iter().map(|column| table[usize::from(byte(column))]));
            }
        }
        if self.cutout_size > 0 && unit(cutout) < self.cutout_probability {
            let rows = square(below(cutout_y, height), self.cutout_size, height);
            let columns = square(below(cutout_x, width), self.cutout_size, width);
            for plane in views[start..].chunks_exact_mut(height * width) {
                rows.clone().for_each(|row| plane[row * width..][columns.clone()].fill(0.0));
            }
        }
    }

    /// For every position of the view the one in the image, along one side.
    fn positions(&self, bits: u64, size: usize, flip: bool) -> Vec<usize> {
        let shift = below(bits, 2 * self.crop_padding + 1);
        let position = |padded: usize| match (padded.checked_sub(self.crop_padding), self.padding_mode) {
            (Some(inside), _) if inside < size => inside,
            (_, PaddingMode::Zero) => OUTSIDE,
            (Some(beyond), PaddingMode::Reflect) => 2 * (size - 1) - beyond,
            (None, PaddingMode::Reflect) => self.crop_padding - padded,
        };
        let crop = (shift..shift + size).map(position);
        if flip { crop.rev().collect() } else { crop.collect() }
    }
}

/// `length` positions around `center`, cut off at `0..size`.
fn square(center: usize, length: usize, size: usize) -> std::ops::Range<usize> {
    center.saturating_sub(length / 2)..(center + length - length / 2).min(size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A grey image of 3 x 3 pixels: 1 2 3 / 4 5 6 / 7 8 9.
    fn nine() -> ImageItem {
        ImageItem::new((1..=9).collect::<Vec<u8>>(), [1, 3, 3], None).unwrap()
    }

    fn config() -> AugmentConfig {
        AugmentConfig::new(Normalization { mean: vec![0.0], std: vec![1.0 / 255.0] })
    }

    /// The view in whole numbers.
    fn view(config: &AugmentConfig, seed: u64) -> Vec<u8> {
        config.init([1, 3, 3]).unwrap().view(&nine(), seed).iter().map(|value| value.round() as u8).collect()
    }

    /// All different views under 2000 seeds.
    fn views(config: &AugmentConfig) -> std::collections::BTreeSet<Vec<u8>> {
        (0..2000).map(|seed| view(config, seed)).collect()
    }

    #[test]
    fn without_anything_the_view_is_the_image() {
        assert_eq!(view(&config(), 3), (1..=9).collect::<Vec<_>>());
    }

    #[test]
    fn a_flip_mirrors_rows() {
        assert_eq!(view(&config().with_flip_probability(1.0), 3), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        let flips = (0..2000).filter(|&seed| view(&config().with_flip_probability(0.25), seed)[0] == 3).count();
        // 500 expected, standard deviation 19.
        assert!((400..600).contains(&flips), "{flips}");
    }

    #[test]
    fn a_crop_shifts_by_up_to_the_padding() {
        let expected = |dy: isize, dx: isize, outside: fn(isize) -> Option<isize>| -> Vec<u8> {
            let pixel = |y, x| outside(y).and_then(|y| outside(x).map(|x| (y * 3 + x + 1) as u8)).unwrap_or(0);
            (0..9isize).map(|i| pixel(i / 3 + dy, i % 3 + dx)).collect()
        };
        let black = |i| (0..3).contains(&i).then_some(i);
        let mirror = |i| [2, 1, 0, 1, 2, 1, 0].get((i + 2) as usize).copied();
        let shifts = |p: isize| (-p..=p).flat_map(move |dy| (-p..=p).map(move |dx| (dy, dx)));

        let found = views(&config().with_crop_padding(1));
        assert_eq!(found, shifts(1).map(|(dy, dx)| expected(dy, dx, black)).collect());
        assert!(found.contains(&vec![0, 0, 0, 0, 1, 2, 0, 4, 5]));
        let found = views(&config().with_crop_padding(2).with_padding_mode(PaddingMode::Reflect));
        assert_eq!(found, shifts(2).map(|(dy, dx)| expected(dy, dx, mirror)).collect());
        assert!(found.contains(&vec![5, 4, 5, 2, 1, 2, 5, 4, 5]));
    }

    #[test]
    fn cutout_erases_a_square_around_any_pixel() {
        let found = views(&config().with_cutout_size(2));
        // Rows and columns c - 1 and c for c = 0, 1, 2.
        let erased = |c: usize, i: usize| i == c || i + 1 == c;
        let expected = (0..9usize).map(|center| {
            let pixel = |i: usize| if erased(center / 3, i / 3) && erased(center % 3, i % 3) { 0 } else { i as u8 + 1 };
            (0..9).map(pixel).collect::<Vec<_>>()
        });
        assert_eq!(found, expected.collect());
        assert_eq!(views(&config().with_cutout_size(3)).len(), 9);
        let sometimes = config().with_cutout_size(2).with_cutout_probability(0.0);
        assert_eq!(view(&sometimes, 0), (1..=9).collect::<Vec<_>>());
    }

    #[test]
    fn cutout_fills_with_the_mean_and_padding_is_black() {
        let normalization = Normalization { mean: vec![0.2], std: vec![0.5] };
        let item = ImageItem::new(vec![255; 9], [1, 3, 3], None).unwrap();
        let value = |config: AugmentConfig| config.init([1, 3, 3]).unwrap().view(&item, 0);
        let cut = value(AugmentConfig::new(normalization.clone()).with_cutout_size(1));
        assert_eq!(cut.iter().filter(|&&value| value == 0.0).count(), 1);
        let padded = AugmentConfig::new(normalization).with_crop_padding(2);
        let padded = padded.init([1, 3, 3]).unwrap();
        let all: Vec<_> = (0..100).flat_map(|seed| padded.view(&item, seed)).collect();
        assert!(all.iter().all(|value| (value - 1.6).abs() < 1e-6 || (value + 0.4).abs() < 1e-6));
        assert!(all.iter().any(|value| *value < 0.0));
    }

    #[test]
    fn all_channels_move_together() {
        let pixels: Vec<u8> = [1, 2, 3, 4].iter().flat_map(|&value| [value]).chain(11..=14).collect();
        let item = ImageItem::new(pixels, [2, 2, 2], None).unwrap();
        let normalization = Normalization { mean: vec![0.0; 2], std: vec![1.0 / 255.0; 2] };
        let config = AugmentConfig::new(normalization).with_crop_padding(1).with_padding_mode(PaddingMode::Reflect);
        let augment = config.with_flip_probability(0.5).init([2, 2, 2]).unwrap();
        for seed in 0..50 {
            let view = augment.view(&item, seed);
            assert!((0..4).all(|i| (view[i] + 10.0 - view[i + 4]).abs() < 1e-3), "{view:?}");
        }
    }

    #[test]
    fn a_seed_keeps_its_view_for_ever() {
        let config = config().with_crop_padding(1).with_flip_probability(0.5).with_cutout_size(1);
        let expected = [[4, 5, 6, 7, 8, 9, 0, 0, 0], [0, 1, 0, 0, 4, 5, 0, 7, 8], [4, 5, 0, 7, 8, 9, 0, 0, 0]];
        assert_eq!([0, 1, 2].map(|seed| view(&config, seed)), expected);
    }

    #[test]
    fn switching_one_step_on_leaves_the_others_as_they_are() {
        let crop = config().with_crop_padding(1);
        for seed in 0..50 {
            let cropped = view(&crop, seed);
            let flipped = view(&crop.clone().with_flip_probability(1.0), seed);
            let mirrored: Vec<_> = cropped.chunks_exact(3).flat_map(|row| row.iter().rev().copied()).collect();
            assert_eq!(flipped, mirrored);
            let cut = view(&crop.clone().with_cutout_size(1), seed);
            assert!(cut.iter().zip(&cropped).filter(|(cut, cropped)| cut != cropped).count() <= 1);
        }
    }

    #[test]
    fn errors_name_the_field_the_range_and_the_value() {
        let message = |config: AugmentConfig| config.init([1, 3, 4]).unwrap_err().to_string();
        assert_eq!(message(config().with_crop_padding(3)), "`crop_padding` must be in [0, 3), got 3");
        assert_eq!(message(config().with_cutout_size(4)), "`cutout_size` must be in [0, 3], got 4");
        assert_eq!(message(config().with_flip_probability(-0.5)), "`flip_probability` must be in [0, 1], got -0.5");
        assert_eq!(
            message(config().with_cutout_probability(f64::NAN)),
            "`cutout_probability` must be in [0, 1], got NaN"
        );
        assert_eq!(message(config().with_mixup_alpha(Some(0.0))), "`mixup_alpha` must be in (0, inf), got 0");
        assert_eq!(
            message(config().with_cutmix_alpha(Some(f64::INFINITY))),
            "`cutmix_alpha` must be in (0, inf), got inf"
        );
        assert!(config().init([3, 3, 3]).unwrap_err().to_string().starts_with("`normalization.mean`"));
    }

    #[test]
    fn the_config_survives_json_and_evaluation_is_not_random() {
        let config = config().with_crop_padding(1).with_mixup_alpha(Some(0.2)).with_padding_mode(PaddingMode::Reflect);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<AugmentConfig>(&json).unwrap(), config);
        assert_eq!(config.for_evaluation(), super::tests::config());
    }

    #[test]
    #[should_panic(expected = "[channels, height, width]")]
    fn another_shape_is_a_bug_of_the_caller() {
        config().init([1, 4, 4]).unwrap().view(&nine(), 0);
    }

    proptest! {
        #[test]
        fn any_valid_config_gives_finite_views(
            height in 1usize..9, width in 1usize..9, padding in 0usize..8, cutout in 0usize..9, flip in 0.0..=1.0f64,
            reflect: bool, seed: u64,
        ) {
            let side = height.min(width);
            let mode = if reflect { PaddingMode::Reflect } else { PaddingMode::Zero };
            let config = config().with_crop_padding(padding.min(side - 1)).with_padding_mode(mode);
            let config = config.with_flip_probability(flip).with_cutout_size(cutout.min(side));
            let pixels: Vec<u8> = (0..height * width).map(|pixel| pixel as u8 + 1).collect();
            let item = ImageItem::new(pixels, [1, height, width], None).unwrap();
            let view = config.init([1, height, width]).unwrap().view(&item, seed);
            prop_assert_eq!(view.len(), height * width);
            prop_assert!(view.iter().all(|value| (-0.001..=64.001).contains(value)));
        }
    }
}
