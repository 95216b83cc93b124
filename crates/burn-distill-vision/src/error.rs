//! The crate's error type.

use std::error::Error;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub(crate) type Result<T, E = VisionError> = std::result::Result<T, E>;

/// What can go wrong with models, weights and datasets of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisionError {
    /// An argument or a field of a configuration is outside its range.
    #[error("`{field}` must be in {range}, got {given}")]
    OutOfRange {
        /// The argument or field.
        field: &'static str,
        /// The values it may take.
        range: String,
        /// The value it was given.
        given: String,
    },
    /// No architecture has this name.
    #[error("unknown architecture `{name}`, known are {known}")]
    UnknownArchitecture {
        /// The name that was asked for.
        name: String,
        /// All names that exist, separated by commas.
        known: String,
    },
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A dataset file does not hold what its format promises.
    #[error("{}: byte {offset}: {field} must be {expected}, got {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the field begins, counted in decompressed bytes.
        offset: u64,
        /// The field of the format.
        field: &'static str,
        /// What the format promises there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file is not an image that can be decoded.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: image::ImageError,
    },
    /// A folder that should hold images holds none.
    #[error("{}: no png or jpeg image", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },
    /// The images of a folder differ in size.
    #[error(
        "{}: height x width must be {} x {}, got {} x {}",
        path.display(), expected[0], expected[1], found[0], found[1]
    )]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// `[height, width]` of the images before it.
        expected: [usize; 2],
        /// `[height, width]` of this image.
        found: [usize; 2],
    },
    /// A dataset could not be downloaded.
    #[error("{url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// Why it is not there.
        reason: String,
    },
    /// A file is not a readable set of weights: cut short, damaged, or of another format.
    #[error("{} holds no readable weights: {source}", path.display())]
    UnreadableWeights {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The model has a tensor that the weights file lacks.
    #[error("{} lacks tensor `{tensor}` of shape {expected:?} ({count} missing in all)", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The first missing tensor, in the order of the model.
        tensor: String,
        /// The shape the model gives it.
        expected: Vec<usize>,
        /// How many tensors are missing.
        count: usize,
    },
    /// The weights file has a tensor that the model lacks.
    #[error("{} has tensor `{tensor}` of shape {found:?}, which this model lacks ({count} such in all)", path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The first tensor the model lacks, in alphabetical order.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// How many tensors the model lacks.
        count: usize,
    },
    /// A tensor has another shape in the weights file than in the model.
    #[error("tensor `{tensor}` must have shape {expected:?}, got {found:?} in {}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape in the model.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of the weights file does not hold floating-point numbers.
    #[error("tensor `{tensor}` must be F64, F32, F16 or BF16, got {found} in {}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type in the file.
        found: String,
    },
    /// A weights file does not say which architecture it belongs to.
    #[error("{} names no architecture, load it with `ResNetConfig::load`", path.display())]
    MissingArchitecture {
        /// The file.
        path: PathBuf,
    },
}

impl VisionError {
    pub(crate) fn out_of_range(field: &'static str, range: impl Into<String>, given: impl ToString) -> Self {
        Self::OutOfRange { field, range: range.into(), given: given.to_string() }
    }

    /// An [`Io`](Self::Io) error at `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
