//! The IDX format of MNIST and of everything that replaces it.
//!
//! Big-endian: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as `u32`,
//! then the elements. See <http://yann.lecun.com/exdb/mnist/>.

use std::path::{Path, PathBuf};

use crate::dataset::{ImageDataset, Split};
use crate::error::Result;
use crate::read::FieldReader;

impl ImageDataset {
    /// Fashion-MNIST from a folder with the four files of its authors (see [`from_idx_dir`](Self::from_idx_dir)).
    ///
    /// # Errors
    /// As [`from_idx_dir`](Self::from_idx_dir).
    pub fn fashion_mnist(dir: impl AsRef<Path>, split: Split) -> Result<Self> {
        Self::from_idx_dir(dir, split, fashion_mnist_classes())
    }

    /// MNIST from a folder with its four files (see [`from_idx_dir`](Self::from_idx_dir)).
    ///
    /// # Errors
    /// As [`from_idx_dir`](Self::from_idx_dir).
    pub fn mnist(dir: impl AsRef<Path>, split: Split) -> Result<Self> {
        Self::from_idx_dir(dir, split, (0..10).map(|digit| digit.to_string()).collect())
    }

    /// A dataset in the layout of MNIST, with the given classes.
    ///
    /// `dir` holds `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, for [`Split::Test`] the same with `t10k`;
    /// each plain or compressed with gzip, with or without the extension `.gz`. If both are there, the one without is
    /// read.
    ///
    /// # Errors
    /// [`VisionError::Io`](crate::VisionError::Io) if a file is missing or unreadable;
    /// [`VisionError::Malformed`](crate::VisionError::Malformed), with the byte, if a file is not IDX with unsigned
    /// bytes, ends early or goes on after its end, if both files disagree about the number of samples, or if a label
    /// is not a class.
    pub fn from_idx_dir(dir: impl AsRef<Path>, split: Split, class_names: Vec<String>) -> Result<Self> {
        let part = match split {
            Split::Train => "train",
            Split::Test => "t10k",
        };
        let images = plain_or_gz(dir.as_ref(), &format!("{part}-images-idx3-ubyte"));
        let labels = plain_or_gz(dir.as_ref(), &format!("{part}-labels-idx1-ubyte"));
        dataset(FieldReader::open(&images)?, FieldReader::open(&labels)?, class_names)
    }
}

/// The classes of Fashion-MNIST, in the order of their labels.
pub(crate) fn fashion_mnist_classes() -> Vec<String> {
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
        .map(String::from)
        .to_vec()
}

fn plain_or_gz(dir: &Path, name: &str) -> PathBuf {
    let (plain, compressed) = (dir.join(name), dir.join(format!("{name}.gz")));
    if compressed.exists() && !plain.exists() { compressed } else { plain }
}

/// The dataset in a file of images and a file of labels.
pub(crate) fn dataset(
    mut images: FieldReader,
    mut labels: FieldReader,
    class_names: Vec<String>,
) -> Result<ImageDataset> {
    let [count, height, width] = header(&mut images, ["number of images", "height", "width"])?;
    if height == 0 || width == 0 {
        return Err(images.malformed(8, "height and width", "at least 1 x 1", format!("{height} x {width}")));
    }
    let size = (u64::from(height) * u64::from(width)).checked_mul(count.into());
    let pixels = images.bytes("pixels", size.unwrap_or(u64::MAX))?;
    images.end()?;

    let [labelled] = header(&mut labels, ["number of labels"])?;
    if labelled != count {
        let expected = format!("{count}, one per image");
        return Err(labels.malformed(4, "number of labels", expected, labelled.to_string()));
    }
    let start = labels.offset;
    let classes = labels.bytes("labels", labelled.into())?;
    labels.end()?;
    if let Some(bad) = classes.iter().position(|&label| usize::from(label) >= class_names.len()) {
        let expected = format!("in [0, {})", class_names.len());
        return Err(labels.malformed(start + bad as u64, "label", expected, classes[bad].to_string()));
    }
    let classes: Vec<_> = classes.into_iter().map(|label| Some(label.into())).collect();
    ImageDataset::new(pixels, [1, height as usize, width as usize], &classes, class_names)
}

fn header<const D: usize>(reader: &mut FieldReader, fields: [&'static str; D]) -> Result<[u32; D]> {
    let expected = 0x0800 | D as u32;
    let magic = reader.u32_be("magic number")?;
    if magic != expected {
        let expected = format!("{expected:#010x} (unsigned bytes, {D} dimensions)");
        return Err(reader.malformed(0, "magic number", expected, format!("{magic:#010x}")));
    }
    let mut dimensions = [0; D];
    for (dimension, field) in dimensions.iter_mut().zip(fields) {
        *dimension = reader.u32_be(field)?;
    }
    Ok(dimensions)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Two images of 1 x 3 pixels.
    fn images() -> Vec<u8> {
        vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 10, 20, 30, 40, 50, 60]
    }

    fn labels() -> Vec<u8> {
        vec![0, 0, 8, 1, 0, 0, 0, 2, 1, 0]
    }

    fn parse(images: &[u8], labels: &[u8]) -> Result<ImageDataset> {
        let classes = vec!["a".to_string(), "b".to_string()];
        dataset(FieldReader::new("images", images)?, FieldReader::new("labels", labels)?, classes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(dataset: &ImageDataset) {
        assert_eq!((dataset.len(), dataset.shape()), (2, [1, 1, 3]));
        assert_eq!(dataset.item(1).pixels(), [40, 50, 60]);
        assert_eq!(dataset.labels().collect::<Vec<_>>(), [Some(1), Some(0)]);
    }

    #[test]
    fn plain_and_compressed_bytes_are_read() {
        check(&parse(&images(), &labels()).unwrap());
        check(&parse(&gzip(&images()), &gzip(&labels())).unwrap());
    }

    #[test]
    fn a_folder_is_read_whatever_is_compressed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t10k-images-idx3-ubyte.gz"), gzip(&images())).unwrap();
        fs::write(dir.path().join("t10k-labels-idx1-ubyte"), labels()).unwrap();
        check(&ImageDataset::mnist(dir.path(), Split::Test).unwrap());
        let dataset = ImageDataset::fashion_mnist(dir.path(), Split::Test).unwrap();
        assert_eq!(dataset.class_names()[9], "Ankle boot");
        let missing = ImageDataset::mnist(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(missing.contains("train-images-idx3-ubyte"), "{missing}");
    }

    #[test]
    fn errors_name_file_byte_field_expected_and_found() {
        let error = |images: &[u8], labels: &[u8]| parse(images, labels).unwrap_err().to_string();
        assert_eq!(
            error(&labels(), &labels()),
            "images: byte 0: magic number must be 0x00000803 (unsigned bytes, 3 dimensions), got 0x00000801"
        );
        assert_eq!(
            error(&images()[..20], &labels()),
            "images: byte 16: pixels must be 6 bytes, got only 4, the file ends"
        );
        assert_eq!(
            error(&images()[..9], &labels()),
            "images: byte 8: height must be 4 bytes, got only 1, the file ends"
        );
        let mut longer = images();
        longer.push(0);
        assert_eq!(error(&longer, &labels()), "images: byte 22: bytes after the end must be 0, got 1 or more");
        assert_eq!(
            error(&images(), &[0, 0, 8, 1, 0, 0, 0, 3, 0, 0, 0]),
            "labels: byte 4: number of labels must be 2, one per image, got 3"
        );
        assert_eq!(error(&images(), &[0, 0, 8, 1, 0, 0, 0, 2, 0, 2]), "labels: byte 9: label must be in [0, 2), got 2");
        let compressed = gzip(&images());
        let cut = error(&compressed[..compressed.len() - 9], &labels());
        assert!(cut.starts_with("images: byte ") && cut.contains("damaged compressed data"), "{cut}");
        let flat = error(&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3], &labels());
        assert_eq!(flat, "images: byte 8: height and width must be at least 1 x 1, got 0 x 3");
    }

    #[test]
    fn a_header_that_claims_too_much_does_not_allocate() {
        let claims = [&[0, 0, 8, 3][..], &[0xff; 12], &[1, 2, 3]].concat();
        let error = parse(&claims, &labels()).unwrap_err().to_string();
        assert!(error.ends_with("got only 3, the file ends"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(images in prop::collection::vec(any::<u8>(), 0..64), labels in prop::collection::vec(any::<u8>(), 0..32)) {
            let _ = parse(&images, &labels);
            let _ = parse(&[&[0x1f, 0x8b, 8, 0][..], &images].concat(), &labels);
        }

        #[test]
        fn a_header_with_any_dimensions_does_not_panic(dimensions: [u32; 3], tail in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = vec![0, 0, 8, 3];
            bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_be_bytes()));
            bytes.extend(tail);
            let _ = parse(&bytes, &labels());
        }

        #[test]
        fn every_truncation_is_an_error(cut in 0usize..22, which: bool, compressed: bool) {
            let (mut images, mut labels) = (images(), labels());
            if compressed {
                (images, labels) = (gzip(&images), gzip(&labels));
            }
            let shorter = if which { &mut images } else { &mut labels };
            shorter.truncate(cut.min(shorter.len() - 1));
            prop_assert!(parse(&images, &labels).is_err());
        }

        #[test]
        fn every_changed_header_byte_is_an_error(at in 0usize..16, change in 1u8..=255) {
            let mut images = images();
            images[at] ^= change;
            // Swapping height and width keeps the size; one byte cannot do that.
            prop_assert!(parse(&images, &labels()).is_err());
        }
    }
}
