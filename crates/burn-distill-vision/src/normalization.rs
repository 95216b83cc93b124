//! Mean and deviation of each channel.

use serde::{Deserialize, Serialize};

use crate::dataset::ImageDataset;
use crate::error::{Result, VisionError};

/// Turns a byte `v` of channel `c` into `(v / 255 - mean[c]) / std[c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// The mean of each channel, of values in `[0, 1]`.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, of values in `[0, 1]`.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Values in `[0, 1]`, neither shifted nor scaled.
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// The statistics of Fashion-MNIST's training set.
    pub fn fashion_mnist() -> Self {
        Self { mean: vec![0.2860], std: vec![0.3530] }
    }

    /// The statistics of MNIST's training set.
    pub fn mnist() -> Self {
        Self { mean: vec![0.1307], std: vec![0.3081] }
    }

    /// The statistics of CIFAR-10's training set.
    pub fn cifar10() -> Self {
        Self { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] }
    }

    /// The statistics of CIFAR-100's training set.
    pub fn cifar100() -> Self {
        Self { mean: vec![0.5071, 0.4865, 0.4409], std: vec![0.2673, 0.2564, 0.2762] }
    }

    /// The statistics of ImageNet that torchvision's weights were trained with.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// The statistics of all pixels of a dataset.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if the dataset is empty or a channel is constant.
    pub fn of(dataset: &ImageDataset) -> Result<Self> {
        let [channels, height, width] = dataset.shape();
        let mut counts = vec![[0u64; 256]; channels];
        for index in 0..dataset.len() {
            for (plane, counts) in dataset.item(index).pixels().chunks_exact(height * width).zip(&mut counts) {
                plane.iter().for_each(|&value| counts[usize::from(value)] += 1);
            }
        }
        let total = (dataset.len() * height * width) as f64;
        let mean_of = |counts: &[u64; 256], f: &dyn Fn(f64) -> f64| {
            let weighted = (0u8..=255).zip(counts).map(|(value, &count)| f(f64::from(value) / 255.0) * count as f64);
            weighted.sum::<f64>() / total
        };
        let mean: Vec<_> = counts.iter().map(|counts| mean_of(counts, &|value| value)).collect();
        let std = counts.iter().zip(&mean).map(|(counts, mean)| mean_of(counts, &|v| (v - mean).powi(2)).sqrt() as f32);
        let normalization = Self { std: std.collect(), mean: mean.into_iter().map(|mean| mean as f32).collect() };
        normalization.check(channels)?;
        Ok(normalization)
    }

    pub(crate) fn check(&self, channels: usize) -> Result<()> {
        for (field, values) in [("normalization.mean", &self.mean), ("normalization.std", &self.std)] {
            if values.len() != channels {
                let range = format!("the lists of {channels} numbers, one per channel");
                return Err(VisionError::out_of_range(field, range, format!("{values:?}")));
            }
        }
        if let Some(bad) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(VisionError::out_of_range("normalization.mean", "(-inf, inf)", bad));
        }
        match self.std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            Some(bad) => Err(VisionError::out_of_range("normalization.std", "(0, inf)", bad)),
            None => Ok(()),
        }
    }

    /// The value of every byte in `channel`.
    pub(crate) fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|value| (value as f32 / 255.0 - self.mean[channel]) / self.std[channel])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    #[test]
    fn statistics_of_two_pixels_per_channel() {
        // Channel 0: 0 and 255 (mean 1/2, deviation 1/2); channel 1: 51 and 102 (0.2 and 0.4).
        let dataset = ImageDataset::new(vec![0, 51, 255, 102], [2, 1, 1], &[None, None], vec![]).unwrap();
        let found = Normalization::of(&dataset).unwrap();
        for (found, expected) in found.mean.iter().chain(&found.std).zip([0.5, 0.3, 0.5, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!(Normalization::of(&dataset.take(1)).is_err());
        assert!(Normalization::of(&dataset.take(0)).is_err());
    }

    #[test]
    fn the_constants_are_those_of_the_data() {
        let near = |found: &Normalization, tolerance: f32| {
            let expected = Normalization::fashion_mnist();
            assert!((found.mean[0] - expected.mean[0]).abs() < tolerance, "{found:?}");
            assert!((found.std[0] - expected.std[0]).abs() < tolerance, "{found:?}");
        };
        near(&Normalization::of(&ImageDataset::fashion_mnist_embedded(Split::Train)).unwrap(), 3e-3);
        match ImageDataset::fashion_mnist("/usr/share/datasets/fashion-mnist", Split::Train) {
            Ok(full) => near(&Normalization::of(&full).unwrap(), 5.1e-5),
            Err(_) => println!("skipped: the package dataset-fashion-mnist is not installed"),
        }
    }

    #[test]
    fn bytes_become_normalised_values() {
        let table = Normalization { mean: vec![0.0, 0.2], std: vec![1.0, 0.5] }.table(1);
        assert!((table[0] + 0.4).abs() < 1e-6 && (table[255] - 1.6).abs() < 1e-6 && table[51].abs() < 1e-6);
        assert_eq!(Normalization::none(1).table(0)[255], 1.0);
    }

    #[test]
    fn bad_values_are_named() {
        let message = |mean: &[f32], std: &[f32]| {
            Normalization { mean: mean.to_vec(), std: std.to_vec() }.check(1).unwrap_err().to_string()
        };
        assert!(message(&[0.1, 0.2], &[1.0]).starts_with("`normalization.mean` must be in the lists of 1 numbers"));
        assert!(message(&[0.1], &[]).starts_with("`normalization.std`"));
        assert_eq!(message(&[0.1], &[0.0]), "`normalization.std` must be in (0, inf), got 0");
        assert_eq!(message(&[f32::NAN], &[1.0]), "`normalization.mean` must be in (-inf, inf), got NaN");
    }
}
