use std::sync::Arc;

use anyhow::Result;
use burn::data::dataloader::DataLoader;
use burn_distill::models::{SeededLoader, SeededLoaderConfig};
use burn_distill::vision::{AugmentConfig, ImageBatch, ImageBatcher, ImageDataset, Normalization, Split};

use crate::Options;

/// Batches of images.
pub type Loader = Arc<dyn DataLoader<ImageBatch>>;

/// Fashion-MNIST as it is inside the program, in three parts that share no image.
pub struct Images {
    /// To train on.
    pub train: ImageDataset,
    /// To choose the best epoch on: 500 of the training images.
    pub held_out: ImageDataset,
    /// To report on: the official 10,000.
    pub test: ImageDataset,
}

impl Images {
    /// `train` of the 9,500 other training images, a multiple of 10: so many of each class.
    pub fn fashion_mnist(train: usize, options: &Options) -> Result<Self> {
        let (held_out, rest) = ImageDataset::fashion_mnist_embedded(Split::Train).split(0.05, 0)?;
        let test = ImageDataset::fashion_mnist_embedded(Split::Test);
        let test = test.balanced_subset(options.size(test.len(), 200), 0)?;
        Ok(Self { train: rest.balanced_subset(options.size(train, 200), 0)?, held_out, test })
    }

    /// What a run reads: training images in an order that is new in every epoch, and the images that are held out.
    pub fn loaders(&self, batch_size: usize, seed: u64) -> Result<(Loader, Loader)> {
        let config = SeededLoaderConfig::new(batch_size).with_shuffle(true).with_seed(seed).with_drop_last(true);
        Ok((Self::loader(&self.train, config)?, Self::in_order(&self.held_out)?))
    }

    /// All images in their order.
    pub fn in_order(images: &ImageDataset) -> Result<Loader> {
        Self::loader(images, SeededLoaderConfig::new(250))
    }

    /// Makes batches of the images as they are.
    pub fn batcher(images: &ImageDataset) -> Result<ImageBatcher> {
        let augment = AugmentConfig::new(Normalization::fashion_mnist());
        Ok(ImageBatcher::new(augment.init(images.shape())?, images.num_classes())?)
    }

    fn loader(images: &ImageDataset, config: SeededLoaderConfig) -> Result<Loader> {
        Ok(Arc::new(SeededLoader::new(Arc::new(images.clone()), Self::batcher(images)?, config)?))
    }
}
