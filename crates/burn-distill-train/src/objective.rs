mod module;

use std::collections::HashSet;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_distill_schedules::{GapState, Schedule};
use serde_json::json;

use crate::balance::{Balance, GradNormState};
use crate::metric::{Counted, NamedMetric};
use crate::task::{Task, TaskLoss, TaskParameters, TaskValue, TaskWeight};
use crate::{Temperature, TrainError};

/// What a term of the objective sees: one batch and what student and teacher said about it.
pub struct View<'a, S, T, B, P> {
    /// The student's output; gradients flow through it.
    pub student: &'a S,
    /// The teacher's output; the losses detach it.
    pub teacher: &'a T,
    /// The batch.
    pub batch: &'a B,
    /// The learned parts of the objective: connectors, projections.
    pub parts: &'a P,
    /// The temperature at this step.
    pub temperature: f64,
    /// The optimiser step, counted from 0.
    pub step: usize,
    /// Inside a [`Task`] with a [`mask`](Task::mask): which rows belong to it, `[rows]` (true = counts). `None` for all.
    pub mask: Option<Tensor<1, Bool>>,
}

/// What the metrics compare; each row is a sample, or a token.
#[derive(Clone, Debug)]
pub struct Classification {
    /// The student's logits, `[rows, classes]`.
    pub student_logits: Tensor<2>,
    /// The teacher's logits, `[rows, classes]`: for agreement and KL to the teacher.
    pub teacher_logits: Option<Tensor<2>>,
    /// The classes, `[rows]`: for accuracy and calibration.
    pub targets: Option<Tensor<1, Int>>,
    /// Which rows have a target, `[rows]` (true = counts); `None` for all.
    pub labelled: Option<Tensor<1, Bool>>,
}

/// The objective of a student without learned parts.
#[derive(Module, Debug, Default)]
pub struct NoParts {}

type TermFn<S, T, B, P> = Arc<dyn Fn(View<'_, S, T, B, P>) -> Tensor<1> + Send + Sync>;
pub(crate) type ClassificationFn<S, T, B, P> = Arc<dyn Fn(View<'_, S, T, B, P>) -> Classification + Send + Sync>;

pub(crate) struct Term<S, T, B, P> {
    pub(crate) name: Arc<str>,
    pub(crate) weight: Schedule,
    pub(crate) loss: TermFn<S, T, B, P>,
}

impl<S, T, B, P> Term<S, T, B, P> {
    /// The weighted sum of the terms that count, and the value of each. `None` while every weight is 0.
    pub(crate) fn sum<'a>(
        terms: &[Self],
        step: usize,
        view: impl Fn() -> View<'a, S, T, B, P>,
    ) -> (Option<Tensor<1>>, Vec<TermValue>)
    where
        S: 'a,
        T: 'a,
        B: 'a,
        P: 'a,
    {
        let mut total: Option<Tensor<1>> = None;
        let mut values = Vec::with_capacity(terms.len());
        for term in terms {
            let value = (term.loss)(view());
            assert_eq!(value.dims(), [1], "the term `{}` must give a tensor of shape [1]", term.name);
            let weight = term.weight.value(step);
            if weight != 0.0 {
                total = add(total, value.clone().mul_scalar(weight));
            }
            values.push(TermValue { name: term.name.clone(), weight, value: value.detach() });
        }
        (total, values)
    }
}

fn add(total: Option<Tensor<1>>, value: Tensor<1>) -> Option<Tensor<1>> {
    Some(match total {
        Some(total) => total + value,
        None => value,
    })
}

/// What a student is trained on: a sum of named terms, each a loss with a weight that follows a schedule.
///
/// ```text
/// total(step) = sum over terms of weight_i(step) * loss_i(student output, teacher output, batch)
/// ```
///
/// A term is a closure over a [`View`], so it reads any field of the two outputs and of the batch, and a wrong layer
/// is a compile error. Learned parts (connectors, projections) are one module `P`, given to every term: they are
/// optimised, saved and resumed with the objective.
///
/// With several tasks, each is a group of terms of its own ([`task`](Self::task)), and a [`Balance`] weighs the groups:
///
/// ```text
/// total(step) = sum over terms, as above, + the balance's sum over tasks
/// ```
pub struct Objective<S, T, B, P = NoParts> {
    parts: P,
    terms: Vec<Term<S, T, B, P>>,
    tasks: Vec<Task<S, T, B, P>>,
    balance: Balance,
    learned: TaskParameters,
    temperature: Temperature,
    classification: Option<ClassificationFn<S, T, B, P>>,
}

impl<S, T, B> Objective<S, T, B> {
    /// An objective without terms or learned parts, at temperature 1.
    pub fn new() -> Self {
        Self::with_parts(NoParts::default())
    }
}

impl<S, T, B> Default for Objective<S, T, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, T, B, P> Objective<S, T, B, P> {
    /// An objective whose terms may use learned `parts`.
    pub fn with_parts(parts: P) -> Self {
        Self {
            parts,
            terms: Vec::new(),
            tasks: Vec::new(),
            balance: Balance::default(),
            learned: TaskParameters::default(),
            temperature: 1.0.into(),
            classification: None,
        }
    }

    /// Adds a term. `loss` gives a tensor of shape `[1]`; its value appears in the metrics under `name`. While its
    /// weight is 0 it is measured but does not count, even where it is NaN.
    ///
    /// # Panics
    /// In training, when `loss` gives another shape.
    pub fn term<F>(mut self, name: &str, weight: impl Into<Schedule>, loss: F) -> Self
    where
        F: Fn(View<'_, S, T, B, P>) -> Tensor<1> + Send + Sync + 'static,
    {
        self.terms.push(Term { name: name.into(), weight: weight.into(), loss: Arc::new(loss) });
        self
    }

    /// Adds a task: `build` gives it its terms, and what else there is to say about it.
    pub fn task<F>(mut self, name: &str, build: F) -> Self
    where
        F: FnOnce(Task<S, T, B, P>) -> Task<S, T, B, P>,
    {
        self.tasks.push(build(Task::new(name)));
        self
    }

    /// Says how the tasks' losses become one. The default is [`Balance::Fixed`]. Terms outside of tasks are not
    /// balanced.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// Sets the temperature that terms find in their view.
    pub fn temperature(mut self, temperature: impl Into<Temperature>) -> Self {
        self.temperature = temperature.into();
        self
    }

    /// Says where logits and targets are, for accuracy, agreement, KL to the teacher and calibration error.
    pub fn classification<F>(mut self, read: F) -> Self
    where
        F: Fn(View<'_, S, T, B, P>) -> Classification + Send + Sync + 'static,
    {
        self.classification = Some(Arc::new(read));
        self
    }

    /// The learned parts.
    pub fn parts(&self) -> &P {
        &self.parts
    }

    pub(crate) fn into_parts(self) -> P {
        self.parts
    }

    /// The names of the terms, in order; those of a task are `TASK/TERM`.
    pub fn term_names(&self) -> impl Iterator<Item = &str> {
        self.all_terms().map(|term| &*term.name)
    }

    /// The names of the tasks, in order.
    pub fn task_names(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| &*task.name)
    }

    fn all_terms(&self) -> impl Iterator<Item = &Term<S, T, B, P>> {
        self.terms.iter().chain(self.tasks.iter().flat_map(|task| &task.terms))
    }

    /// Whether anything is classified, here or in a task.
    pub(crate) fn has_classification(&self) -> bool {
        self.classification.is_some() || self.tasks.iter().any(|task| task.classification.is_some())
    }

    /// What training and validation data alike are measured by.
    pub(crate) fn metrics(&self) -> Vec<NamedMetric> {
        let tasks: Vec<_> = self.tasks.iter().filter(|task| task.classification.is_some()).collect();
        let names = || self.task_names().chain(self.term_names());
        let mut metrics = vec![NamedMetric::mean("total")];
        metrics.extend(names().map(NamedMetric::mean));
        if self.classification.is_some() {
            metrics.extend(Counted::ALL.map(|kind| NamedMetric::counted(kind.name(), kind, vec![None])));
        } else if !tasks.is_empty() {
            // Of all tasks together: their mean, by which the best epoch is chosen.
            let all: Vec<_> = tasks.iter().map(|task| Some(task.name.clone())).collect();
            metrics.extend(Counted::OF_TASKS.map(|kind| NamedMetric::counted(kind.name(), kind, all.clone())));
        }
        for task in tasks {
            let name = |kind: Counted| format!("{}/{}", task.name, kind.name());
            let counted = |kind| NamedMetric::counted(name(kind), kind, vec![Some(task.name.clone())]);
            metrics.extend(Counted::ALL.map(counted));
        }
        metrics.push(NamedMetric::mean("temperature"));
        metrics.extend(names().map(|name| NamedMetric::mean(format!("weight:{name}"))));
        metrics
    }

    pub(crate) fn gap_temperature(&self) -> Option<&burn_distill_schedules::GapTemperature> {
        match &self.temperature {
            Temperature::Gap(temperature) => Some(temperature),
            Temperature::Schedule(_) => None,
        }
    }

    pub(crate) fn temperature_at(&self, step: usize, gap: &GapState) -> f64 {
        self.temperature.value(step, gap)
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        if self.terms.is_empty() && self.tasks.is_empty() {
            return Err(TrainError::setting("term", "given at least once", "no term"));
        }
        let mut seen = HashSet::new();
        for name in self.task_names() {
            check_name("task", name, name, &mut seen)?;
        }
        for term in &self.terms {
            check_name("term", &term.name, &term.name, &mut seen)?;
        }
        for task in &self.tasks {
            task.validate()?;
            for term in &task.terms {
                check_name("term", &term.name, &term.name[task.name.len() + 1..], &mut seen)?;
            }
        }
        for term in self.all_terms() {
            let invalid = |source| TrainError::Schedule { field: format!("weight:{}", term.name), source };
            term.weight.validate().map_err(invalid)?;
        }
        self.validate_balance()?;
        if matches!(self.temperature, Temperature::Gap(_)) && self.classification.is_none() {
            let allowed = "a schedule, or a gap temperature beside `classification`";
            return Err(TrainError::setting("temperature", allowed, "a gap temperature alone"));
        }
        self.temperature.validate()
    }

    fn validate_balance(&self) -> Result<(), TrainError> {
        self.balance.validate()?;
        if self.balance == Balance::Fixed {
            return Ok(());
        }
        if self.tasks.len() < 2 {
            let given = format!("{:?} of {}", self.balance, self.tasks.len());
            return Err(TrainError::setting("balance", "`Fixed`, or one of at least two tasks", given));
        }
        if let Some(task) = self.tasks.iter().find(|task| task.weight.is_some()) {
            let given = format!("that of `{}` under {:?}", task.name, self.balance);
            return Err(TrainError::setting("weight", "left to the balance unless it is `Fixed`", given));
        }
        let lacks = self.tasks.iter().find(|task| task.branch.is_none());
        if let (Balance::GradNorm { .. }, Some(task)) = (self.balance, lacks) {
            let given = format!("`{}` without one", task.name);
            return Err(TrainError::setting("branch", "given for every task under `GradNorm`", given));
        }
        Ok(())
    }

    /// What a checkpoint compares.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let terms: serde_json::Map<_, _> =
            self.terms.iter().map(|term| (term.name.to_string(), json!({ "weight": term.weight }))).collect();
        let mut description = json!({ "terms": terms, "temperature": self.temperature });
        if !self.tasks.is_empty() {
            let tasks: serde_json::Map<_, _> =
                self.tasks.iter().map(|task| (task.name.to_string(), task.describe())).collect();
            description["tasks"] = tasks.into();
            description["balance"] = json!(self.balance);
        }
        description
    }

    /// The tasks' learned parameters, fresh, on a device.
    pub(crate) fn with_task_parameters(mut self, device: &Device) -> Self {
        if self.balance == Balance::Uncertainty && self.learned.log_variances.is_none() {
            let zeros = Tensor::zeros([self.tasks.len()], device);
            self.learned.log_variances = Some(Param::from_tensor(zeros));
        }
        self
    }

    /// The settings of GradNorm, if it balances.
    pub(crate) fn grad_norm(&self) -> Option<(f64, f64)> {
        match self.balance {
            Balance::GradNorm { alpha, learning_rate } => Some((alpha, learning_rate)),
            Balance::Fixed | Balance::Uncertainty => None,
        }
    }

    pub(crate) fn evaluate(&self, outputs: Outputs<'_, S, T, B>, step: usize, state: &GradNormState) -> Evaluated {
        let Outputs { student, teacher, batch, temperature } = outputs;
        let at = |mask| View { student, teacher, batch, parts: &self.parts, temperature, step, mask };
        let (mut total, terms) = Term::sum(&self.terms, step, || at(None));
        let weights = self.grad_norm().map(|_| state.weights(self.tasks.len()));
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for (index, task) in self.tasks.iter().enumerate() {
            let TaskLoss { loss, terms, present, classification } = task.evaluate(step, at);
            let weight = match (&weights, &self.learned.log_variances) {
                (Some(weights), _) => TaskWeight::Known(weights[index]),
                (None, Some(log_variances)) => TaskWeight::Learned(Box::new(log_variances.val().narrow(0, index, 1))),
                (None, None) => TaskWeight::Known(task.weight.as_ref().map_or(1.0, |weight| weight.value(step))),
            };
            let counts = loss.is_some() && !matches!(weight, TaskWeight::Known(0.0));
            let loss = loss.unwrap_or_else(|| Tensor::zeros([1], &terms[0].value.device()));
            if counts {
                total = add(total, weight.apply(loss.clone(), present.as_ref()));
            }
            let branch = task.branch.as_ref().filter(|_| counts && weights.is_some());
            tasks.push(TaskValue {
                name: task.name.clone(),
                loss: loss.detach(),
                counts,
                weight: weight.detach(),
                terms,
                present,
                classification,
                pull: branch.map(|branch| branch(student)),
            });
        }
        // Every weight may be 0 at some step: then there is nothing to learn, but a number to show.
        let total = total.unwrap_or_else(|| {
            let first = terms.iter().chain(tasks.iter().flat_map(|task| &task.terms)).next();
            Tensor::zeros([1], &first.map_or_else(Device::default, |term| term.value.device()))
        });
        let classification = self.classification.as_ref().map(|read| read(at(None)));
        Evaluated { total, terms, tasks, classification }
    }
}

/// Names become metrics: `own` is what was given, `full` the metric.
fn check_name<'a>(
    field: &'static str,
    full: &'a str,
    own: &str,
    seen: &mut HashSet<&'a str>,
) -> Result<(), TrainError> {
    if own.is_empty() || crate::metric::is_reserved(own) {
        let allowed = "a name that is not empty, has no colon or slash, and is no other metric's";
        return Err(TrainError::setting(field, allowed, format!("`{own}`")));
    }
    match seen.insert(full) {
        true => Ok(()),
        false => Err(TrainError::setting(field, "named once", format!("`{full}` twice"))),
    }
}

/// What student and teacher said about a batch.
pub(crate) struct Outputs<'a, S, T, B> {
    pub(crate) student: &'a S,
    pub(crate) teacher: &'a T,
    pub(crate) batch: &'a B,
    pub(crate) temperature: f64,
}

/// The objective's values for one batch.
pub(crate) struct Evaluated {
    pub(crate) total: Tensor<1>,
    pub(crate) terms: Vec<TermValue>,
    pub(crate) tasks: Vec<TaskValue>,
    pub(crate) classification: Option<Classification>,
}

impl Evaluated {
    /// The values that the total is made of.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &TermValue> {
        let of_tasks = self.tasks.iter().filter(|task| task.counts).flat_map(|task| &task.terms);
        self.terms.iter().chain(of_tasks).filter(|term| term.weight != 0.0)
    }
}

/// A term's value for one batch.
#[derive(Clone, Debug)]
pub(crate) struct TermValue {
    pub(crate) name: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) value: Tensor<1>,
}
