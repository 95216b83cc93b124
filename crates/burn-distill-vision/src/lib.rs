//! ResNet students and teachers, image datasets and augmentation for burn-distill
//!
//! # Data
//!
//! | to have | use |
//! |---|---|
//! | images without files or a network | [`ImageDataset::fashion_mnist_embedded`] |
//! | Fashion-MNIST, MNIST, CIFAR-10, CIFAR-100 from a folder | [`PublishedDataset::read`] |
//! | the same from the network (feature `download`) | `PublishedDataset::download` |
//! | your own `class/file.png` | [`ImageDataset::image_folder`] |
//! | fewer images, or fewer labels | [`ImageDataset::balanced_subset`], [`ImageDataset::without_labels`] |
//! | crop, flip, cutout, mixup, cutmix | [`AugmentConfig`] |
//! | batches of all that | [`ImageBatcher`] |

mod error;

pub use error::VisionError;

mod resnet;

pub use resnet::{ResNet, ResNetBlock, ResNetConfig, ResNetOutput, ResNetStem, Stage};

mod augment;
mod batch;
mod cifar;
mod dataset;
#[cfg(feature = "download")]
mod download;
mod embedded;
mod idx;
mod image_folder;
mod mix;
mod normalization;
mod published;
mod random;
mod read;
mod subset;

pub use augment::{Augment, AugmentConfig, PaddingMode};
pub use batch::{ImageBatch, ImageBatcher};
pub use dataset::{ImageDataset, ImageItem, Split};
pub use image_folder::ImageFolderConfig;
pub use normalization::Normalization;
pub use published::PublishedDataset;
