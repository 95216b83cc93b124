use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::ExecutionStrategy;
use burn_distill_models::{OnDevice, Student, Teacher};
use burn_distill_schedules::Schedule;

use crate::history::Monitor;
use crate::objective::{Classification, NoParts, Objective, View};
use crate::prefetch::Prefetch;
use crate::progress::Progress;
use crate::report::MetricsRow;
use crate::run::Prepared;
use crate::scheduler::LearningRate;
use crate::state::NonFinite;
use crate::{Balance, OptimizerConfig, Task, Temperature, TrainError};

/// Whether a run goes on from a checkpoint in its folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// If there is one it goes on from it, and refuses one that does not fit; otherwise it starts at the beginning.
    #[default]
    Auto,
    /// Starts at the beginning and deletes what an earlier run left in the folder.
    Never,
}

type Export<S> = Box<dyn Fn(&S, &Path) -> Result<(), String>>;

/// A distillation run: who learns from whom, on what, how, and where to. Built step by step, started by
/// [`run`](Self::run).
///
/// It drives burn-train's `SupervisedTraining`, which brings the dashboard, gradient accumulation and devices.
///
/// The folder then holds `config.json`, `metrics.jsonl` (one line per epoch and split), `checkpoint/`,
/// `student.safetensors` (the best epoch's) and `report.html`.
pub struct Distillation<S: Student<B>, T: Teacher<B>, B, P = NoParts> {
    pub(crate) student: S,
    pub(crate) teacher: T,
    pub(crate) objective: Objective<S::Output, T::Output, B, P>,
    pub(crate) train: Arc<dyn DataLoader<B>>,
    pub(crate) valid: Arc<dyn DataLoader<B>>,
    pub(crate) settings: Settings<S>,
    pub(crate) prefetch: Option<Prefetch<T, B>>,
}

pub(crate) struct Settings<S> {
    pub(crate) folder: PathBuf,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
    pub(crate) optimizer: OptimizerConfig,
    pub(crate) learning_rate: LearningRate,
    pub(crate) max_grad_norm: Option<f64>,
    pub(crate) accumulation: usize,
    pub(crate) non_finite: NonFinite,
    pub(crate) monitor: Option<Monitor>,
    pub(crate) patience: Option<usize>,
    pub(crate) keep: usize,
    pub(crate) resume: Resume,
    pub(crate) progress: Progress,
    pub(crate) label: Option<String>,
    pub(crate) item_name: String,
    pub(crate) strategy: Option<ExecutionStrategy>,
    pub(crate) config: serde_json::Value,
    pub(crate) export: Option<Export<S>>,
    pub(crate) multiply_adds: Option<(u64, u64)>,
}

/// What a run leaves in memory.
#[derive(Debug)]
pub struct Trained<S, P = NoParts> {
    /// The student of the best epoch, in inference mode.
    pub student: S,
    /// The learned parts of the objective of that epoch, in inference mode.
    pub parts: P,
    /// The best epoch, counted from 1.
    pub best_epoch: usize,
    /// The rows of `metrics.jsonl`.
    pub metrics: Vec<MetricsRow>,
    /// How many batches were left out because a value was not finite.
    pub skipped_batches: usize,
    /// How many optimiser steps were taken.
    pub steps: usize,
    /// The run's folder.
    pub folder: PathBuf,
}

impl<S, P> Trained<S, P> {
    /// A metric of the validation data at the best epoch.
    pub fn best(&self, metric: &str) -> Option<f64> {
        let row = self.metrics.iter().find(|row| row.epoch == self.best_epoch && row.split == "valid")?;
        row.metrics.get(metric).copied()
    }

    /// A metric of the validation data at the last epoch.
    pub fn last(&self, metric: &str) -> Option<f64> {
        let row = self.metrics.iter().rev().find(|row| row.split == "valid")?;
        row.metrics.get(metric).copied()
    }
}

impl<S, T, B> Distillation<S, T, B>
where
    S: Student<B> + 'static,
    T: Teacher<B> + 'static,
    B: Send + 'static,
    S::Output: 'static,
    T::Output: 'static,
{
    /// A run of `student` under `teacher` on these batches, without terms yet.
    pub fn new(student: S, teacher: T, train: Arc<dyn DataLoader<B>>, valid: Arc<dyn DataLoader<B>>) -> Self {
        Self::with_objective(student, teacher, Objective::new(), train, valid)
    }

    /// Gives the objective learned parts, such as connectors. Comes before the terms, which see them.
    pub fn parts<P: Module>(self, parts: P) -> Distillation<S, T, B, P> {
        let objective = Objective::with_parts(parts);
        let Self { student, teacher, train, valid, settings, prefetch, .. } = self;
        Distillation { student, teacher, objective, train, valid, settings, prefetch }
    }
}

impl<S, T, B, P> Distillation<S, T, B, P>
where
    S: Student<B> + 'static,
    T: Teacher<B> + 'static,
    B: Send + 'static,
    P: Module + 'static,
    S::Output: 'static,
    T::Output: 'static,
{
    /// A run with an objective made elsewhere.
    pub fn with_objective(
        student: S,
        teacher: T,
        objective: Objective<S::Output, T::Output, B, P>,
        train: Arc<dyn DataLoader<B>>,
        valid: Arc<dyn DataLoader<B>>,
    ) -> Self {
        let settings = Settings {
            folder: "runs/distillation".into(),
            epochs: 1,
            seed: 0,
            optimizer: OptimizerConfig::adam(),
            learning_rate: 1e-3.into(),
            max_grad_norm: None,
            accumulation: 1,
            non_finite: NonFinite::Stop,
            monitor: None,
            patience: None,
            keep: 2,
            resume: Resume::Auto,
            progress: Progress::Auto,
            label: None,
            item_name: "samples".into(),
            strategy: None,
            config: serde_json::Value::Null,
            export: None,
            multiply_adds: None,
        };
        Self { student, teacher, objective, train, valid, settings, prefetch: None }
    }

    /// Adds a term to the objective: a name for the metrics, a weight, and a closure from a [`View`] to a loss of
    /// shape `[1]`.
    pub fn term<F>(mut self, name: &str, weight: impl Into<Schedule>, loss: F) -> Self
    where
        F: Fn(View<'_, S::Output, T::Output, B, P>) -> Tensor<1> + Send + Sync + 'static,
    {
        self.objective = self.objective.term(name, weight, loss);
        self
    }

    /// Adds a task to the objective: a group of terms with metrics of its own, balanced against the other tasks.
    ///
    /// ```ignore
    /// .task("orientation", |task| {
    ///     task.term("kd", 1.0, move |view| kd.forward(view.student.heads.orientation.logits.clone(), ..))
    ///         .classification(|view| ..)
    /// })
    /// .balance(Balance::Uncertainty)
    /// ```
    pub fn task<F>(mut self, name: &str, build: F) -> Self
    where
        F: FnOnce(Task<S::Output, T::Output, B, P>) -> Task<S::Output, T::Output, B, P>,
    {
        self.objective = self.objective.task(name, build);
        self
    }

    /// Says how the losses of the tasks become one. The default is by fixed weights.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.objective = self.objective.balance(balance);
        self
    }

    /// Sets the temperature that terms find in their view: a number, a schedule, or one that follows the gap. The
    /// default is 1.
    pub fn temperature(mut self, temperature: impl Into<Temperature>) -> Self {
        self.objective = self.objective.temperature(temperature);
        self
    }

    /// Says where logits and targets are, which brings `accuracy`, `accuracy_top5`, `agreement`, `kl_to_teacher` and
    /// `calibration_error`.
    pub fn classification<F>(mut self, read: F) -> Self
    where
        F: Fn(View<'_, S::Output, T::Output, B, P>) -> Classification + Send + Sync + 'static,
    {
        self.objective = self.objective.classification(read);
        self
    }

    /// The run's folder; it is made if it is not there. The default is `runs/distillation`.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.folder = folder.into();
        self
    }

    /// How many times the training data is seen; at least 1, which is the default. A finished run can be continued
    /// by a larger number.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.settings.epochs = epochs;
        self
    }

    /// The seed of dropout. Data order and views have theirs in the loader, initial weights in the device.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// The optimiser; the default is Adam.
    pub fn optimizer(mut self, optimizer: OptimizerConfig) -> Self {
        self.settings.optimizer = optimizer;
        self
    }

    /// The learning rate: a number, a schedule, or one that shrinks on a plateau. The default is 0.001.
    pub fn learning_rate(mut self, rate: impl Into<LearningRate>) -> Self {
        self.settings.learning_rate = rate.into();
        self
    }

    /// Scales the gradients down when their global norm is above this.
    pub fn clip_grad_norm(mut self, max_norm: f64) -> Self {
        self.settings.max_grad_norm = Some(max_norm);
        self
    }

    /// Takes an optimiser step every so many batches, on the mean of their gradients.
    pub fn accumulate(mut self, batches: usize) -> Self {
        self.settings.accumulation = batches;
        self
    }

    /// What to do with a loss or gradient that is NaN or infinite. The default stops the run.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.settings.non_finite = policy;
        self
    }

    /// Which epoch is the best. With a [`classification`](Self::classification) the default is the highest `accuracy`
    /// (the mean of the tasks' where they have one each),
    /// or without labels the lowest `kl_to_teacher`; otherwise it is the lowest `total`, which compares epochs only
    /// while temperature and weights stay as they are: a total under a falling temperature says little.
    pub fn monitor(mut self, monitor: Monitor) -> Self {
        self.settings.monitor = Some(monitor);
        self
    }

    /// Stops when the monitored metric has not improved for so many epochs.
    pub fn early_stopping(mut self, patience: usize) -> Self {
        self.settings.patience = Some(patience);
        self
    }

    /// How many of the last checkpoints are kept beside the best one; at least 1, by default 2.
    pub fn keep_checkpoints(mut self, keep: usize) -> Self {
        self.settings.keep = keep;
        self
    }

    /// Whether a checkpoint in the folder is continued. The default continues one that fits.
    pub fn resume(mut self, resume: Resume) -> Self {
        self.settings.resume = resume;
        self
    }

    /// How the run shows that it is alive.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.settings.progress = progress;
        self
    }

    /// A name for progress and report.
    pub fn label(mut self, label: &str) -> Self {
        self.settings.label = Some(label.to_string());
        self
    }

    /// What the loader's items are, in plural, for the metric `<items>_per_second`. The default is `samples`.
    pub fn item_name(mut self, items: &str) -> Self {
        self.settings.item_name = items.to_string();
        self
    }

    /// Trains on several devices, or on another one than the student's: any of burn-train's strategies.
    pub fn devices(mut self, strategy: ExecutionStrategy) -> Self {
        self.settings.strategy = Some(strategy);
        self
    }

    /// Asks the teacher about the next batch on a thread of its own while the student learns from this one: in training
    /// and in validation, on every device. The numbers are those without it, and a run can be resumed with or without.
    ///
    /// It holds one more batch and one more answer in memory. It is for a teacher that stays as it is and draws nothing
    /// at random; one that [learns](Teacher::learns) is refused when the run starts. A panic of the teacher, or of a
    /// loader, ends the run with [`TrainError::Training`].
    pub fn prefetch_teacher(mut self) -> Self
    where
        T::Output: Send,
    {
        self.prefetch = Some(Prefetch::beside());
        self
    }

    /// As [`prefetch_teacher`](Self::prefetch_teacher), with the teacher on a device of its own, to which batches are
    /// copied and from which answers are. The numbers are those of the teacher on that device.
    pub fn prefetch_teacher_on(mut self, device: Device) -> Self
    where
        B: OnDevice,
        T::Output: OnDevice + Send,
    {
        self.prefetch = Some(Prefetch::on(device));
        self
    }

    /// Everything else that makes the run what it is (data set, augmentation, architectures): saved in `config.json`,
    /// and compared before a checkpoint is continued.
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.settings.config = config;
        self
    }

    /// How the best student becomes `student.safetensors`. The default writes Burn's own parameter names.
    pub fn export<E: std::fmt::Display>(mut self, export: impl Fn(&S, &Path) -> Result<(), E> + 'static) -> Self {
        self.settings.export =
            Some(Box::new(move |student, path| export(student, path).map_err(|error| error.to_string())));
        self
    }

    /// The multiply-adds of student and teacher for one sample, which only their authors know, for the report.
    pub fn multiply_adds(mut self, student: u64, teacher: u64) -> Self {
        self.settings.multiply_adds = Some((student, teacher));
        self
    }

    /// Trains, and writes the best student, the metrics and the report.
    ///
    /// Stopped from the dashboard (`q`), it ends in order with the epochs that were finished.
    ///
    /// # Errors
    /// A setting outside its range, a checkpoint that is damaged or of another run, a value that is not finite (with
    /// [`NonFinite::Stop`]), a failure of the data or of the disk.
    ///
    /// # Panics
    /// When a term, a model or a loader does.
    pub fn run(self) -> Result<Trained<S, P>, TrainError> {
        self.run_with_teacher().map(|(trained, _)| trained)
    }

    /// As [`run`](Self::run), and gives the teacher back, as it was at the best epoch: for one that learns during the
    /// run. The average in a [`MeanTeacher`](burn_distill_models::MeanTeacher) is often better than the student;
    /// `.monitor(Monitor::highest("teacher_accuracy"))` then chooses the epoch by it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_with_teacher(self) -> Result<(Trained<S, P>, T), TrainError> {
        let mut run = Prepared::new(self)?;
        run.train()?;
        run.finish()
    }
}
