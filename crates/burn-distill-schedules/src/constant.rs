use serde::{Deserialize, Serialize};

use crate::error::require_finite;
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Constant(pub(crate) f64);

impl Schedule {
    /// The same value at every step.
    ///
    /// ```text
    /// value(step) = value
    /// ```
    ///
    /// # Errors
    ///
    /// A `value` that is NaN or infinite.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let temperature = Schedule::constant(4.0)?;
    /// assert_eq!(temperature.value(0), 4.0);
    /// assert_eq!(temperature.value(1_000_000), 4.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn constant(value: f64) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Constant(Constant(value)))
    }
}

impl Curve for Constant {
    fn value(&self, _step: usize) -> f64 {
        self.0
    }

    fn end(&self) -> Option<usize> {
        Some(0)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_finite("value", self.0)
    }
}
