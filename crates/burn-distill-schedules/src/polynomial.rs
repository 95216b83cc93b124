use serde::{Deserialize, Serialize};

use crate::error::{require, require_finite, require_steps};
use crate::interpolate::lerp;
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Polynomial {
    from: f64,
    to: f64,
    power: f64,
    steps: usize,
}

impl Schedule {
    /// A power of the remaining fraction of the steps. Continuous, monotone.
    ///
    /// ```text
    /// value(step) = to + (from - to) * (1 - min(step / steps, 1))^power
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | `steps` and after | `to` |
    ///
    /// A `power` of 1 is [`linear`](Self::linear); above 1 it falls fast at first, below 1 fast at the end. With
    /// `to` = 0 it is PyTorch's `PolynomialLR`.
    ///
    /// # Errors
    ///
    /// A `from` or `to` that is NaN or infinite; a `power` outside (0, inf); `steps` of 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::polynomial(5.0, 1.0, 2.0, 10)?;
    /// assert_eq!(schedule.value(0), 5.0);
    /// assert_eq!(schedule.value(5), 2.0);
    /// assert_eq!(schedule.value(10), 1.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn polynomial(from: f64, to: f64, power: f64, steps: usize) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Polynomial(Polynomial { from, to, power, steps }))
    }
}

impl Curve for Polynomial {
    fn value(&self, step: usize) -> f64 {
        let remaining = self.steps.saturating_sub(step) as f64 / self.steps as f64;
        lerp(self.to, self.from, remaining.powf(self.power))
    }

    fn end(&self) -> Option<usize> {
        Some(self.steps)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_finite("from", self.from)?;
        require_finite("to", self.to)?;
        require(self.power > 0.0 && self.power.is_finite(), "power", "(0, inf)", self.power)?;
        require_steps("steps", self.steps)
    }
}
