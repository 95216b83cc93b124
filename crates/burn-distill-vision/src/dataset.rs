//! Images in memory, with a label where there is one.

use std::sync::{Arc, OnceLock};

use burn::data::dataset::{Dataset, DatasetError};
use sha2::{Digest, Sha256};

use crate::error::{Result, VisionError};

/// Which part of a published dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Split {
    /// The images to train on.
    Train,
    /// The images to report the accuracy on.
    Test,
}

/// One image and its label. Cloning it does not copy the pixels.
#[derive(Clone, Debug)]
pub struct ImageItem {
    source: Arc<[u8]>,
    start: usize,
    shape: [usize; 3],
    label: Option<u32>,
    dataset: u64,
}

impl ImageItem {
    /// An image of its own.
    ///
    /// `pixels` is row-major `[channels, height, width]`, `shape` says these three.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] unless `pixels` has one byte for every element of `shape`.
    pub fn new(pixels: impl Into<Arc<[u8]>>, shape: [usize; 3], label: Option<u32>) -> Result<Self> {
        let source = pixels.into();
        let expected = elements(shape)?;
        if source.len() != expected {
            return Err(VisionError::out_of_range("pixels.len()", format!("{{{expected}}}"), source.len()));
        }
        Ok(Self { source, start: 0, shape, label, dataset: 0 })
    }

    /// The pixels in `0..=255`, row-major `[channels, height, width]`.
    pub fn pixels(&self) -> &[u8] {
        &self.source[self.start..self.start + self.shape.iter().product::<usize>()]
    }

    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The class; `None` if it is not known.
    pub fn label(&self) -> Option<u32> {
        self.label
    }

    /// The [`ImageDataset::id`] of the data set it came from; 0 for an image of its own.
    pub fn dataset(&self) -> u64 {
        self.dataset
    }
}

/// One image of a dataset: where its pixels are, and its class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) row: usize,
    pub(crate) label: Option<u32>,
}

/// Images of one size in memory, each with a class or without.
///
/// Cloning it, and every subset of it, shares the pixels.
///
/// # Example
/// ```
/// use burn_distill_vision::ImageDataset;
///
/// // Two grey images of 1 x 2 pixels, the second without a label.
/// let classes = vec!["cat".to_string(), "dog".to_string()];
/// let dataset = ImageDataset::new(vec![0, 50, 100, 150], [1, 1, 2], &[Some(1), None], classes)?;
/// assert_eq!(dataset.item(1).pixels(), [100, 150]);
/// assert_eq!(dataset.num_labelled(), 1);
/// # Ok::<(), burn_distill_vision::VisionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageDataset {
    pixels: Arc<[u8]>,
    shape: [usize; 3],
    pub(crate) samples: Arc<[Sample]>,
    class_names: Arc<[String]>,
    /// Found when it is first asked for.
    id: Arc<OnceLock<u64>>,
}

impl ImageDataset {
    /// A dataset from its parts.
    ///
    /// `pixels` is row-major `[samples, channels, height, width]`, `shape` says the last three, `labels` has one entry
    /// per sample (`None`: unlabelled), each below `class_names.len()`.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if a dimension is 0, a label is not a class, or `pixels` and `labels` do not agree
    /// about the number of samples.
    pub fn new(pixels: Vec<u8>, shape: [usize; 3], labels: &[Option<u32>], class_names: Vec<String>) -> Result<Self> {
        let expected = labels.len().checked_mul(elements(shape)?);
        if expected != Some(pixels.len()) {
            let range =
                format!("{{labels.len() * channels * height * width}} for {} labels of {shape:?}", labels.len());
            return Err(VisionError::out_of_range("pixels.len()", range, pixels.len()));
        }
        let classes = class_names.len();
        if let Some(label) = labels.iter().flatten().find(|&&label| label as usize >= classes) {
            return Err(VisionError::out_of_range("label", format!("[0, {classes})"), label));
        }
        let samples = labels.iter().enumerate().map(|(row, &label)| Sample { row, label }).collect();
        Ok(Self { pixels: pixels.into(), shape, samples, class_names: class_names.into(), id: Arc::default() })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// `[channels, height, width]` of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The name of every class; the position is the label.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The number of classes, whether or not an image of each is present.
    pub fn num_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The number of images that have a label.
    pub fn num_labelled(&self) -> usize {
        self.labels().flatten().count()
    }

    /// The label of every image, in order.
    pub fn labels(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.samples.iter().map(|sample| sample.label)
    }

    /// The image at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn item(&self, index: usize) -> ImageItem {
        let Sample { row, label } = self.samples[index];
        let (source, dataset) = (self.pixels.clone(), self.id());
        ImageItem { source, start: row * self.bytes(), shape: self.shape, label, dataset }
    }

    /// The SHA-256, in hexadecimal, of the shape and of all pixels in order: what a teacher sees.
    ///
    /// It does not depend on the labels, so a cache of a teacher's outputs stays valid when labels are removed.
    pub fn fingerprint(&self) -> String {
        sha256(|hash| {
            for &dimension in [self.len()].iter().chain(&self.shape) {
                hash(&(dimension as u64).to_le_bytes());
            }
            for sample in self.samples.iter() {
                hash(&self.pixels[sample.row * self.bytes()..][..self.bytes()]);
            }
        })
    }

    /// The first 64 bits of the [`fingerprint`](Self::fingerprint): which data set an image of a batch came from.
    pub fn id(&self) -> u64 {
        let id = || {
            let text = self.fingerprint();
            u64::from_str_radix(&text[..16], 16).expect("a fingerprint is 64 hexadecimal digits")
        };
        *self.id.get_or_init(id)
    }

    /// The given samples of the same pixels.
    pub(crate) fn with_samples(&self, samples: impl Iterator<Item = Sample>) -> Self {
        Self { samples: samples.collect(), id: Arc::default(), ..self.clone() }
    }

    /// Bytes per image.
    fn bytes(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Dataset<ImageItem> for ImageDataset {
    fn get(&self, index: usize) -> std::result::Result<ImageItem, DatasetError> {
        Ok(self.item(index))
    }

    fn len(&self) -> usize {
        self.len()
    }
}

fn elements(shape: [usize; 3]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |product, &dimension| product.checked_mul(dimension));
    match product {
        Some(product) if product > 0 => Ok(product),
        _ => Err(VisionError::out_of_range("shape", "[1, usize::MAX] bytes", format!("{shape:?}"))),
    }
}

/// The SHA-256, in hexadecimal, of all that `feed` hands to its argument.
pub(crate) fn sha256(feed: impl FnOnce(&mut dyn FnMut(&[u8]))) -> String {
    let mut hash = Sha256::new();
    feed(&mut |bytes| hash.update(bytes));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `labels.len()` images of one pixel; the pixel is the position.
    fn numbered(labels: &[Option<u32>], classes: usize) -> ImageDataset {
        let pixels = (0..labels.len() as u8).collect();
        ImageDataset::new(pixels, [1, 1, 1], labels, (0..classes).map(|class| class.to_string()).collect()).unwrap()
    }

    #[test]
    fn parts_that_do_not_agree_are_refused() {
        let message = |result: Result<ImageDataset>| result.unwrap_err().to_string();
        let names = || vec!["a".to_string()];
        assert_eq!(
            message(ImageDataset::new(vec![0; 2], [1, 1, 1], &[Some(0), Some(1)], names())),
            "`label` must be in [0, 1), got 1"
        );
        assert!(message(ImageDataset::new(vec![0; 3], [1, 1, 2], &[None], names())).contains("got 3"));
        assert!(message(ImageDataset::new(vec![], [1, 0, 2], &[None], names())).starts_with("`shape`"));
        assert!(message(ImageDataset::new(vec![], [usize::MAX, 2, 2], &[None], names())).starts_with("`shape`"));
        let item = ImageItem::new(vec![0; 3], [1, 2, 2], None).unwrap_err();
        assert_eq!(item.to_string(), "`pixels.len()` must be in {4}, got 3");
    }

    #[test]
    fn take_and_the_dataset_trait_agree_with_item() {
        let dataset = numbered(&[Some(0), None, Some(0)], 1).take(2);
        assert_eq!(Dataset::len(&dataset), 2);
        assert_eq!(dataset.get(1).unwrap().pixels(), [1]);
        assert_eq!(dataset.get(1).unwrap().label(), None);
        assert_eq!(dataset.take(9).len(), 2);
        assert!(dataset.take(0).is_empty());
    }

    #[test]
    fn the_fingerprint_depends_on_order_and_shape() {
        let one =
            |pixels: Vec<u8>, shape, n| ImageDataset::new(pixels, shape, &vec![None; n], vec![]).unwrap().fingerprint();
        let base = one(vec![1, 2, 3, 4], [1, 1, 2], 2);
        assert_ne!(base, one(vec![3, 4, 1, 2], [1, 1, 2], 2));
        assert_ne!(base, one(vec![1, 2, 3, 4], [1, 2, 1], 2));
        assert_ne!(base, one(vec![1, 2, 3, 4], [1, 2, 2], 1));
        assert_eq!(base.len(), 64);
    }

    #[test]
    fn an_image_knows_its_data_set() {
        let dataset = numbered(&[Some(0), None, Some(0)], 1);
        let part = dataset.take(2);
        assert_eq!(format!("{:016x}", dataset.id()), dataset.fingerprint()[..16]);
        assert_eq!((dataset.item(1).dataset(), part.item(1).dataset()), (dataset.id(), part.id()));
        assert_ne!(dataset.id(), part.id());
        assert_eq!(ImageItem::new(vec![0], [1, 1, 1], None).unwrap().dataset(), 0);
    }
}
