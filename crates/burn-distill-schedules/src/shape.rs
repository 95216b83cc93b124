use serde::{Deserialize, Serialize};

use crate::ScheduleError;
use crate::constant::Constant;
use crate::cosine::Cosine;
use crate::cosine_restarts::CosineRestarts;
use crate::exponential::Exponential;
use crate::linear::Linear;
use crate::multi_step::MultiStep;
use crate::one_cycle::OneCycle;
use crate::piecewise::Piecewise;
use crate::polynomial::Polynomial;
use crate::step_decay::StepDecay;
use crate::warmup::Warmup;
use crate::warmup_stable_decay::WarmupStableDecay;

/// What every kind of schedule answers.
pub(crate) trait Curve {
    /// The value at a step. Total: defined for every step of a validated schedule.
    fn value(&self, step: usize) -> f64;

    /// The first step from which the value is constant by construction.
    fn end(&self) -> Option<usize>;

    fn validate(&self) -> Result<(), ScheduleError>;

    /// The steps in `0..=last` between which the value is monotone, besides 0 and `last`.
    fn turning_points(&self, _last: usize) -> Vec<usize> {
        Vec::new()
    }

    /// The least and the greatest value at the steps `0..=last`.
    fn bounds(&self, last: usize) -> (f64, f64) {
        let ends = point(self.value(0));
        self.turning_points(last).into_iter().chain([last]).map(|step| point(self.value(step))).fold(ends, hull)
    }

    /// How many schedules lie inside each other here, this one included.
    fn depth(&self) -> usize {
        1
    }
}

/// The bounds of a single value.
pub(crate) fn point(value: f64) -> (f64, f64) {
    (value, value)
}

/// The smallest bounds that hold both.
pub(crate) fn hull(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Every kind of schedule, as it is serialised: `{"cosine": {"from": 8.0, "to": 1.0, "steps": 1000}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    Constant(Constant),
    Linear(Linear),
    Polynomial(Polynomial),
    Cosine(Cosine),
    CosineRestarts(CosineRestarts),
    Exponential(Exponential),
    StepDecay(StepDecay),
    MultiStep(MultiStep),
    OneCycle(OneCycle),
    Warmup(Warmup),
    WarmupStableDecay(WarmupStableDecay),
    Piecewise(Piecewise),
}

impl Shape {
    pub(crate) fn curve(&self) -> &dyn Curve {
        match self {
            Shape::Constant(curve) => curve,
            Shape::Linear(curve) => curve,
            Shape::Polynomial(curve) => curve,
            Shape::Cosine(curve) => curve,
            Shape::CosineRestarts(curve) => curve,
            Shape::Exponential(curve) => curve,
            Shape::StepDecay(curve) => curve,
            Shape::MultiStep(curve) => curve,
            Shape::OneCycle(curve) => curve,
            Shape::Warmup(curve) => curve,
            Shape::WarmupStableDecay(curve) => curve,
            Shape::Piecewise(curve) => curve,
        }
    }
}
