//! Distillation runs: an [`Objective`] of named terms, the [`Distiller`] that burn-train trains, and
//! [`Distillation`], which starts a run in a few lines, resumes it after a kill to the same numbers, and leaves the best
//! student, the metrics and a report.

mod buffers;
mod checkpoint;
mod distillation;
mod distiller;
mod error;
mod evaluate;
mod export;
mod folder;
mod from_epoch;
mod gradients;
mod history;
mod metric;
mod objective;
mod optimizer;
mod output;
mod progress;
mod report;
mod run;
mod scheduler;
mod state;
mod summary;
mod temperature;

pub use checkpoint::CheckpointError;
pub use distillation::{Distillation, Resume, Trained};
pub use distiller::Distiller;
pub use error::TrainError;
pub use evaluate::evaluate;
pub use history::Monitor;
pub use objective::{Classification, NoParts, Objective, View};
pub use optimizer::{NORMS_AND_BIASES, OptimizerConfig, OptimizerRule, WeightDecay};
pub use output::DistillOutput;
pub use progress::Progress;
pub use report::{MetricsRow, Report, ReportError, Table, read_metrics};
pub use scheduler::LearningRate;
pub use state::NonFinite;
pub use temperature::Temperature;
