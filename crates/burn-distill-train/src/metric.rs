//! Metrics by name: one kind for plain values, one for what is counted over rows, one for speed and rate.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn_distill_eval::ClassificationStats;

use crate::output::{DistillOutput, Observed};
use crate::state::RunState;

/// Names that a term or a task may not take.
pub(crate) fn is_reserved(name: &str) -> bool {
    let names = ["total", "temperature", "learning_rate", "grad_norm"];
    names.contains(&name) || Counted::ALL.iter().any(|counted| counted.name() == name) || name.contains([':', '/'])
}

impl Adaptor<Arc<Observed>> for DistillOutput {
    fn adapt(&self) -> Arc<Observed> {
        self.observed()
    }
}

/// What is counted over the rows of a [`Classification`](crate::Classification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Accuracy,
    AccuracyTop5,
    Agreement,
    KlToTeacher,
    CalibrationError,
    TeacherAccuracy,
}

impl Counted {
    pub(crate) const ALL: [Self; 6] = [
        Self::Accuracy,
        Self::AccuracyTop5,
        Self::Agreement,
        Self::KlToTeacher,
        Self::CalibrationError,
        Self::TeacherAccuracy,
    ];

    /// What also has a mean over tasks: what chooses the best epoch, and what the report compares.
    pub(crate) const OF_TASKS: [Self; 3] = [Self::Accuracy, Self::KlToTeacher, Self::TeacherAccuracy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::AccuracyTop5 => "accuracy_top5",
            Self::Agreement => "agreement",
            Self::KlToTeacher => "kl_to_teacher",
            Self::CalibrationError => "calibration_error",
            Self::TeacherAccuracy => "teacher_accuracy",
        }
    }

    /// Of the student's statistics, except for the teacher's own.
    fn value(self, stats: &ClassificationStats) -> Option<f64> {
        match self {
            Self::Accuracy | Self::TeacherAccuracy => stats.top1.as_ref()?.value(),
            Self::AccuracyTop5 => stats.top5.as_ref()?.value(),
            Self::Agreement => stats.agreement.as_ref()?.value(),
            Self::KlToTeacher => stats.kl.as_ref()?.value(),
            Self::CalibrationError => stats.calibration.as_ref()?.expected_calibration_error(),
        }
    }

    fn higher_is_better(self) -> bool {
        !matches!(self, Self::KlToTeacher | Self::CalibrationError)
    }
}

/// The mean over items of values that are given per batch. Batches of several devices arrive together, and share
/// their items evenly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ItemMean {
    sum: f64,
    items: usize,
    /// The batches that arrived last: the sum of their values, how many, and their items together.
    open: (f64, usize, usize),
}

impl ItemMean {
    fn add(&mut self, value: Option<f64>, new_items: usize) {
        if new_items > 0 {
            *self = self.closed();
            self.open.2 = new_items;
        }
        if let Some(value) = value {
            self.open.0 += value;
            self.open.1 += 1;
        }
    }

    fn closed(self) -> Self {
        match self.open {
            (_, 0, _) => Self { open: Default::default(), ..self },
            (sum, values, items) => Self {
                sum: self.sum + sum / values as f64 * items as f64,
                items: self.items + items,
                open: Default::default(),
            },
        }
    }

    fn value(self) -> Option<f64> {
        let closed = self.closed();
        (closed.items > 0).then(|| closed.sum / closed.items as f64)
    }
}

/// Where a metric's value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The mean of a value over the items of the epoch.
    Mean(ItemMean),
    /// Counted over all rows of the epoch: the mean over those of `tasks` that have a value. The objective's own
    /// classification is that of no task.
    Counted { kind: Counted, tasks: Vec<(Option<Arc<str>>, ClassificationStats)> },
    /// The mean norm of the gradients over the optimiser steps of the epoch.
    GradNorm(Arc<RunState>),
    /// The last learning rate.
    LearningRate,
    /// Items per second of the epoch so far, counted from the end of its first batch.
    Throughput { since: Option<(Instant, usize)> },
}

/// A named metric of a run.
#[derive(Clone, Debug)]
pub(crate) struct NamedMetric {
    name: MetricName,
    source: Source,
    higher_is_better: bool,
    items_before: usize,
    now: Option<f64>,
    epoch: Option<f64>,
}

impl NamedMetric {
    fn new(name: impl Into<String>, source: Source, higher_is_better: bool) -> Self {
        let name = Arc::new(name.into());
        Self { name, source, higher_is_better, items_before: 0, now: None, epoch: None }
    }

    pub(crate) fn mean(name: impl Into<String>) -> Self {
        Self::new(name, Source::Mean(ItemMean::default()), false)
    }

    pub(crate) fn counted(name: impl Into<String>, kind: Counted, tasks: Vec<Option<Arc<str>>>) -> Self {
        let tasks = tasks.into_iter().map(|task| (task, ClassificationStats::default())).collect();
        Self::new(name, Source::Counted { kind, tasks }, kind.higher_is_better())
    }

    pub(crate) fn metric_name(&self) -> &str {
        &self.name
    }

    pub(crate) fn grad_norm(run: Arc<RunState>) -> Self {
        Self::new("grad_norm", Source::GradNorm(run), false)
    }

    pub(crate) fn learning_rate() -> Self {
        Self::new("learning_rate", Source::LearningRate, false)
    }

    pub(crate) fn throughput(unit: &str) -> Self {
        Self::new(format!("{unit}_per_second"), Source::Throughput { since: None }, true)
    }

    fn entry(&self, value: Option<f64>) -> SerializedEntry {
        match value {
            Some(value) => SerializedEntry::new(format!("{value:.4}"), value.to_string()),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl Metric for NamedMetric {
    type Input = Arc<Observed>;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: self.higher_is_better }.into()
    }

    fn update(&mut self, item: &Arc<Observed>, meta: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        let done = meta.progress.items_processed;
        let new_items = done.saturating_sub(self.items_before);
        self.items_before = done;
        match &mut self.source {
            Source::Mean(mean) => {
                self.now = item.value(&self.name);
                mean.add(self.now, new_items);
                self.epoch = mean.value();
            }
            Source::GradNorm(run) => self.now = run.grad_norms().last,
            Source::Counted { kind, tasks } => {
                let mut seen = Vec::new();
                for (task, stats) in tasks.iter_mut() {
                    let Some(batch) = item.classified(task.as_deref(), *kind == Counted::TeacherAccuracy) else {
                        continue;
                    };
                    seen.extend(kind.value(batch));
                    stats.merge(batch);
                }
                if !seen.is_empty() {
                    self.now = mean(&seen);
                    self.epoch = mean(&tasks.iter().filter_map(|(_, stats)| kind.value(stats)).collect::<Vec<_>>());
                }
            }
            Source::LearningRate => {
                self.now = meta.lr.as_ref().map(|rate| rate.base());
                self.epoch = self.now;
            }
            Source::Throughput { since } => {
                let (start, before) = *since.get_or_insert_with(|| (Instant::now(), done));
                if done > before {
                    self.now = Some((done - before) as f64 / start.elapsed().as_secs_f64().max(1e-9));
                    self.epoch = self.now;
                }
            }
        }
        Ok(self.entry(self.now))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        if let Source::GradNorm(run) = &self.source {
            self.epoch = run.grad_norms().mean();
        }
        Ok(self.entry(self.epoch))
    }

    fn clear(&mut self) {
        let source = match &self.source {
            Source::Mean(_) => Source::Mean(ItemMean::default()),
            Source::Counted { kind, tasks } => {
                let tasks = tasks.iter().map(|(task, _)| (task.clone(), ClassificationStats::default())).collect();
                Source::Counted { kind: *kind, tasks }
            }
            Source::GradNorm(run) => {
                run.clear_grad_norms();
                Source::GradNorm(run.clone())
            }
            Source::LearningRate => Source::LearningRate,
            Source::Throughput { .. } => Source::Throughput { since: None },
        };
        *self = Self { name: self.name.clone(), ..Self::new("", source, self.higher_is_better) };
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl Numeric for NamedMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.now.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.epoch.map(NumericEntry::Value)
    }

    fn final_value(&self) -> NumericEntry {
        // No value is told apart from one that is NaN by the entry, which is then not available.
        NumericEntry::Final(self.epoch.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(batches: &[(Option<f64>, usize)]) -> Option<f64> {
        let mut mean = ItemMean::default();
        batches.iter().for_each(|(value, items)| mean.add(*value, *items));
        mean.value()
    }

    #[test]
    fn batches_weigh_by_their_items_and_skipped_ones_not_at_all() {
        assert_eq!(mean(&[(Some(1.0), 4), (None, 4), (Some(4.0), 2)]), Some(2.0));
        assert_eq!(mean(&[(None, 4)]), None);
        assert!(mean(&[(Some(f64::NAN), 4), (Some(1.0), 4)]).unwrap().is_nan());
    }

    #[test]
    fn batches_of_several_devices_share_the_items_that_arrive_with_them() {
        assert_eq!(mean(&[(Some(1.0), 8), (Some(3.0), 0), (Some(6.0), 4)]), Some(40.0 / 12.0));
    }
}
