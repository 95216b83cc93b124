//! Images and loaders.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::data::dataloader::DataLoader;
use burn_distill::models::{SeededLoader, SeededLoaderConfig};
use burn_distill::vision::{
    AugmentConfig, ImageBatch, ImageBatcher, ImageDataset, Normalization, PublishedDataset, Split,
};

use crate::args::{Args, DatasetName};

/// Training images, images held out from them, and test images.
pub(crate) struct Images {
    pub(crate) train: ImageDataset,
    pub(crate) held_out: ImageDataset,
    pub(crate) test: ImageDataset,
    pub(crate) augment: AugmentConfig,
}

impl Images {
    pub(crate) fn read(args: &Args) -> Result<Self> {
        let (mut train, mut test, normalization) = match (args.dataset, &args.data) {
            (DatasetName::FashionMnist, None) => (
                ImageDataset::fashion_mnist_embedded(Split::Train),
                ImageDataset::fashion_mnist_embedded(Split::Test),
                Normalization::fashion_mnist(),
            ),
            (DatasetName::Folder, Some(folder)) => {
                let (test, train) = ImageDataset::image_folder(folder)?.split(0.2, 0)?;
                let normalization = Normalization::of(&train)?;
                (train, test, normalization)
            }
            (DatasetName::Folder, None) => bail!("`--dataset folder` needs `--data DIR` with a folder per class"),
            (name, folder) => {
                let dataset = published(name);
                let folder = match folder {
                    Some(folder) => folder.clone(),
                    None => download(dataset)?,
                };
                let read =
                    |split| dataset.read(&folder, split).with_context(|| format!("reading {}", folder.display()));
                (read(Split::Train)?, read(Split::Test)?, dataset.normalization())
            }
        };
        if args.quick {
            test = test.balanced_subset(200.min(test.len()), 0)?;
        }
        let given = args.held_out();
        ensure!(given > 0 && given < train.len(), "`--held-out` must be in [1, {}), got {given}", train.len());
        let held_out = if args.quick { given.min(100) } else { given };
        let (held_out, rest) = train.split(held_out as f64 / train.len() as f64, 0)?;
        train = rest;
        let images = args.images();
        if !args.train_teacher && images != 0 {
            ensure!(images <= train.len(), "`--images` must be at most {}, got {images}", train.len());
            train = train.balanced_subset(images, 0)?;
        } else if args.quick {
            train = train.balanced_subset(100.min(train.len()), 0)?;
        }
        let mut augment = AugmentConfig::new(normalization).with_crop_padding(2);
        if args.dataset != DatasetName::Mnist {
            augment = augment.with_flip_probability(0.5); // a mirrored digit is another sign
        }
        Ok(Self { train, held_out, test, augment })
    }

    pub(crate) fn classes(&self) -> usize {
        self.train.num_classes()
    }

    /// What the rows of a teacher cache are answers to.
    pub(crate) fn identity(&self) -> Result<String> {
        let [train, held_out] = [&self.train, &self.held_out].map(ImageDataset::fingerprint);
        Ok(format!("train {train}, held out {held_out}, augmentation {}", serde_json::to_string(&self.augment)?))
    }

    pub(crate) fn train_loader(&self, args: &Args, seed: u64) -> Result<Arc<dyn DataLoader<ImageBatch>>> {
        let config = SeededLoaderConfig::new(args.batch_size()).with_shuffle(true).with_seed(seed).with_drop_last(true);
        let config = config.with_views(args.views);
        self.loader(&self.train, &self.augment, config)
    }

    pub(crate) fn eval_loader(&self, images: &ImageDataset) -> Result<Arc<dyn DataLoader<ImageBatch>>> {
        self.loader(images, &self.augment.for_evaluation(), SeededLoaderConfig::new(100))
    }

    fn loader(
        &self,
        images: &ImageDataset,
        augment: &AugmentConfig,
        config: SeededLoaderConfig,
    ) -> Result<Arc<dyn DataLoader<ImageBatch>>> {
        let batcher = ImageBatcher::new(augment.init(images.shape())?, self.classes())?;
        Ok(Arc::new(SeededLoader::new(Arc::new(images.clone()), batcher, config)?))
    }
}

fn published(name: DatasetName) -> PublishedDataset {
    match name {
        DatasetName::FashionMnist => PublishedDataset::FashionMnist,
        DatasetName::Mnist => PublishedDataset::Mnist,
        DatasetName::Cifar10 => PublishedDataset::Cifar10,
        DatasetName::Cifar100 | DatasetName::Folder => PublishedDataset::Cifar100,
    }
}

#[cfg(feature = "download")]
fn download(dataset: PublishedDataset) -> Result<std::path::PathBuf> {
    Ok(dataset.download("data")?)
}

#[cfg(not(feature = "download"))]
fn download(dataset: PublishedDataset) -> Result<std::path::PathBuf> {
    bail!("{dataset:?} is not inside the program: give `--data DIR`, or build with `--features download`")
}
