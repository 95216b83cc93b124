use serde::{Deserialize, Serialize};

use crate::error::{require, require_decay, require_nonzero};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exponential {
    from: f64,
    rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<f64>,
}

impl Schedule {
    /// Shrinks by the same factor at every step, towards 0. Monotone.
    ///
    /// ```text
    /// value(step) = from * rate^step
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | infinity | 0 |
    ///
    /// It never settles. PyTorch's `ExponentialLR` with `gamma = rate`.
    ///
    /// # Errors
    ///
    /// A `from` that is NaN, infinite or 0; a `rate` outside (0, 1).
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::exponential(8.0, 0.5)?;
    /// assert_eq!([0, 1, 2, 3].map(|step| schedule.value(step)), [8.0, 4.0, 2.0, 1.0]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn exponential(from: f64, rate: f64) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Exponential(Exponential { from, rate, floor: None }))
    }

    /// [`exponential`](Self::exponential) that stops at a floor. Monotone.
    ///
    /// ```text
    /// value(step) = max(from * rate^step, floor)
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | the first with `from * rate^step <= floor`, and after | `floor` |
    ///
    /// # Errors
    ///
    /// A `from` that is NaN, infinite or 0; a `rate` outside (0, 1); a `floor` outside (0, `from`).
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let temperature = Schedule::exponential_with_floor(8.0, 0.5, 1.5)?;
    /// assert_eq!([0, 1, 2, 3, 4].map(|step| temperature.value(step)), [8.0, 4.0, 2.0, 1.5, 1.5]);
    /// assert_eq!(temperature.end(), Some(3));
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn exponential_with_floor(from: f64, rate: f64, floor: f64) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Exponential(Exponential { from, rate, floor: Some(floor) }))
    }
}

impl Curve for Exponential {
    fn value(&self, step: usize) -> f64 {
        let value = self.from * self.rate.powf(step as f64);
        self.floor.map_or(value, |floor| value.max(floor))
    }

    fn end(&self) -> Option<usize> {
        let floor = self.floor?;
        if self.value(usize::MAX) > floor {
            return None;
        }
        // The first step at the floor, by bisection: a quotient of logarithms would round to a step beside it.
        let (mut low, mut high) = (0, usize::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.value(middle) > floor { low = middle + 1 } else { high = middle }
        }
        Some(low)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_nonzero("from", self.from)?;
        require_decay("rate", self.rate)?;
        match self.floor {
            Some(floor) => require(floor > 0.0 && floor < self.from, "floor", format!("(0, {})", self.from), floor),
            None => Ok(()),
        }
    }
}
