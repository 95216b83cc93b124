//! Honest evaluation of students: what a student keeps of its teacher's accuracy, and what it saves.
//!
//! | question | use |
//! |---|---|
//! | how good is the student, and how close to its teacher? | [`ClassificationStats`] |
//! | are its probabilities to be believed? | [`CalibrationBins`] |
//! | how large is it, in parameters and in bytes? | [`parameter_count`], [`weight_bytes`] |
//! | how fast, and with how much memory? | [`compare_latency`], [`measure_latency`], [`peak_memory`] |
//! | all of that beside the teacher | [`Comparison`] |
//! | is the gain larger than the noise between seeds? | [`Summary`], [`paired_difference`] |
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use burn_distill_eval::ClassificationStats;
//!
//! let device = Device::flex();
//! let student = Tensor::<2>::from_floats([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], &device);
//! let teacher = Tensor::<2>::from_floats([[4.0, 0.0], [2.0, 1.0], [5.0, 1.0]], &device);
//! let targets = Tensor::<1, Int>::from_ints([0, 1, 1], &device);
//! let stats = ClassificationStats::of(student, Some(teacher), Some(targets), None);
//! assert_eq!(stats.metrics()["accuracy"], 2.0 / 3.0);
//! assert_eq!(stats.metrics()["agreement"], 2.0 / 3.0);
//! ```

mod calibration;
mod classification;
mod comparison;
mod error;
mod latency;
mod mean;
mod memory;
mod profile;
mod row;
mod summary;

pub use burn_distill_models::{parameter_count, weight_bytes};
pub use calibration::{CalibrationBin, CalibrationBins};
pub use classification::{ClassificationStats, agreement, kl_to_teacher, negative_log_likelihood, top_k_accuracy};
pub use comparison::{Comparison, ComparisonRow};
pub use error::EvalError;
pub use latency::{Latency, LatencyConfig, compare_latency, measure_latency};
pub use mean::Mean;
pub use memory::{PeakMemory, peak_memory};
pub use profile::ModelProfile;
pub use summary::{Summary, paired_difference};
