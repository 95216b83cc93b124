use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining, TrainingStrategy};
use burn_distill_models::{Student, Teacher};
use burn_distill_schedules::Schedule;
use serde_json::json;

use crate::checkpoint::{CheckpointError, CheckpointStore, EpochEnd, PartCheckpointer, RunIdentity, write_atomically};
use crate::history::{History, JsonLinesLogger, Monitor};
use crate::metric::{Counted, NamedMetric};
use crate::objective::{Classification, NoParts, Objective, View};
use crate::progress::Progress;
use crate::report::{MetricsRow, read_metrics};
use crate::scheduler::{LearningRate, RunScheduler};
use crate::state::{NonFinite, RunState};
use crate::summary::Summary;
use crate::{Distiller, OptimizerConfig, Temperature, TrainError};

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
    student: S,
    teacher: T,
    objective: Objective<S::Output, T::Output, B, P>,
    train: Arc<dyn DataLoader<B>>,
    valid: Arc<dyn DataLoader<B>>,
    settings: Settings<S>,
}

struct Settings<S> {
    folder: PathBuf,
    epochs: usize,
    seed: u64,
    optimizer: OptimizerConfig,
    learning_rate: LearningRate,
    max_grad_norm: Option<f64>,
    accumulation: usize,
    non_finite: NonFinite,
    monitor: Option<Monitor>,
    patience: Option<usize>,
    keep: usize,
    resume: Resume,
    progress: Progress,
    label: Option<String>,
    item_name: String,
    strategy: Option<ExecutionStrategy>,
    config: serde_json::Value,
    export: Option<Export<S>>,
    multiply_adds: Option<(u64, u64)>,
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
        let Self { student, teacher, train, valid, settings, .. } = self;
        Distillation { student, teacher, objective, train, valid, settings }
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
        Self { student, teacher, objective, train, valid, settings }
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

    /// Which epoch is the best. The default is the highest `accuracy` where there is a
    /// [`classification`](Self::classification), otherwise the lowest `total`.
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
    /// # Errors
    /// A setting outside its range, a checkpoint that is damaged or of another run, a value that is not finite (with
    /// [`NonFinite::Stop`]), a failure of the data or of the disk.
    pub fn run(self) -> Result<Trained<S, P>, TrainError> {
        let mut run = self.prepare()?;
        let history = run.history.clone();
        if run.start_epoch < run.settings.epochs && !run.stopped_early() {
            run.train()?;
        }
        run.finish(history)
    }

    fn prepare(self) -> Result<Prepared<S, T, B, P>, TrainError> {
        let settings = self.settings;
        for (field, value) in
            [("epochs", settings.epochs), ("accumulate", settings.accumulation), ("keep_checkpoints", settings.keep)]
        {
            if value == 0 {
                return Err(TrainError::setting(field, "at least 1", 0));
            }
        }
        if let Some(norm) = settings.max_grad_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            return Err(TrainError::setting("clip_grad_norm", "in (0, inf)", norm));
        }
        for (field, loader) in [("train", &self.train), ("valid", &self.valid)] {
            if loader.num_items() == 0 {
                return Err(TrainError::setting(field, "a loader with at least one item", "none"));
            }
        }
        settings.optimizer.init()?;
        let run = Arc::new(RunState::new(settings.seed, settings.non_finite, settings.max_grad_norm));
        RunScheduler::new(&settings.learning_rate, run.clone())?;
        let monitor = settings.monitor.clone().unwrap_or_else(|| match self.objective.has_classification() {
            true => Monitor::highest("accuracy"),
            false => Monitor::lowest("total"),
        });
        let identity = RunIdentity {
            config: json!({
                "objective": self.objective.describe(),
                "optimizer": settings.optimizer,
                "learning_rate": settings.learning_rate,
                "clip_grad_norm": settings.max_grad_norm,
                "accumulate": settings.accumulation,
                "non_finite": settings.non_finite,
                "monitor": monitor,
                "seed": settings.seed,
                "student_parameters": self.student.num_params(),
                "train_items": self.train.num_items(),
                "valid_items": self.valid.num_items(),
                "run": settings.config,
            }),
            teacher: self.teacher.fingerprint(),
        };
        let distiller = Distiller::new(self.student, self.teacher, self.objective)?.with_run(run.clone());

        let folder = &settings.folder;
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        if settings.resume == Resume::Never {
            clear_folder(folder)?;
        }
        let store = Arc::new(CheckpointStore::open(folder.join("checkpoint"), identity.clone())?);
        let start_epoch = store.epochs()?.pop();
        let (distiller, rows) = match start_epoch {
            Some(epoch) => {
                let manifest = store.verify(epoch)?;
                run.set_step(manifest.step);
                let distiller = load(distiller, &store, epoch)?;
                (distiller, kept_rows(&folder.join("metrics.jsonl"), epoch)?)
            }
            None => (distiller, kept_rows(&folder.join("metrics.jsonl"), 0)?),
        };
        let config = json!({ "config": identity.config, "teacher": identity.teacher, "epochs": settings.epochs });
        let path = folder.join("config.json");
        let text = serde_json::to_vec_pretty(&config).unwrap_or_default();
        write_atomically(&path, &text).map_err(TrainError::io(&path))?;
        Ok(Prepared {
            distiller,
            train: self.train,
            valid: self.valid,
            run,
            store,
            history: History::new(rows),
            monitor,
            start_epoch: start_epoch.unwrap_or(0),
            identity,
            settings,
        })
    }
}

/// A run whose settings are checked and whose folder is in order.
struct Prepared<S: Student<B>, T: Teacher<B>, B, P> {
    distiller: Distiller<S, T, B, P>,
    train: Arc<dyn DataLoader<B>>,
    valid: Arc<dyn DataLoader<B>>,
    run: Arc<RunState>,
    store: Arc<CheckpointStore>,
    history: History,
    monitor: Monitor,
    start_epoch: usize,
    identity: RunIdentity,
    settings: Settings<S>,
}

impl<S, T, B, P> Prepared<S, T, B, P>
where
    S: Student<B> + 'static,
    T: Teacher<B> + 'static,
    B: Send + 'static,
    P: Module + 'static,
    S::Output: 'static,
    T::Output: 'static,
{
    /// Whether the run that is resumed had already ended by early stopping.
    fn stopped_early(&self) -> bool {
        match (self.settings.patience, self.history.best(&self.monitor)) {
            (Some(patience), Some((best, _))) => self.start_epoch >= best + patience,
            _ => false,
        }
    }

    fn train(&mut self) -> Result<(), TrainError> {
        let strategy = self.settings.strategy.take();
        let settings = &self.settings;
        let optimizer = settings.optimizer.init()?;
        let (scheduler, plateau) = RunScheduler::new(&settings.learning_rate, self.run.clone())?;
        let end = EpochEnd {
            history: self.history.clone(),
            monitor: self.monitor.clone(),
            run: self.run.clone(),
            store: self.store.clone(),
            plateau,
            keep: settings.keep,
            patience: settings.patience,
        };
        let [model, optim, schedules] = PartCheckpointer::all(&self.store);
        let train = Arc::new(FromEpoch { loader: self.train.clone(), epoch: self.start_epoch });
        let metrics_path = settings.folder.join("metrics.jsonl");
        let logger = JsonLinesLogger::new(&metrics_path, self.history.clone(), self.run.clone());
        let mut training = SupervisedTraining::new(&settings.folder, train, self.valid.clone())
            .num_epochs(settings.epochs)
            .with_interrupter(self.run.interrupter.0.clone())
            .with_application_logger(None)
            .with_metric_logger(logger)
            .with_custom_checkpointers(model, optim, schedules)
            .with_checkpointing_strategy(end.clone())
            .early_stopping(end)
            .label(settings.label.as_deref().unwrap_or("distillation"));
        for metric in self.metrics() {
            training = training.metric_train_numeric(metric.clone()).metric_valid_numeric(metric);
        }
        training = training
            .metric_train_numeric(NamedMetric::mean("grad_norm"))
            .metric_train_numeric(NamedMetric::learning_rate())
            .metric_train_numeric(NamedMetric::throughput(&settings.item_name));
        if settings.accumulation > 1 {
            training = training.grads_accumulation(settings.accumulation);
        }
        if self.start_epoch > 0 {
            training = training.checkpoint(self.start_epoch);
        }
        if let Some(renderer) = settings.progress.renderer() {
            training = training.renderer(renderer);
        }
        let strategy = strategy.unwrap_or_else(|| {
            let device = self.distiller.devices().into_iter().next().unwrap_or_default();
            ExecutionStrategy::SingleDevice(device.autodiff())
        });
        training = training.with_training_strategy(TrainingStrategy::Default(strategy));
        let learner = Learner::new(self.distiller.clone().train(), optimizer, scheduler);
        let result = training.launch(learner);
        if let Some(fault) = self.run.fault().clone() {
            let checkpoint = self.store.epochs()?.pop().map(|epoch| self.store.manifest_path(epoch));
            return Err(TrainError::NonFinite { step: fault.step, term: fault.term, value: fault.value, checkpoint });
        }
        match result.error {
            Some(error) => Err(TrainError::Training { message: error.to_string() }),
            None => Ok(()),
        }
    }

    /// What is shown for training and validation alike.
    fn metrics(&self) -> Vec<NamedMetric> {
        let objective = self.distiller.objective();
        let mut metrics = vec![NamedMetric::mean("total")];
        metrics.extend(objective.term_names().map(NamedMetric::mean));
        if objective.has_classification() {
            metrics.extend(Counted::ALL.map(NamedMetric::counted));
        }
        metrics.push(NamedMetric::mean("temperature"));
        metrics.extend(objective.term_names().map(|name| NamedMetric::mean(format!("weight:{name}"))));
        metrics
    }

    fn finish(self, history: History) -> Result<Trained<S, P>, TrainError> {
        let best_epoch = match history.best(&self.monitor) {
            Some((epoch, _)) => epoch,
            None => self.store.epochs()?.pop().ok_or_else(|| TrainError::Training {
                message: "no epoch was finished, so there is no student".to_string(),
            })?,
        };
        let skipped_batches = self.run.skipped();
        let steps = self.run.step();
        let distiller = load(self.distiller, &self.store, best_epoch)?.valid();
        let metrics = history.rows().clone();
        let path = self.settings.folder.join("student.safetensors");
        let exported = match &self.settings.export {
            Some(export) => export(distiller.student(), &path),
            None => crate::export::safetensors(distiller.student(), &path),
        };
        exported.map_err(|message| TrainError::Export { path, message })?;
        let title = self.settings.label.clone().unwrap_or_else(|| "Distillation".to_string());
        let summary = Summary {
            title: &title,
            config: &self.identity.config,
            metrics: &metrics,
            best_epoch,
            skipped_batches,
            multiply_adds: self.settings.multiply_adds,
        };
        summary.report(&distiller, &*self.valid).write(&self.settings.folder.join("report.html"))?;
        let (student, _, objective) = distiller.into_parts();
        let folder = self.settings.folder;
        let parts = objective.into_parts();
        Ok(Trained { student, parts, best_epoch, metrics, skipped_batches, steps, folder })
    }
}

fn load<S, T, B, P>(
    distiller: Distiller<S, T, B, P>,
    store: &CheckpointStore,
    epoch: usize,
) -> Result<Distiller<S, T, B, P>, CheckpointError>
where
    S: Student<B>,
    T: Teacher<B>,
    P: Module,
{
    let record: ModuleRecord = store.load(epoch, "model")?;
    distiller.try_load_record(record).map_err(|error| CheckpointError::OtherModel {
        path: store.manifest_path(epoch),
        part: "model",
        message: error.to_string(),
    })
}

/// The rows of an earlier part of the run, without those of epochs that will be trained again.
fn kept_rows(path: &Path, epochs: usize) -> Result<Vec<MetricsRow>, TrainError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut rows = read_metrics(path)?;
    rows.retain(|row| row.epoch <= epochs);
    let mut text = String::new();
    for row in &rows {
        text.push_str(&serde_json::to_string(row).unwrap_or_default());
        text.push('\n');
    }
    write_atomically(path, text.as_bytes()).map_err(TrainError::io(path))?;
    Ok(rows)
}

/// Deletes what an earlier run left, and nothing else.
fn clear_folder(folder: &Path) -> Result<(), TrainError> {
    let files = ["config.json", "metrics.jsonl", "student.safetensors", "report.html"].map(|name| folder.join(name));
    let checkpoints = folder.join("checkpoint");
    let inside = fs::read_dir(&checkpoints).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("epoch-") && [".json", ".bpk", ".partial"].iter().any(|end| name.ends_with(end))
    };
    for path in inside.filter(ours).chain(files) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(TrainError::io(&path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// A loader that starts at a later epoch, whatever kind it is: epochs that were already trained are drawn, unread.
struct FromEpoch<B> {
    loader: Arc<dyn DataLoader<B>>,
    epoch: usize,
}

impl<B> FromEpoch<B> {
    fn skip(loader: Arc<dyn DataLoader<B>>, epochs: usize) -> Arc<dyn DataLoader<B>> {
        for _ in 0..epochs {
            drop(loader.iter());
        }
        loader
    }
}

impl<B: Send + 'static> DataLoader<B> for FromEpoch<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<B> + 'a> {
        self.loader.iter()
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<B>> {
        Self::skip(self.loader.to_device(device), self.epoch)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B>> {
        Arc::new(Self { loader: self.loader.slice(start, end), epoch: self.epoch })
    }
}
