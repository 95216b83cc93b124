//! The part of Fashion-MNIST that is compiled in.

use crate::dataset::{ImageDataset, Split};
use crate::idx::{dataset, fashion_mnist_classes};
use crate::read::FieldReader;

macro_rules! embedded {
    ($name:literal) => {
        include_bytes!(concat!("../data/fashion-mnist/", $name)).as_slice()
    };
}

impl ImageDataset {
    /// 10,000 training images of Fashion-MNIST, 1,000 of every class, or its 10,000 official test images: 28 x 28, one
    /// channel, ten classes. Needs no file and no network.
    ///
    /// `data/fashion-mnist/README.md` in this crate says how the training images were chosen. The data is under the
    /// MIT license, copyright 2017 Zalando SE. It adds 9 MB to a binary that calls this function, and nothing to one
    /// that does not.
    ///
    /// # Example
    /// ```
    /// use burn_distill_vision::{ImageDataset, Split};
    ///
    /// let test = ImageDataset::fashion_mnist_embedded(Split::Test);
    /// assert_eq!((test.len(), test.shape()), (10_000, [1, 28, 28]));
    /// assert_eq!(test.class_names()[9], "Ankle boot");
    /// assert_eq!(test.item(0).label(), Some(9));
    /// ```
    pub fn fashion_mnist_embedded(split: Split) -> Self {
        let (images, labels) = match split {
            Split::Train => (embedded!("train-images-idx3-ubyte.gz"), embedded!("train-labels-idx1-ubyte.gz")),
            Split::Test => (embedded!("t10k-images-idx3-ubyte.gz"), embedded!("t10k-labels-idx1-ubyte.gz")),
        };
        FieldReader::new("embedded images", images)
            .and_then(|images| dataset(images, FieldReader::new("embedded labels", labels)?, fashion_mnist_classes()))
            .expect("the embedded files are constants and a test reads all of them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of the images as `fingerprint` hashes them, computed apart from it by `make-fashion-mnist-subset`.
    const TRAIN: &str = "fc4c9fc70c389afd922a3f5d5fc7472bc686bbaa90e70a8d034bb36be1e46257";
    const TEST: &str = "1c859e5bc2109f47503e789645c28e080610a4a500f0d8cf4a5540ff0a034a8a";

    #[test]
    fn both_splits_are_whole_and_balanced() {
        for (split, fingerprint) in [(Split::Train, TRAIN), (Split::Test, TEST)] {
            let dataset = ImageDataset::fashion_mnist_embedded(split);
            assert_eq!((dataset.len(), dataset.shape(), dataset.num_classes()), (10_000, [1, 28, 28], 10));
            for class in 0..10 {
                assert_eq!(dataset.labels().filter(|&label| label == Some(class)).count(), 1000);
            }
            assert_eq!(dataset.fingerprint(), fingerprint);
        }
    }

    #[test]
    fn the_first_test_labels_are_the_official_ones() {
        let labels: Vec<_> = ImageDataset::fashion_mnist_embedded(Split::Test).labels().take(10).flatten().collect();
        assert_eq!(labels, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    }

    /// Compares with the full dataset where Debian's package `dataset-fashion-mnist` is installed.
    #[test]
    fn the_embedded_images_are_in_the_full_dataset() {
        let dir = std::path::Path::new("/usr/share/datasets/fashion-mnist");
        if !dir.exists() {
            println!("skipped: the package dataset-fashion-mnist is not installed");
            return;
        }
        let full = ImageDataset::fashion_mnist(dir, Split::Train).unwrap();
        assert_eq!((full.len(), full.shape()), (60_000, [1, 28, 28]));
        assert_eq!(full.item(0).label(), Some(9));
        let known: std::collections::HashSet<_> =
            full.labels().enumerate().map(|(index, label)| (full.item(index).pixels().to_vec(), label)).collect();
        let embedded = ImageDataset::fashion_mnist_embedded(Split::Train);
        for (index, label) in embedded.labels().enumerate() {
            assert!(known.contains(&(embedded.item(index).pixels().to_vec(), label)), "image {index}");
        }
        assert_eq!(ImageDataset::fashion_mnist(dir, Split::Test).unwrap().fingerprint(), TEST);
    }
}
