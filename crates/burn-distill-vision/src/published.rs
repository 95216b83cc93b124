//! Datasets known by name.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::{ImageDataset, Split};
use crate::error::Result;
use crate::normalization::Normalization;

/// A published dataset, for programs that choose one by name.
///
/// # Example
/// ```
/// use burn_distill_vision::PublishedDataset;
///
/// let dataset: PublishedDataset = serde_json::from_str("\"fashion-mnist\"")?;
/// assert_eq!(dataset.normalization().mean, [0.2860]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PublishedDataset {
    /// [`ImageDataset::fashion_mnist`]
    FashionMnist,
    /// [`ImageDataset::mnist`]
    Mnist,
    /// [`ImageDataset::cifar10`]
    Cifar10,
    /// [`ImageDataset::cifar100`]
    Cifar100,
}

impl PublishedDataset {
    /// Reads it from a folder.
    ///
    /// # Errors
    /// Those of the function named at the variant.
    pub fn read(self, dir: impl AsRef<Path>, split: Split) -> Result<ImageDataset> {
        match self {
            Self::FashionMnist => ImageDataset::fashion_mnist(dir, split),
            Self::Mnist => ImageDataset::mnist(dir, split),
            Self::Cifar10 => ImageDataset::cifar10(dir, split),
            Self::Cifar100 => ImageDataset::cifar100(dir, split),
        }
    }

    /// The statistics of its training set.
    pub fn normalization(self) -> Normalization {
        match self {
            Self::FashionMnist => Normalization::fashion_mnist(),
            Self::Mnist => Normalization::mnist(),
            Self::Cifar10 => Normalization::cifar10(),
            Self::Cifar100 => Normalization::cifar100(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, file, channels) in [
            ("fashion-mnist", "t10k-images-idx3-ubyte", 1),
            ("mnist", "t10k-images-idx3-ubyte", 1),
            ("cifar10", "test_batch.bin", 3),
            ("cifar100", "test.bin", 3),
        ] {
            let dataset: PublishedDataset = serde_json::from_str(&format!("{name:?}")).unwrap();
            let error = dataset.read(dir.path(), Split::Test).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
            dataset.normalization().check(channels).unwrap();
        }
    }
}
