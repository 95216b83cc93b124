//! Distillation runs: an [`Objective`] of named terms, the [`Distiller`] that burn-train trains, and
//! [`Distillation`], which starts a run in a few lines, resumes it after a kill to the same numbers, and leaves the best
//! student, the metrics and a report.
//!
//! # Example
//!
//! A teacher that knows the answer, a student that has only the teacher: no labels.
//!
//! ```
//! use std::sync::Arc;
//! use burn::data::{dataloader::{DataLoader, batcher::Batcher}, dataset::InMemDataset};
//! use burn::{module::Module, nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
//! use burn_distill_losses::KdLossConfig;
//! use burn_distill_models::{Frozen, Seeded, SeededLoader, SeededLoaderConfig, Student};
//! use burn_distill_schedules::Schedule;
//! use burn_distill_train::{Classification, Distillation, Progress};
//!
//! #[derive(Module, Debug)]
//! struct Classifier { layer: Linear }
//!
//! impl Student<Tensor<2>> for Classifier {
//!     type Output = Tensor<2>;
//!     fn forward(&self, batch: &Tensor<2>) -> Tensor<2> { self.layer.forward(batch.clone()) }
//! }
//!
//! struct Stack;
//! impl Batcher<Seeded<[f32; 2]>, Tensor<2>> for Stack {
//!     fn batch(&self, items: Vec<Seeded<[f32; 2]>>, device: &Device) -> Tensor<2> {
//!         Tensor::cat(items.iter().map(|item| Tensor::from_floats([item.item], device)).collect(), 0)
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let classifier = || Classifier { layer: LinearConfig::new(2, 3).init(&device) };
//! let points: Vec<[f32; 2]> = (0..64).map(|i| [(i as f32).sin(), (1.7 * i as f32).cos()]).collect();
//! let loader = |shuffle| -> Result<Arc<dyn DataLoader<Tensor<2>>>, burn_distill_models::ModelError> {
//!     let config = SeededLoaderConfig::new(8).with_shuffle(shuffle);
//!     Ok(Arc::new(SeededLoader::new(Arc::new(InMemDataset::new(points.clone())), Stack, config)?))
//! };
//! let folder = tempfile::tempdir()?;
//! let kd = KdLossConfig::new().init()?;
//!
//! let trained = Distillation::new(classifier(), Frozen::new(classifier()), loader(true)?, loader(false)?)
//!     .temperature(Schedule::cosine(4.0, 1.0, 80)?)
//!     .term("kd", 1.0, move |view| {
//!         kd.at_temperature(view.temperature).forward(view.student.clone(), view.teacher.clone(), None)
//!     })
//!     .classification(|view| Classification {
//!         student_logits: view.student.clone(),
//!         teacher_logits: Some(view.teacher.clone()),
//!         targets: None,
//!         labelled: None,
//!     })
//!     .learning_rate(0.1)
//!     .epochs(10)
//!     .folder(folder.path())
//!     .progress(Progress::Silent)
//!     .run()?;
//!
//! assert!(trained.best("agreement") > Some(0.9));
//! assert!(folder.path().join("student.safetensors").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The run's folder
//!
//! | file | what it holds |
//! |---|---|
//! | `config.json` | every setting, what [`Distillation::config`] was given, and the teacher's fingerprint |
//! | `metrics.jsonl` | a line per epoch and split ([`MetricsRow`]); what has no value is absent, what is not finite is `null` |
//! | `checkpoint/epoch-0007.json` | the manifest: step, configuration, teacher, size and hash of each part |
//! | `checkpoint/epoch-0007-model.bpk` | student and learned parts; the teacher only where it is the student's average |
//! | `checkpoint/epoch-0007-optimizer.bpk`, `-schedules.bpk` | the optimiser's state; gap temperature and plateau |
//! | `student.safetensors` | the student of the best epoch |
//! | `report.html` | curves, the best epoch, teacher against student |
//!
//! The last two checkpoints and the best one stay. A checkpoint without its manifest does not exist, and the manifest
//! comes last, so a kill at any moment leaves whole checkpoints alone.
//!
//! # Resuming
//!
//! A run that is killed and started again with the same settings goes on after its last whole epoch, and ends with the
//! same weights and metrics, bit for bit, as one that never stopped: data order, augmentation and dropout included.
//! That holds on the same machine, with the same number of threads, on one device whose kernels are deterministic
//! (`flex` is), for loaders whose order and views depend on nothing but their seed and how often they were iterated:
//! [`SeededLoader`](burn_distill_models::SeededLoader), and Burn's own with one worker or none, made anew in each
//! process. It does not hold
//!
//! - for Burn's loader with several workers, whose batches arrive in the order in which threads finish;
//! - for augmentation from a generator of its own, or from the device's, which dropout uses;
//! - for dropout on several devices that share one generator, as two `flex` devices do;
//! - where terms, models, or data changed without a trace in the configuration: closures and files cannot be compared,
//!   so name data, augmentation and architecture in [`Distillation::config`], which is.
//!
//! A checkpoint that is damaged, of another configuration or of another teacher is refused by a [`CheckpointError`] that
//! names the file and the field.
//!
//! # Several devices
//!
//! [`Distillation::devices`] takes burn-train's strategies. `MultiDevice` gives each device a slice of the data; the
//! step is the mean over devices of equally large batches, and clipping is by the norm of that mean, with either
//! placement of the optimiser. Batch-norm statistics are the mean of the devices' own. `DistributedDataParallel` is
//! refused: its workers would each count the steps of the one run.

mod allocator;
mod balance;
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
mod prefetch;
mod progress;
mod report;
mod run;
mod scheduler;
mod state;
mod summary;
mod task;
mod taught;
mod teacher_cache;
mod temperature;

pub use allocator::keep_freed_memory;
pub use balance::Balance;
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
pub use task::Task;
pub use teacher_cache::{
    CacheCounts, CacheIdentity, CachedOutput, CachedTeacher, OfflineTeacher, TeacherCache, TeacherCacheError,
};
pub use temperature::Temperature;
