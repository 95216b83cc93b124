use serde::{Deserialize, Serialize};

use crate::error::{require_decay, require_nonzero, require_steps};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepDecay {
    from: f64,
    factor: f64,
    every: usize,
}

impl Schedule {
    /// A staircase towards 0: multiplied by `factor` once `every` so many steps. Monotone.
    ///
    /// ```text
    /// value(step) = from * factor^floor(step / every)
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 to `every - 1` | `from` |
    /// | `every` to `2 * every - 1` | `from * factor` |
    /// | infinity | 0 |
    ///
    /// It never settles. PyTorch's `StepLR` with `gamma = factor` and `step_size = every`.
    ///
    /// # Errors
    ///
    /// A `from` that is NaN, infinite or 0; a `factor` outside (0, 1); `every` of 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::step_decay(1.0, 0.5, 30)?;
    /// assert_eq!([0, 29, 30, 59, 60].map(|step| schedule.value(step)), [1.0, 1.0, 0.5, 0.5, 0.25]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn step_decay(from: f64, factor: f64, every: usize) -> Result<Self, ScheduleError> {
        Self::validated(Shape::StepDecay(StepDecay { from, factor, every }))
    }
}

impl Curve for StepDecay {
    fn value(&self, step: usize) -> f64 {
        self.from * self.factor.powf((step / self.every) as f64)
    }

    fn end(&self) -> Option<usize> {
        None
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_nonzero("from", self.from)?;
        require_decay("factor", self.factor)?;
        require_steps("every", self.every)
    }
}
