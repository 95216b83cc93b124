use serde::{Deserialize, Serialize};

use crate::error::{require_finite, require_steps};
use crate::interpolate::{lerp, progress};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Linear {
    from: f64,
    to: f64,
    steps: usize,
}

impl Schedule {
    /// A straight line from one value to another. Continuous, monotone.
    ///
    /// ```text
    /// value(step) = from + (to - from) * min(step / steps, 1)
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | `steps` and after | `to` |
    ///
    /// PyTorch's `LinearLR` with `from = lr * start_factor`, `to = lr * end_factor`, `steps = total_iters`.
    ///
    /// # Errors
    ///
    /// A `from` or `to` that is NaN or infinite; `steps` of 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let soft_weight = Schedule::linear(1.0, 0.5, 100)?;
    /// assert_eq!(soft_weight.value(0), 1.0);
    /// assert_eq!(soft_weight.value(50), 0.75);
    /// assert_eq!(soft_weight.value(100), 0.5);
    /// assert_eq!(soft_weight.value(101), 0.5);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn linear(from: f64, to: f64, steps: usize) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Linear(Linear { from, to, steps }))
    }
}

impl Curve for Linear {
    fn value(&self, step: usize) -> f64 {
        lerp(self.from, self.to, progress(step, self.steps))
    }

    fn end(&self) -> Option<usize> {
        Some(self.steps)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_finite("from", self.from)?;
        require_finite("to", self.to)?;
        require_steps("steps", self.steps)
    }
}
