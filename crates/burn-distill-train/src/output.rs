use std::sync::Arc;

use burn::tensor::{ExecutionError, Tensor};
use burn::train::ItemLazy;
use burn_distill_eval::ClassificationStats;

use crate::objective::{Classification, TermValue};

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
    pub(crate) classification: Option<Classification>,
    pub(crate) scalars: Vec<(Arc<str>, f64)>,
}

/// One step's values on the host.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) values: Vec<(Arc<str>, f64)>,
    pub(crate) classification: Option<ClassificationStats>,
    pub(crate) teacher_classification: Option<ClassificationStats>,
}

impl Observed {
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(other, _)| &**other == name).map(|(_, value)| *value)
    }
}

impl DistillOutput {
    /// A value of the batch by its metric's name: a term, `total`, `temperature` or `weight:<term>`. `None` until
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
        let scalar = |tensor: Tensor<1>| f64::from(tensor.into_scalar::<f32>());
        let mut values = self.scalars;
        values.push(("total".into(), scalar(self.total)));
        values.extend(self.terms.into_iter().map(|term| (term.name, scalar(term.value))));
        let teacher_classification = self.classification.as_ref().and_then(|rows| {
            let (logits, targets) = (rows.teacher_logits.clone()?, rows.targets.clone()?);
            Some(ClassificationStats::of(logits, None, Some(targets), rows.labelled.clone()))
        });
        Observed { values, classification: self.classification.map(count), teacher_classification }
    }
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
