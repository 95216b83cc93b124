use std::fmt;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Bool, Gradients, Tensor};
use burn_distill_models::Branch;
use burn_distill_schedules::Schedule;

use crate::TrainError;
use crate::objective::{Classification, ClassificationFn, Term, TermValue, View};

type MaskFn<S, T, B, P> = Arc<dyn Fn(View<'_, S, T, B, P>) -> Tensor<1, Bool> + Send + Sync>;
type BranchFn<S> = Arc<dyn Fn(&S) -> Pull + Send + Sync>;

/// Reads the squared norm of a task's gradient at the shared features; `None` if there is none.
pub(crate) type Pull = Box<dyn Fn(&Gradients) -> Option<Tensor<1>> + Send>;

/// One of several tasks of an [`Objective`](crate::Objective): terms whose weighted sum is the task's loss, which a
/// [`Balance`](crate::Balance) weighs against the other tasks'.
///
/// ```text
/// L(step) = Σ over the task's terms of weight_i(step) * loss_i
/// ```
///
/// Its metrics stand behind its name: the loss `TASK`, the balance's `weight:TASK`, terms `TASK/TERM`, and what a
/// [`classification`](Self::classification) gives, such as `TASK/accuracy`.
pub struct Task<S, T, B, P> {
    pub(crate) name: Arc<str>,
    pub(crate) terms: Vec<Term<S, T, B, P>>,
    pub(crate) weight: Option<Schedule>,
    pub(crate) classification: Option<ClassificationFn<S, T, B, P>>,
    mask: Option<MaskFn<S, T, B, P>>,
    pub(crate) branch: Option<BranchFn<S>>,
}

impl<S, T, B, P> Task<S, T, B, P> {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), terms: Vec::new(), weight: None, classification: None, mask: None, branch: None }
    }

    /// Adds a term to the task, as [`Objective::term`](crate::Objective::term) does to the objective; its metric is
    /// `TASK/TERM`.
    pub fn term<F>(mut self, name: &str, weight: impl Into<Schedule>, loss: F) -> Self
    where
        F: Fn(View<'_, S, T, B, P>) -> Tensor<1> + Send + Sync + 'static,
    {
        let name = format!("{}/{name}", self.name);
        self.terms.push(Term { name: name.into(), weight: weight.into(), loss: Arc::new(loss) });
        self
    }

    /// The task's weight under [`Balance::Fixed`](crate::Balance::Fixed), 1 by default. The other balances find their
    /// own and refuse it.
    pub fn weight(mut self, weight: impl Into<Schedule>) -> Self {
        self.weight = Some(weight.into());
        self
    }

    /// Which rows of a batch belong to the task (true = counts), where not all do. The task's terms and classification
    /// find them as [`View::mask`], and give them to their losses. A batch without any row leaves the task out: its
    /// loss, its metrics, and what the balance learns about it.
    pub fn mask<F>(mut self, rows: F) -> Self
    where
        F: Fn(View<'_, S, T, B, P>) -> Tensor<1, Bool> + Send + Sync + 'static,
    {
        self.mask = Some(Arc::new(rows));
        self
    }

    /// Says where the task's logits and targets are, for `TASK/accuracy` and its companions.
    pub fn classification<F>(mut self, read: F) -> Self
    where
        F: Fn(View<'_, S, T, B, P>) -> Classification + Send + Sync + 'static,
    {
        self.classification = Some(Arc::new(read));
        self
    }

    /// Says through which branch of the shared features the task's head reads, for
    /// [`Balance::GradNorm`](crate::Balance::GradNorm). Only this task's losses may depend on that head.
    pub fn branch<const D: usize>(mut self, branch: impl Fn(&S) -> &Branch<D> + Send + Sync + 'static) -> Self {
        self.branch = Some(Arc::new(move |student| {
            let probe = branch(student).probe().cloned();
            Box::new(move |gradients| Some(probe.as_ref()?.grad(gradients)?.square().sum()))
        }));
        self
    }

    /// What a checkpoint compares.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let terms: serde_json::Map<_, _> = self
            .terms
            .iter()
            .map(|term| (term.name.to_string(), serde_json::json!({ "weight": term.weight })))
            .collect();
        serde_json::json!({ "terms": terms, "weight": self.weight })
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        if self.terms.is_empty() {
            let given = format!("`{}` without one", self.name);
            return Err(TrainError::setting("task", "a name with at least one term", given));
        }
        let Some(weight) = &self.weight else { return Ok(()) };
        let invalid = |source| TrainError::Schedule { field: format!("weight:{}", self.name), source };
        weight.validate().map_err(invalid)
    }

    /// The task's loss on a batch; `at` gives a view with the mask it is given.
    pub(crate) fn evaluate<'a>(
        &self,
        step: usize,
        at: impl Fn(Option<Tensor<1, Bool>>) -> View<'a, S, T, B, P>,
    ) -> TaskLoss
    where
        S: 'a,
        T: 'a,
        B: 'a,
        P: 'a,
    {
        let mask = self.mask.as_ref().map(|rows| rows(at(None)));
        let view = || at(mask.clone());
        let (loss, terms) = Term::sum(&self.terms, step, view);
        TaskLoss {
            loss,
            terms,
            present: mask.as_ref().map(|mask| mask.clone().without_autodiff().float().sum().clamp_max(1.0)),
            classification: self.classification.as_ref().map(|read| read(view())),
        }
    }
}

/// A task's loss on one batch, before it is balanced.
pub(crate) struct TaskLoss {
    /// `None` while every term's weight is 0.
    pub(crate) loss: Option<Tensor<1>>,
    pub(crate) terms: Vec<TermValue>,
    /// 1 if the batch has a row of the task, otherwise 0; `None` where all rows are.
    pub(crate) present: Option<Tensor<1>>,
    pub(crate) classification: Option<Classification>,
}

/// A task's values for one batch.
pub(crate) struct TaskValue {
    pub(crate) name: Arc<str>,
    pub(crate) loss: Tensor<1>,
    /// Whether the total holds it.
    pub(crate) counts: bool,
    pub(crate) weight: TaskWeight,
    pub(crate) terms: Vec<TermValue>,
    pub(crate) present: Option<Tensor<1>>,
    pub(crate) classification: Option<Classification>,
    /// Under GradNorm, and only if the task counts at this step.
    pub(crate) pull: Option<Pull>,
}

/// The weight that the balance gives a task.
#[derive(Clone, Debug)]
pub(crate) enum TaskWeight {
    Known(f64),
    /// By its `s = ln σ²`, on the device.
    Learned(Box<Tensor<1>>),
}

impl TaskWeight {
    /// The task's part of the total.
    pub(crate) fn apply(&self, loss: Tensor<1>, present: Option<&Tensor<1>>) -> Tensor<1> {
        let log_variance = match self {
            Self::Known(weight) => return loss.mul_scalar(*weight),
            Self::Learned(log_variance) => log_variance.as_ref().clone().cast(loss.dtype()),
        };
        let balanced = loss * log_variance.clone().neg().exp() + log_variance.mul_scalar(0.5);
        match present {
            Some(present) => balanced.clone() * present.clone().cast(balanced.dtype()),
            None => balanced,
        }
    }

    pub(crate) fn detach(self) -> Self {
        match self {
            Self::Learned(log_variance) => Self::Learned(Box::new(log_variance.detach())),
            known => known,
        }
    }

    /// As a number, from the device.
    pub(crate) fn read(self) -> f64 {
        match self {
            Self::Known(weight) => weight,
            Self::Learned(log_variance) => (-f64::from(log_variance.into_scalar::<f32>())).exp(),
        }
    }
}

/// What is learned about the tasks by the optimiser.
#[derive(Module, Debug, Default)]
pub(crate) struct TaskParameters {
    /// One `s = ln σ²` per task, under [`Balance::Uncertainty`](crate::Balance::Uncertainty).
    pub(crate) log_variances: Option<Param<Tensor<1>>>,
}

impl<S, T, B, P> Clone for Task<S, T, B, P> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            terms: self.terms.clone(),
            weight: self.weight.clone(),
            classification: self.classification.clone(),
            mask: self.mask.clone(),
            branch: self.branch.clone(),
        }
    }
}

impl<S, T, B, P> fmt::Debug for Task<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<_> = self.terms.iter().map(|term| &*term.name).collect();
        f.debug_struct("Task").field("name", &self.name).field("terms", &terms).finish_non_exhaustive()
    }
}
