use std::fs;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining, TrainingStrategy};
use burn_distill_models::{Student, Teacher};
use serde_json::json;

use crate::checkpoint::{
    CheckpointError, CheckpointStore, EpochEnd, PartCheckpointer, RunIdentity, other_direction, stops_early,
    write_atomically,
};
use crate::distillation::{Distillation, Resume, Settings, Trained};
use crate::folder;
use crate::from_epoch::FromEpoch;
use crate::history::{History, JsonLinesLogger, Monitor};
use crate::metric::NamedMetric;
use crate::objective::Objective;
use crate::prefetch::{Ahead, Prefetch};
use crate::scheduler::RunScheduler;
use crate::state::RunState;
use crate::summary::Summary;
use crate::taught::{Taught, TaughtDistiller, Unasked};
use crate::{Distiller, TrainError};

/// A run whose settings are checked and whose folder is in order.
pub(crate) struct Prepared<S: Student<B>, T: Teacher<B>, B, P> {
    distiller: Distiller<S, T, B, P>,
    train: Arc<dyn DataLoader<B>>,
    valid: Arc<dyn DataLoader<B>>,
    run: Arc<RunState>,
    store: Arc<CheckpointStore>,
    history: History,
    start_epoch: usize,
    identity: RunIdentity,
    settings: Settings<S>,
    prefetch: Option<Prefetch<T, B>>,
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
    pub(crate) fn new(distillation: Distillation<S, T, B, P>) -> Result<Self, TrainError> {
        let Distillation { student, teacher, objective, train, valid, settings, prefetch } = distillation;
        check(&settings, &objective)?;
        if prefetch.is_some() && teacher.learns() {
            let allowed = "used with a teacher that stays as it is";
            return Err(TrainError::setting("prefetch_teacher", allowed, format!("a {}", teacher.fingerprint())));
        }
        for (field, loader) in [("train", &train), ("valid", &valid)] {
            if loader.num_items() == 0 {
                return Err(TrainError::setting(field, "a loader with at least one item", "none"));
            }
        }
        let identity = RunIdentity {
            config: json!({
                "objective": objective.describe(),
                "optimizer": settings.optimizer,
                "learning_rate": settings.learning_rate,
                "clip_grad_norm": settings.max_grad_norm,
                "accumulate": settings.accumulation,
                "non_finite": settings.non_finite,
                "monitor": settings.monitor,
                "seed": settings.seed,
                "student_parameters": student.num_params(),
                "train_items": train.num_items(),
                "valid_items": valid.num_items(),
                "run": settings.config,
            }),
            teacher: teacher.fingerprint(),
        };
        let run = Arc::new(RunState::new(settings.seed, settings.non_finite, settings.max_grad_norm));
        // In training mode it no longer shares running statistics with the caller's clones of the student.
        let mut distiller = Distiller::new(student, teacher, objective)?.with_run(run.clone()).train();

        let folder = &settings.folder;
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let store = Arc::new(CheckpointStore::open(folder.join("checkpoint"), identity.clone())?);
        match settings.resume {
            Resume::Auto => store.sweep()?,
            Resume::Never => {
                store.clear()?;
                folder::clear(folder)?;
            }
        }
        let last = store.epochs()?.pop();
        if let Some(epoch) = last {
            let manifest = store.verify(epoch)?;
            run.restore(manifest.step, manifest.skipped_batches);
            distiller = load(distiller, &store, epoch)?;
        }
        let start_epoch = last.unwrap_or(0);
        let history = History::new(folder::kept_rows(&folder.join(folder::METRICS), start_epoch)?);
        let config = json!({ "config": identity.config, "teacher": identity.teacher, "epochs": settings.epochs });
        let path = folder.join(folder::CONFIG);
        write_atomically(&path, format!("{config:#}").as_bytes()).map_err(TrainError::io(&path))?;
        Ok(Self { distiller, train, valid, run, store, history, start_epoch, identity, settings, prefetch })
    }

    fn monitor(&self) -> Option<&Monitor> {
        self.settings.monitor.as_ref()
    }

    /// Trains the epochs that are missing.
    pub(crate) fn train(&mut self) -> Result<(), TrainError> {
        let stopped_early = stops_early(&self.history, self.monitor(), self.settings.patience, self.start_epoch);
        if self.start_epoch >= self.settings.epochs || stopped_early {
            return Ok(());
        }
        let strategy = self.settings.strategy.take().unwrap_or_else(|| {
            let device = self.distiller.devices().into_iter().next().unwrap_or_default();
            ExecutionStrategy::SingleDevice(device.autodiff())
        });
        let settings = &self.settings;
        let end = EpochEnd {
            history: self.history.clone(),
            monitor: settings.monitor.clone(),
            run: self.run.clone(),
            store: self.store.clone(),
            plateau: settings.learning_rate.plateau().copied(),
            keep: settings.keep,
            patience: settings.patience,
        };
        let [model, optim, schedules] = PartCheckpointer::all(&self.store);
        let learned = self.distiller.clone().train();
        let taught = |loader: &Arc<dyn DataLoader<B>>, distiller: &Distiller<S, T, B, P>| {
            let loader = Arc::new(FromEpoch { loader: loader.clone(), epoch: self.start_epoch });
            let taught: Arc<dyn DataLoader<Taught<B>>> = match &self.prefetch {
                Some(prefetch) => Arc::new(Ahead::new(loader, distiller.teacher().clone(), prefetch.clone())),
                None => Arc::new(Unasked(loader)),
            };
            taught
        };
        let (train, valid) = (taught(&self.train, &learned), taught(&self.valid, &learned.valid()));
        let metrics_path = settings.folder.join(folder::METRICS);
        let logger = JsonLinesLogger::new(&metrics_path, self.history.clone(), self.run.clone());
        let mut training = SupervisedTraining::new(&settings.folder, train, valid)
            .num_epochs(settings.epochs)
            .with_interrupter(self.run.interrupter.0.clone())
            .with_application_logger(None)
            .with_metric_logger(logger)
            .with_custom_checkpointers(model, optim, schedules)
            .with_checkpointing_strategy(end.clone())
            .early_stopping(end)
            .label(settings.label.as_deref().unwrap_or("distillation"))
            .with_training_strategy(TrainingStrategy::Default(strategy));
        for metric in self.distiller.objective().metrics() {
            training = training.metric_train_numeric(metric.clone()).metric_valid_numeric(metric);
        }
        training = training
            .metric_train_numeric(NamedMetric::grad_norm(self.run.clone()))
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
        let scheduler = RunScheduler::new(settings.learning_rate.clone(), self.run.clone());
        let learner = Learner::new(TaughtDistiller(learned), settings.optimizer.init()?, scheduler);
        let result = training.launch(learner);
        if let Some(fault) = self.run.fault() {
            let checkpoint = self.store.epochs()?.pop().map(|epoch| self.store.manifest_path(epoch));
            return Err(TrainError::of_fault(fault, checkpoint));
        }
        match result.error {
            Some(error) => Err(TrainError::Training { message: error.to_string() }),
            None => Ok(()),
        }
    }

    /// Writes the best student and the report; gives the teacher of that epoch back.
    pub(crate) fn finish(self) -> Result<(Trained<S, P>, T), TrainError> {
        let last_epoch = self.store.epochs()?.pop().ok_or_else(|| TrainError::Training {
            message: "no epoch was finished, so there is no student".to_string(),
        })?;
        // A run stopped between an epoch's metrics and its checkpoint has no student of that epoch.
        self.history.rows().retain(|row| row.epoch <= last_epoch);
        let best_epoch = self.history.best(self.monitor()).map_or(last_epoch, |(epoch, _)| epoch);
        let skipped_batches = self.run.skipped();
        let steps = self.run.step();
        self.store.verify(best_epoch)?;
        let distiller = load(self.distiller, &self.store, best_epoch)?.valid();
        let metrics = self.history.rows().clone();
        let path = self.settings.folder.join(folder::STUDENT);
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
        summary.report(&distiller, &*self.valid).write(self.settings.folder.join(folder::REPORT))?;
        let (student, parts, teacher) = distiller.into_models();
        let folder = self.settings.folder;
        Ok((Trained { student, parts, best_epoch, metrics, skipped_batches, steps, folder }, teacher))
    }
}

/// Checks what can be checked before anything is read or written.
fn check<M, S, T, B, P>(settings: &Settings<M>, objective: &Objective<S, T, B, P>) -> Result<(), TrainError> {
    objective.validate()?;
    settings.optimizer.init()?;
    settings.learning_rate.validate()?;
    let counts = [
        ("epochs", Some(settings.epochs)),
        ("accumulate", Some(settings.accumulation)),
        ("keep_checkpoints", Some(settings.keep)),
        ("early_stopping", settings.patience),
    ];
    if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
        return Err(TrainError::setting(field, "at least 1", 0));
    }
    if let Some(norm) = settings.max_grad_norm
        && !(norm > 0.0 && norm.is_finite())
    {
        return Err(TrainError::setting("clip_grad_norm", "in (0, inf)", norm));
    }
    if let Some(ExecutionStrategy::DistributedDataParallel { .. }) = settings.strategy {
        // Its workers each count steps, and a run has one counter.
        return Err(TrainError::setting("devices", "`SingleDevice` or `MultiDevice`", "`DistributedDataParallel`"));
    }
    let speed = format!("{}_per_second", settings.item_name);
    if objective.task_names().chain(objective.term_names()).any(|name| name == speed) {
        return Err(TrainError::setting("term", "a name that is no other metric's", format!("`{speed}`")));
    }
    let monitor = match &settings.monitor {
        Some(monitor) => monitor.clone(),
        None if objective.has_classification() => return Ok(()), // which metrics there are, the data will show
        None => Monitor::lowest("total"),
    };
    let metrics = objective.metrics();
    let names: Vec<_> = metrics.iter().map(NamedMetric::metric_name).collect();
    if !names.contains(&monitor.metric.as_str()) {
        let given = format!("`{}`; there are {}", monitor.metric, names.join(", "));
        return Err(TrainError::setting("monitor", "a metric that the validation data gives", given));
    }
    let fault = settings.learning_rate.plateau().and_then(|plateau| other_direction(plateau, &monitor));
    fault.map_or(Ok(()), |fault| Err(TrainError::of_fault(fault, None)))
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
