//! The command line.

use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::methods::Method;

/// What does a student gain from a teacher's soft targets, over labels alone?
///
/// Trains the same student from the same seeds in several ways and compares them on test images that none of them saw.
#[derive(Parser, Clone, Debug, Serialize)]
#[command(name = "resnet_kd", version)]
pub(crate) struct Args {
    /// The images. The default needs no files: Fashion-MNIST is inside the program.
    #[arg(long, value_enum, default_value_t = DatasetName::FashionMnist)]
    pub(crate) dataset: DatasetName,
    /// The folder of the full data set (IDX or binary files, or `class/file.png` for `folder`).
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The teacher's architecture.
    #[arg(long, value_name = "NAME", default_value = "resnet20")]
    pub(crate) teacher_arch: String,
    /// The teacher's weights (`.safetensors`, `.pth`). The default is inside the program, for Fashion-MNIST.
    #[arg(long, value_name = "FILE")]
    pub(crate) teacher: Option<PathBuf>,
    /// Trains the teacher instead of students, on all training images, and writes it to `--out`.
    #[arg(long)]
    pub(crate) train_teacher: bool,
    /// The student's architecture.
    #[arg(long, value_name = "NAME", default_value = "resnet8")]
    pub(crate) student_arch: String,
    /// What is compared with labels alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Method::Kd, Method::KdAt])]
    pub(crate) loss: Vec<Method>,
    /// How many training images the student sees, balanced over classes; 0 for all [default: 800].
    #[arg(long, value_name = "N")]
    pub(crate) images: Option<usize>,
    /// How many training images are held out to choose the best epoch [default: 200, or 500 for the teacher].
    #[arg(long, value_name = "N")]
    pub(crate) held_out: Option<usize>,
    /// How many times the images are seen [default: 3, or 12 for the teacher].
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// How many seeds each method is run with [default: 3].
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<usize>,
    /// Images per step [default: 8, or 64 for the teacher].
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// The peak of the learning rate [default: 0.03, or 0.1 for the teacher].
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// The temperature at the first and at the last step, and in between along a cosine.
    #[arg(long, value_names = ["FIRST", "LAST"], num_args = 2, default_values_t = [4.0, 1.0])]
    pub(crate) temperature: Vec<f64>,
    /// The share of the soft targets; the labels have the rest. DKD, DIST and features without KD stand beside labels of
    /// weight 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    pub(crate) soft_weight: f64,
    /// Keeps the teacher's logits in this folder and asks it only for what is not there. For methods that compare
    /// logits alone; it pays with `--views`, with several such methods, or when they are run again.
    #[arg(long, value_name = "DIR")]
    pub(crate) teacher_cache: Option<PathBuf>,
    /// After how many epochs the augmented views repeat [default: never].
    #[arg(long, value_name = "N")]
    pub(crate) views: Option<usize>,
    /// Where the models run.
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    pub(crate) device: DeviceName,
    /// Writes the table with gains and times, as Markdown, to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Where runs, reports and the table go. A run that was stopped goes on from there.
    #[arg(long, value_name = "DIR", default_value = "runs/resnet_kd")]
    pub(crate) out: PathBuf,
    /// One line per epoch even where there is a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Forgets what an earlier run left in `--out` and starts at the beginning.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// A few steps of everything, to see that it runs; the numbers mean nothing.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Where images come from.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum DatasetName {
    FashionMnist,
    Mnist,
    Cifar10,
    Cifar100,
    Folder,
}

/// Burn's backends.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum DeviceName {
    Flex,
    Libtorch,
    Wgpu,
    Vulkan,
    Cuda,
}

impl DeviceName {
    /// The device, or the feature that is missing for it.
    pub(crate) fn device(self) -> anyhow::Result<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "libtorch")]
            #[allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")]
            Self::Libtorch => Ok(Device::libtorch()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(Default::default())),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(Default::default())),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "reached where a backend is not compiled in")]
            missing => {
                let feature = format!("{missing:?}").to_lowercase();
                anyhow::bail!("`--device {feature}` needs the feature: cargo run --release --features {feature} ...")
            }
        }
    }
}

impl Args {
    pub(crate) fn images(&self) -> usize {
        self.images.unwrap_or(if self.quick { 100 } else { 800 })
    }

    pub(crate) fn epochs(&self) -> usize {
        self.epochs.unwrap_or(match (self.quick, self.train_teacher) {
            (true, _) => 1,
            (false, true) => 12,
            (false, false) => 3,
        })
    }

    pub(crate) fn held_out(&self) -> usize {
        self.held_out.unwrap_or(if self.train_teacher { 500 } else { 200 })
    }

    pub(crate) fn batch_size(&self) -> usize {
        self.batch_size.unwrap_or(if self.train_teacher { 64 } else { 8 })
    }

    pub(crate) fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(if self.train_teacher { 0.1 } else { 0.03 })
    }

    pub(crate) fn seeds(&self) -> usize {
        self.seeds.unwrap_or(if self.quick { 1 } else { 3 })
    }
}
