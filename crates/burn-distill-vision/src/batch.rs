//! Batches of augmented images.

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use burn_distill_models::{Keyed, OnDevice, Seeded, ViewKey, mix_seed};

use crate::augment::Augment;
use crate::dataset::ImageItem;
use crate::error::{Result, VisionError};

/// Images with what is known about them.
///
/// A batch may hold labelled and unlabelled samples side by side; a loss on labels must count only the rows where
/// `labelled` is true.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    /// The augmented, normalised images, `[batch, channels, height, width]`.
    pub images: Tensor<4>,
    /// The classes, `[batch]`; 0 where there is no label. Of a mixed sample, the class with the larger share.
    pub targets: Tensor<1, Int>,
    /// Which rows have a label, `[batch]`.
    pub labelled: Tensor<1, Bool>,
    /// With mixup or cutmix: the share of every class, `[batch, classes]`. Rows sum to 1, those without label to 0.
    pub target_probs: Option<Tensor<2>>,
    /// The [`ImageDataset::id`](crate::ImageDataset::id) of every sample's dataset.
    pub datasets: Vec<u64>,
    /// The position of every sample in its dataset.
    pub indices: Vec<usize>,
    /// With dataset and index, what identifies the image of every row: equal triples are equal images (under the same
    /// [`AugmentConfig`](crate::AugmentConfig)). It is 0 where nothing is random, the sample's seed without mixing,
    /// and with mixing it also depends on the other samples, as the image does.
    pub seeds: Vec<u64>,
    num_labelled: usize,
}

impl ImageBatch {
    /// A batch of given images, with indices from 0, and dataset and seeds 0.
    ///
    /// `images` is `[batch, channels, height, width]`; `labels` has one entry per image, `None` where it is unknown.
    /// All other tensors are placed on the device of `images`.
    ///
    /// # Panics
    /// If `labels` has another length than `images`.
    pub fn new(images: Tensor<4>, labels: &[Option<u32>]) -> Self {
        let [size, ..] = images.dims();
        assert_eq!(labels.len(), size, "`labels` must have one entry per image");
        let device = images.device();
        let targets: Vec<_> = labels.iter().map(|label| i64::from(label.unwrap_or(0))).collect();
        let labelled: Vec<_> = labels.iter().map(Option::is_some).collect();
        Self {
            images,
            targets: Tensor::from_data(TensorData::new(targets, [size]), &device),
            labelled: Tensor::from_data(TensorData::new(labelled, [size]), &device),
            target_probs: None,
            datasets: vec![0; size],
            indices: (0..size).collect(),
            seeds: vec![0; size],
            num_labelled: labels.iter().flatten().count(),
        }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The number of samples with a label, known without asking the device.
    pub fn num_labelled(&self) -> usize {
        self.num_labelled
    }

    /// Whether any sample has a label.
    pub fn has_labels(&self) -> bool {
        self.num_labelled > 0
    }
}

impl Keyed for ImageBatch {
    fn keys(&self) -> Vec<ViewKey> {
        let rows = self.datasets.iter().zip(&self.indices).zip(&self.seeds);
        rows.map(|((&dataset, &index), &view)| ViewKey { dataset, sample: index as u64, view }).collect()
    }

    fn device(&self) -> Device {
        self.images.device()
    }
}

impl OnDevice for ImageBatch {
    fn on_device(&self, device: &Device) -> Self {
        Self {
            images: self.images.on_device(device),
            targets: self.targets.on_device(device),
            labelled: self.labelled.on_device(device),
            target_probs: self.target_probs.on_device(device),
            ..self.clone()
        }
    }
}

/// Makes an [`ImageBatch`] of dataset items: Burn's `Batcher`, as [`SeededLoader`](burn_distill_models::SeededLoader)
/// uses it.
///
/// The batch is a pure function of the items, their indices and seeds, and each image, unless mixup or cutmix is on, of
/// its own item and seed.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use burn::data::dataloader::DataLoader;
/// use burn::tensor::Device;
/// use burn_distill_models::{SeededLoader, SeededLoaderConfig};
/// use burn_distill_vision::{AugmentConfig, ImageBatcher, ImageDataset, Normalization, Split};
///
/// let data = ImageDataset::fashion_mnist_embedded(Split::Train);
/// let augment = AugmentConfig::new(Normalization::fashion_mnist()).with_crop_padding(2).with_flip_probability(0.5);
/// let batcher = ImageBatcher::new(augment.init(data.shape())?, data.num_classes())?;
/// let config = SeededLoaderConfig::new(64).with_shuffle(true);
/// let loader = SeededLoader::new(Arc::new(data), batcher, config)?.with_device(Device::flex());
/// let batch = loader.iter().next().unwrap()?;
/// assert_eq!(batch.images.dims(), [64, 1, 28, 28]);
/// assert_eq!(batch.num_labelled(), 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageBatcher {
    augment: Augment,
    num_classes: usize,
}

impl ImageBatcher {
    /// A batcher for items of the shape of `augment` with labels below `num_classes`.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `num_classes` is 0.
    pub fn new(augment: Augment, num_classes: usize) -> Result<Self> {
        if num_classes == 0 {
            return Err(VisionError::out_of_range("num_classes", "[1, inf)", num_classes));
        }
        Ok(Self { augment, num_classes })
    }

    /// Mixes the views and returns the label with the larger share, the share of every class and the seed per row.
    fn mix(&self, items: &[Seeded<ImageItem>], views: &mut [f32]) -> Option<MixedRows> {
        let labels: Vec<_> = items.iter().map(|seeded| seeded.item.label()).collect();
        let labelled: Vec<_> = labels.iter().map(Option::is_some).collect();
        let parts: Vec<_> = items.iter().flat_map(|seeded| [seeded.index as u64, seeded.seed]).collect();
        let batch_seed = mix_seed(&parts);
        let mixed = self.augment.mix.apply(views, self.augment.shape(), &labelled, batch_seed)?;
        let mut rows = MixedRows {
            labels: labels.clone(),
            probs: vec![0.0; items.len() * self.num_classes],
            seeds: items.iter().map(|seeded| mix_seed(&[batch_seed, seeded.seed])).collect(),
        };
        for (row, &partner) in mixed.partners.iter().enumerate() {
            if let (Some(own), Some(other)) = (labels[row], labels[partner]) {
                rows.probs[row * self.num_classes + own as usize] += mixed.own_share as f32;
                rows.probs[row * self.num_classes + other as usize] += (1.0 - mixed.own_share) as f32;
                rows.labels[row] = Some(if mixed.own_share < 0.5 { other } else { own });
            }
        }
        Some(rows)
    }
}

struct MixedRows {
    labels: Vec<Option<u32>>,
    probs: Vec<f32>,
    seeds: Vec<u64>,
}

impl Batcher<Seeded<ImageItem>, ImageBatch> for ImageBatcher {
    /// # Panics
    /// If an item has another shape than the augmentation, or a label that is not below `num_classes`.
    fn batch(&self, items: Vec<Seeded<ImageItem>>, device: &Device) -> ImageBatch {
        let [channels, height, width] = self.augment.shape();
        let mut views = Vec::with_capacity(items.len() * channels * height * width);
        for Seeded { item, index, seed } in &items {
            let label = item.label().unwrap_or(0);
            assert!((label as usize) < self.num_classes, "label {label} of sample {index} must be below `num_classes`");
            self.augment.append_view(item, *seed, &mut views);
        }
        let mixed = self.mix(&items, &mut views);

        let images = TensorData::new(views, [items.len(), channels, height, width]);
        let images = Tensor::from_data(images, device);
        let datasets = items.iter().map(|seeded| seeded.item.dataset()).collect();
        let indices = items.iter().map(|seeded| seeded.index).collect();
        match mixed {
            None => {
                let labels: Vec<_> = items.iter().map(|seeded| seeded.item.label()).collect();
                let random = self.augment.is_random();
                let seeds = items.iter().map(|seeded| if random { seeded.seed } else { 0 }).collect();
                ImageBatch { datasets, indices, seeds, ..ImageBatch::new(images, &labels) }
            }
            Some(MixedRows { labels, probs, seeds }) => {
                let probs = Tensor::from_data(TensorData::new(probs, [items.len(), self.num_classes]), device);
                ImageBatch { datasets, indices, seeds, target_probs: Some(probs), ..ImageBatch::new(images, &labels) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::data::dataloader::DataLoader;
    use burn_distill_models::{SeededLoader, SeededLoaderConfig};

    use super::*;
    use crate::{AugmentConfig, ImageDataset, Normalization};

    /// Images of 1 x 4 x 4 pixels, all different, of three classes; every third without label.
    fn items(n: usize) -> Vec<Seeded<ImageItem>> {
        let item = |index: usize| {
            let pixels: Vec<u8> = (0..16).map(|pixel| (index * 16 + pixel) as u8).collect();
            let label = (index % 3 != 2).then_some((index % 3 + index / 3 % 2) as u32);
            let item = ImageItem::new(pixels, [1, 4, 4], label).unwrap();
            Seeded { item, index, seed: mix_seed(&[index as u64]) }
        };
        (0..n).map(item).collect()
    }

    fn batcher(config: &AugmentConfig) -> ImageBatcher {
        ImageBatcher::new(config.init([1, 4, 4]).unwrap(), 3).unwrap()
    }

    fn config() -> AugmentConfig {
        AugmentConfig::new(Normalization::none(1))
    }

    fn floats<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    fn ints(tensor: &Tensor<1, Int>) -> Vec<i64> {
        tensor.to_data().iter::<i64>().collect()
    }

    #[test]
    fn labelled_and_unlabelled_samples_share_a_batch() {
        let batch = batcher(&config()).batch(items(4), &Device::flex());
        assert_eq!(batch.images.dims(), [4, 1, 4, 4]);
        assert_eq!(ints(&batch.targets), [0, 1, 0, 1]);
        assert_eq!(batch.labelled.to_data().iter::<bool>().collect::<Vec<_>>(), [true, true, false, true]);
        assert_eq!((batch.len(), batch.num_labelled(), batch.has_labels()), (4, 3, true));
        assert_eq!((batch.indices.as_slice(), batch.seeds.as_slice()), (&[0, 1, 2, 3][..], &[0; 4][..]));
        assert!(batch.target_probs.is_none());
        assert!((floats(&batch.images)[17] - 17.0 / 255.0).abs() < 1e-7);
    }

    #[test]
    fn a_seed_counts_only_where_something_is_random() {
        let seeds = |config: &AugmentConfig| batcher(config).batch(items(3), &Device::flex()).seeds;
        let own: Vec<_> = items(3).iter().map(|item| item.seed).collect();
        assert_eq!(seeds(&config().with_cutout_size(2).with_cutout_probability(0.0)), [0; 3]);
        for random in [config().with_crop_padding(1), config().with_flip_probability(0.5), config().with_cutout_size(2)]
        {
            assert_eq!(seeds(&random), own);
        }
    }

    #[test]
    fn keys_tell_two_data_sets_apart() {
        let data = |first: u8| ImageDataset::new(vec![first; 16], [1, 4, 4], &[None], vec!["a".into(); 3]).unwrap();
        let keys = |data: ImageDataset| {
            let loader = SeededLoader::new(Arc::new(data), batcher(&config()), SeededLoaderConfig::new(1)).unwrap();
            loader.with_device(Device::flex()).iter().next().unwrap().unwrap().keys()
        };
        assert_eq!(keys(data(1)), keys(data(1)));
        assert_eq!(keys(data(1)), [ViewKey { dataset: data(1).id(), sample: 0, view: 0 }]);
        assert_ne!(keys(data(1)), keys(data(2)));
    }

    #[test]
    fn a_view_does_not_depend_on_the_batch_around_it() {
        let config = config().with_crop_padding(2).with_flip_probability(0.5).with_cutout_size(2);
        let batcher = batcher(&config);
        let together = floats(&batcher.batch(items(9), &Device::flex()).images);
        let mut reversed = items(9);
        reversed.reverse();
        let reversed = floats(&batcher.batch(reversed, &Device::flex()).images);
        for (row, item) in items(9).into_iter().enumerate() {
            let alone = floats(&batcher.batch(vec![item], &Device::flex()).images);
            assert_eq!(together[row * 16..][..16], alone);
            assert_eq!(reversed[(8 - row) * 16..][..16], alone);
        }
    }

    #[test]
    fn threads_and_batch_sizes_do_not_change_views() {
        let pixels: Vec<u8> = (0..40 * 16).map(|value| value as u8).collect();
        let data = Arc::new(ImageDataset::new(pixels, [1, 4, 4], &[Some(0); 40], vec!["a".into(); 3]).unwrap());
        let augment = config().with_crop_padding(1).with_flip_probability(0.5).with_cutout_size(2);
        let views = |batch_size, prefetch, epoch| {
            let config = SeededLoaderConfig::new(batch_size).with_shuffle(true).with_seed(4).with_prefetch(prefetch);
            let loader = SeededLoader::new(data.clone(), batcher(&augment), config).unwrap();
            loader.set_epoch(epoch);
            let mut views = vec![vec![]; 40];
            for batch in loader.with_device(Device::flex()).iter() {
                let batch = batch.unwrap();
                for (row, pixels) in floats(&batch.images).chunks_exact(16).enumerate() {
                    views[batch.indices[row]] = pixels.to_vec();
                }
            }
            views
        };
        assert_eq!(views(7, 0, 1), views(16, 3, 1));
        assert_ne!(views(7, 0, 0), views(7, 0, 1));
    }

    #[test]
    fn mixed_labels_follow_the_pixels() {
        for config in [config().with_mixup_alpha(Some(1.0)), config().with_cutmix_alpha(Some(1.0))] {
            let batcher = batcher(&config);
            let before = items(12);
            let batch = batcher.batch(before.clone(), &Device::flex());
            let probs = floats(&batch.target_probs.clone().unwrap());
            let labelled: Vec<_> = batch.labelled.to_data().iter::<bool>().collect();
            assert_eq!(batch.num_labelled(), 8);
            let mut mixed_rows = 0;
            for row in 0..12 {
                let probs = &probs[row * 3..][..3];
                let total: f32 = probs.iter().sum();
                assert_eq!(labelled[row], before[row].item.label().is_some());
                assert!((total - f32::from(u8::from(labelled[row]))).abs() < 1e-6);
                let best = (0..3).max_by(|&a, &b| probs[a].total_cmp(&probs[b])).unwrap();
                if labelled[row] && (probs[best] - 0.5).abs() > 1e-3 {
                    assert_eq!(ints(&batch.targets)[row], best as i64);
                }
                mixed_rows += usize::from(labelled[row] && probs[best] < 1.0);
                assert_ne!(batch.seeds[row], before[row].seed);
            }
            assert!(mixed_rows > 0);
            let again = batcher.batch(items(12), &Device::flex());
            assert_eq!((floats(&again.images), &again.seeds), (floats(&batch.images), &batch.seeds));
            // Another partner is another image, so it is another seed.
            let other = batcher.batch(items(11), &Device::flex());
            assert!((0..11).all(|row| other.seeds[row] != batch.seeds[row]));
        }
    }

    #[test]
    fn a_batch_without_labels_says_so() {
        let images = Tensor::zeros([2, 1, 4, 4], &Device::flex());
        let batch = ImageBatch::new(images, &[None, None]);
        assert!(!batch.has_labels() && !batch.is_empty());
        assert_eq!(batch.num_labelled(), 0);
    }

    #[test]
    fn no_class_is_an_error() {
        let error = ImageBatcher::new(config().init([1, 4, 4]).unwrap(), 0).unwrap_err().to_string();
        assert_eq!(error, "`num_classes` must be in [1, inf), got 0");
    }

    #[test]
    #[should_panic(expected = "label 3 of sample 5 must be below `num_classes`")]
    fn a_label_beyond_the_classes_is_a_bug_of_the_caller() {
        let item = ImageItem::new(vec![0; 16], [1, 4, 4], Some(3)).unwrap();
        batcher(&config()).batch(vec![Seeded { item, index: 5, seed: 0 }], &Device::flex());
    }

    #[test]
    fn all_is_send_and_sync() {
        fn check<T: Send + Sync>() {}
        check::<ImageBatcher>();
        check::<ImageDataset>();
        check::<ImageBatch>();
    }
}
