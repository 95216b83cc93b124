//! The binary format of CIFAR-10 and CIFAR-100.
//!
//! Records without a header: the label (CIFAR-100: the coarse label, then the fine one), then 3 x 32 x 32 bytes, all
//! red, all green, all blue, each row by row. See <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::path::{Path, PathBuf};

use crate::dataset::{ImageDataset, Split};
use crate::error::Result;
use crate::read::FieldReader;

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

#[rustfmt::skip]
const CIFAR100: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

impl ImageDataset {
    /// CIFAR-10 in its binary format.
    ///
    /// `dir`, or its folder `cifar-10-batches-bin`, holds `data_batch_1.bin` to `data_batch_5.bin` and
    /// `test_batch.bin`.
    ///
    /// # Errors
    /// [`VisionError::Io`](crate::VisionError::Io) if a file is missing or unreadable;
    /// [`VisionError::Malformed`](crate::VisionError::Malformed), with the byte, if a file is empty or not a whole
    /// number of records, or if a label is not a class.
    pub fn cifar10(dir: impl AsRef<Path>, split: Split) -> Result<Self> {
        let dir = inner(dir.as_ref(), "cifar-10-batches-bin");
        let files = match split {
            Split::Train => (1..=5).map(|batch| dir.join(format!("data_batch_{batch}.bin"))).collect(),
            Split::Test => vec![dir.join("test_batch.bin")],
        };
        let readers = files.iter().map(|file| FieldReader::open(file));
        dataset(readers, &["label"], CIFAR10.map(String::from).to_vec())
    }

    /// CIFAR-100 in its binary format, with the 100 fine labels.
    ///
    /// `dir`, or its folder `cifar-100-binary`, holds `train.bin` and `test.bin`.
    ///
    /// # Errors
    /// As [`cifar10`](Self::cifar10).
    pub fn cifar100(dir: impl AsRef<Path>, split: Split) -> Result<Self> {
        let file = match split {
            Split::Train => "train.bin",
            Split::Test => "test.bin",
        };
        let file = inner(dir.as_ref(), "cifar-100-binary").join(file);
        let readers = [FieldReader::open(&file)].into_iter();
        dataset(readers, &["coarse label", "fine label"], CIFAR100.map(String::from).to_vec())
    }
}

fn inner(dir: &Path, name: &str) -> PathBuf {
    let inner = dir.join(name);
    if inner.is_dir() { inner } else { dir.to_path_buf() }
}

/// The records of all files in order; `labels` are the label bytes of a record, the last one is used.
fn dataset<'a>(
    files: impl Iterator<Item = Result<FieldReader<'a>>>,
    labels: &[&'static str],
    class_names: Vec<String>,
) -> Result<ImageDataset> {
    let record = labels.len() + PIXELS;
    let field = labels[labels.len() - 1];
    let mut pixels = Vec::new();
    let mut classes = Vec::new();
    for file in files {
        let mut file = file?;
        let bytes = file.rest("records")?;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let at = (bytes.len() - bytes.len() % record) as u64;
            let expected = format!("{record} bytes, a whole record");
            return Err(file.malformed(at, "record", expected, format!("{}", bytes.len() % record)));
        }
        for (position, bytes) in bytes.chunks_exact(record).enumerate() {
            let label = bytes[labels.len() - 1];
            if usize::from(label) >= class_names.len() {
                let at = (position * record + labels.len() - 1) as u64;
                let expected = format!("in [0, {})", class_names.len());
                return Err(file.malformed(at, field, expected, label.to_string()));
            }
            classes.push(Some(label.into()));
            pixels.extend_from_slice(&bytes[labels.len()..]);
        }
    }
    ImageDataset::new(pixels, SHAPE, &classes, class_names)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A record whose three planes are constant.
    fn record(labels: &[u8], planes: [u8; 3]) -> Vec<u8> {
        [labels.to_vec(), planes.iter().flat_map(|&value| vec![value; 1024]).collect()].concat()
    }

    fn parse(bytes: &[u8], labels: &[&'static str]) -> Result<ImageDataset> {
        dataset([FieldReader::new("batch", bytes)].into_iter(), labels, CIFAR100.map(String::from).to_vec())
    }

    #[test]
    fn ten_classes_in_five_files() {
        let dir = tempfile::tempdir().unwrap();
        for batch in 1..=5 {
            let bytes = [record(&[batch], [batch, 2, 3]), record(&[0], [0; 3])].concat();
            fs::write(dir.path().join(format!("data_batch_{batch}.bin")), bytes).unwrap();
        }
        let train = ImageDataset::cifar10(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.shape(), train.num_classes()), (10, [3, 32, 32], 10));
        let item = train.item(8);
        assert_eq!(item.label(), Some(5));
        assert_eq!((item.pixels()[1023], item.pixels()[1024], item.pixels()[3071]), (5, 2, 3));
        let missing = ImageDataset::cifar10(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(missing.contains("test_batch.bin"), "{missing}");
    }

    #[test]
    fn a_hundred_classes_in_the_folder_of_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-100-binary");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("test.bin"), record(&[11, 98], [7, 8, 9])).unwrap();
        for dir in [dir.path(), &inner] {
            let test = ImageDataset::cifar100(dir, Split::Test).unwrap();
            assert_eq!(test.item(0).label(), Some(98));
            assert_eq!(test.class_names()[98], "woman");
            assert_eq!((test.item(0).pixels()[0], test.item(0).pixels()[3071]), (7, 9));
        }
    }

    #[test]
    fn class_names_are_sorted_as_published() {
        assert!(CIFAR100.is_sorted() && CIFAR10.is_sorted());
    }

    #[test]
    fn errors_name_file_byte_field_expected_and_found() {
        let error = |bytes: &[u8], labels: &[&'static str]| parse(bytes, labels).unwrap_err().to_string();
        let good = record(&[1], [0; 3]);
        assert_eq!(error(&[], &["label"]), "batch: byte 0: record must be 3073 bytes, a whole record, got 0");
        let cut = [&good[..], &good[..10]].concat();
        assert_eq!(error(&cut, &["label"]), "batch: byte 3073: record must be 3073 bytes, a whole record, got 10");
        let bad = [good, record(&[100], [0; 3])].concat();
        assert_eq!(error(&bad, &["label"]), "batch: byte 3073: label must be in [0, 100), got 100");
        assert_eq!(
            error(&record(&[0, 200], [0; 3]), &["coarse label", "fine label"]),
            "batch: byte 1: fine label must be in [0, 100), got 200"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(start in prop::collection::vec(any::<u8>(), 0..16), len in 0usize..10_000) {
            let mut bytes = start;
            bytes.resize(len, 3);
            let whole = len > 0 && len % 3073 == 0;
            prop_assert!(parse(&bytes, &["label"]).is_err() || whole);
            let _ = parse(&bytes, &["coarse label", "fine label"]);
        }

        #[test]
        fn every_truncation_is_an_error(cut in 1usize..3074) {
            let bytes = record(&[1, 2], [1, 2, 3]);
            prop_assert!(parse(&bytes[..3074 - cut], &["coarse label", "fine label"]).is_err());
        }
    }
}
