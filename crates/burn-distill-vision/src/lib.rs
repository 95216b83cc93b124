//! ResNet students and teachers, image datasets and augmentation for burn-distill

mod error;

pub use error::VisionError;

mod resnet;

pub use resnet::{ResNet, ResNetBlock, ResNetConfig, ResNetOutput, ResNetStem, Stage};
