//! ResNet students and teachers, image datasets and augmentation for burn-distill

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

pub use augment::{Augment, AugmentConfig, PaddingMode};
pub use batch::{ImageBatch, ImageBatcher};
pub use dataset::{ImageDataset, ImageItem, Split};
pub use image_folder::ImageFolderConfig;
pub use normalization::Normalization;
pub use published::PublishedDataset;
