use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_distill_schedules::{GapState, Schedule};
use serde_json::json;

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
type ClassificationFn<S, T, B, P> = Arc<dyn Fn(View<'_, S, T, B, P>) -> Classification + Send + Sync>;

struct Term<S, T, B, P> {
    name: Arc<str>,
    weight: Schedule,
    loss: TermFn<S, T, B, P>,
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
pub struct Objective<S, T, B, P = NoParts> {
    parts: P,
    terms: Vec<Term<S, T, B, P>>,
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
        Self { parts, terms: Vec::new(), temperature: 1.0.into(), classification: None }
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

    /// The names of the terms, in order.
    pub fn term_names(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| &*term.name)
    }

    pub(crate) fn has_classification(&self) -> bool {
        self.classification.is_some()
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
        if self.terms.is_empty() {
            return Err(TrainError::setting("term", "given at least once", "no term"));
        }
        for (index, term) in self.terms.iter().enumerate() {
            let invalid = |source| TrainError::Schedule { field: format!("weight:{}", term.name), source };
            term.weight.validate().map_err(invalid)?;
            if self.terms[..index].iter().any(|other| other.name == term.name) {
                return Err(TrainError::setting("term", "named once", format!("`{}` twice", term.name)));
            }
            if term.name.is_empty() || crate::metric::is_reserved(&term.name) {
                let allowed = "a name that is not empty, has no colon, and is no other metric's";
                return Err(TrainError::setting("term", allowed, format!("`{}`", term.name)));
            }
        }
        if matches!(self.temperature, Temperature::Gap(_)) && self.classification.is_none() {
            let allowed = "a schedule, or a gap temperature beside `classification`";
            return Err(TrainError::setting("temperature", allowed, "a gap temperature alone"));
        }
        self.temperature.validate()
    }

    /// What a checkpoint compares.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let terms: serde_json::Map<_, _> =
            self.terms.iter().map(|term| (term.name.to_string(), json!({ "weight": term.weight }))).collect();
        json!({ "terms": terms, "temperature": self.temperature })
    }

    pub(crate) fn evaluate(&self, student: &S, teacher: &T, batch: &B, step: usize, temperature: f64) -> Evaluated {
        let view = || View { student, teacher, batch, parts: &self.parts, temperature, step };
        let mut total: Option<Tensor<1>> = None;
        let mut terms = Vec::with_capacity(self.terms.len());
        for term in &self.terms {
            let value = (term.loss)(view());
            assert_eq!(value.dims(), [1], "the term `{}` must give a tensor of shape [1]", term.name);
            let weight = term.weight.value(step);
            if weight != 0.0 {
                let weighted = value.clone().mul_scalar(weight);
                total = Some(match total {
                    Some(total) => total + weighted,
                    None => weighted,
                });
            }
            terms.push(TermValue { name: term.name.clone(), weight, value: value.detach() });
        }
        // Every weight may be 0 at some step: then there is nothing to learn, but a number to show.
        let total = total.unwrap_or_else(|| Tensor::zeros([1], &terms[0].value.device()));
        let classification = self.classification.as_ref().map(|read| read(view()));
        Evaluated { total, terms, classification }
    }
}

/// The objective's values for one batch.
pub(crate) struct Evaluated {
    pub(crate) total: Tensor<1>,
    pub(crate) terms: Vec<TermValue>,
    pub(crate) classification: Option<Classification>,
}

#[derive(Clone, Debug)]
pub(crate) struct TermValue {
    pub(crate) name: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) value: Tensor<1>,
}

impl<S, T, B, P> Clone for Term<S, T, B, P> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), weight: self.weight.clone(), loss: self.loss.clone() }
    }
}

impl<S, T, B, P: Clone> Clone for Objective<S, T, B, P> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            terms: self.terms.clone(),
            temperature: self.temperature.clone(),
            classification: self.classification.clone(),
        }
    }
}

impl<S, T, B, P: fmt::Debug> fmt::Debug for Objective<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<_> = self.terms.iter().map(|term| (&term.name, &term.weight)).collect();
        f.debug_struct("Objective")
            .field("terms", &terms)
            .field("temperature", &self.temperature)
            .field("parts", &self.parts)
            .finish()
    }
}

impl<S, T, B, P: Module> Objective<S, T, B, P> {
    fn map_parts(self, f: impl FnOnce(P) -> P) -> Self {
        Self { parts: f(self.parts), ..self }
    }
}

/// The parts are the module; terms and schedules are code and configuration.
impl<S, T, B, P: Module> Module for Objective<S, T, B, P> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.parts.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.map_parts(|parts| parts.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_parts(|parts| parts.to_device(device))
    }

    fn materialize(self) -> Self {
        self.map_parts(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.parts.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_parts(|parts| parts.map(mapper))
    }

    fn valid(&self) -> Self {
        self.clone().map_parts(|parts| parts.valid())
    }

    fn train(self) -> Self {
        self.map_parts(Module::train)
    }
}
