use std::sync::Arc;

use burn::tensor::{ExecutionError, Tensor};
use burn::train::ItemLazy;
use burn_distill_eval::ClassificationStats;

use crate::objective::{Classification, TermValue};
use crate::task::TaskWeight;

/// What one step of a [`Distiller`](crate::Distiller) gives to the metrics.
#[derive(Debug)]
pub struct DistillOutput {
    pub(crate) state: OutputState,
}

#[derive(Debug)]
pub(crate) enum OutputState {
    /// Still on the device; read by [`ItemLazy::sync`], away from the training thread.
    Pending(Box<Pending>),
    /// On the host.
    Ready(Arc<Observed>),
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) total: Tensor<1>,
    pub(crate) terms: Vec<TermValue>,
    pub(crate) tasks: Vec<PendingTask>,
    pub(crate) classification: Option<Classification>,
    pub(crate) scalars: Vec<(Arc<str>, f64)>,
}

#[derive(Debug)]
pub(crate) struct PendingTask {
    pub(crate) name: Arc<str>,
    pub(crate) loss: Tensor<1>,
    pub(crate) weight: TaskWeight,
    pub(crate) terms: Vec<TermValue>,
    pub(crate) present: Option<Tensor<1>>,
    pub(crate) classification: Option<Classification>,
}

/// One step's values on the host.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) values: Vec<(Arc<str>, f64)>,
    pub(crate) classified: Vec<Classified>,
}

/// What is counted over the rows of one classification.
#[derive(Debug)]
pub(crate) struct Classified {
    /// `None` for the objective's own.
    task: Option<Arc<str>>,
    student: ClassificationStats,
    teacher: Option<ClassificationStats>,
}

impl Observed {
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(other, _)| &**other == name).map(|(_, value)| *value)
    }

    /// The student's statistics in a task, or the teacher's own.
    pub(crate) fn classified(&self, task: Option<&str>, of_teacher: bool) -> Option<&ClassificationStats> {
        let classified = self.classified.iter().find(|classified| classified.task.as_deref() == task)?;
        match of_teacher {
            true => classified.teacher.as_ref(),
            false => Some(&classified.student),
        }
    }
}

impl DistillOutput {
    /// A value of the batch by its metric's name: a term, a task, `total`, `temperature` or `weight:NAME`. `None` until
    /// [`ItemLazy::sync`], which burn-train calls, has read it from the device, and for a batch that was skipped.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.observed().value(name)
    }

    /// A batch that was skipped: it leaves no trace in the metrics.
    pub(crate) fn skipped() -> Self {
        Self { state: OutputState::Ready(Arc::default()) }
    }

    pub(crate) fn observed(&self) -> Arc<Observed> {
        match &self.state {
            OutputState::Ready(observed) => observed.clone(),
            OutputState::Pending(_) => Arc::default(),
        }
    }
}

impl ItemLazy for DistillOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        let state = match self.state {
            OutputState::Pending(pending) => OutputState::Ready(Arc::new(pending.read())),
            ready => ready,
        };
        Ok(Self { state })
    }
}

impl Pending {
    fn read(self) -> Observed {
        let mut values = self.scalars;
        values.push(("total".into(), scalar(self.total)));
        values.extend(self.terms.into_iter().map(|term| (term.name, scalar(term.value))));
        let mut classified: Vec<_> = self.classification.map(|rows| classify(None, rows)).into_iter().collect();
        for task in self.tasks {
            values.push((format!("weight:{}", task.name).into(), task.weight.read()));
            if task.present.is_some_and(|present| scalar(present) == 0.0) {
                continue; // without a row there is nothing to measure
            }
            values.push((task.name.clone(), scalar(task.loss)));
            values.extend(task.terms.into_iter().map(|term| (term.name, scalar(term.value))));
            classified.extend(task.classification.map(|rows| classify(Some(task.name), rows)));
        }
        Observed { values, classified }
    }
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

fn classify(task: Option<Arc<str>>, rows: Classification) -> Classified {
    let teacher = match (&rows.teacher_logits, &rows.targets) {
        (Some(logits), Some(targets)) => {
            Some(ClassificationStats::of(logits.clone(), None, Some(targets.clone()), rows.labelled.clone()))
        }
        _ => None,
    };
    Classified { task, student: count(rows), teacher }
}

/// Labels count where there are any; the teacher speaks about every row.
pub(crate) fn count(rows: Classification) -> ClassificationStats {
    let Classification { student_logits, teacher_logits, targets, labelled } = rows;
    match labelled {
        None => ClassificationStats::of(student_logits, teacher_logits, targets, None),
        labelled => {
            let on_labels = ClassificationStats::of(student_logits.clone(), None, targets, labelled);
            let on_teacher = ClassificationStats::of(student_logits, teacher_logits, None, None);
            ClassificationStats { agreement: on_teacher.agreement, kl: on_teacher.kl, ..on_labels }
        }
    }
}
