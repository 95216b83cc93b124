use serde::{Deserialize, Serialize};

use crate::error::{require, require_nonzero, require_steps};
use crate::interpolate::{lerp, progress};
use crate::shape::{Curve, Shape, hull, point};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Warmup {
    steps: usize,
    start_factor: f64,
    after: Box<Schedule>,
}

impl Schedule {
    /// This schedule after a straight rise from 0 to its first value.
    /// [`with_warmup_from`](Self::with_warmup_from) with a `start_factor` of 0.
    ///
    /// # Errors
    ///
    /// `steps` of 0; a schedule whose first value is 0, which leaves nothing to rise to.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let learning_rate = Schedule::cosine(0.1, 0.0, 90)?.with_warmup(10)?;
    /// assert_eq!(learning_rate.value(0), 0.0);
    /// assert_eq!(learning_rate.value(5), 0.05);
    /// assert_eq!(learning_rate.value(10), 0.1);
    /// assert_eq!(learning_rate.value(100), 0.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn with_warmup(self, steps: usize) -> Result<Self, ScheduleError> {
        self.with_warmup_from(0.0, steps)
    }

    /// This schedule after a straight rise from a part of its first value. Continuous at the joint.
    ///
    /// ```text
    /// value(step) = first * (start_factor + (1 - start_factor) * step / steps)      step < steps
    ///             = after(step - steps)                                             step >= steps
    /// first       = after(0)
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `start_factor * after(0)` |
    /// | `steps` | `after(0)` |
    /// | `steps + n` | `after(n)` |
    ///
    /// PyTorch's `SequentialLR` of a `LinearLR(start_factor, total_iters=steps)` and the schedule, with the milestone
    /// `steps`.
    ///
    /// # Errors
    ///
    /// A `start_factor` outside [0, 1); `steps` of 0; a schedule whose first value is 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::linear(8.0, 0.0, 4)?.with_warmup_from(0.5, 2)?;
    /// assert_eq!([0, 1, 2, 3, 6, 7].map(|step| schedule.value(step)), [4.0, 6.0, 8.0, 6.0, 0.0, 0.0]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn with_warmup_from(self, start_factor: f64, steps: usize) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Warmup(Warmup { steps, start_factor, after: Box::new(self) }))
    }
}

impl Curve for Warmup {
    fn value(&self, step: usize) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.after.value(step),
            None => {
                let first = self.after.value(0);
                lerp(self.start_factor * first, first, progress(step, self.steps))
            }
        }
    }

    fn end(&self) -> Option<usize> {
        self.after.end()?.checked_add(self.steps)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_steps("steps", self.steps)?;
        require(self.start_factor >= 0.0 && self.start_factor < 1.0, "start_factor", "[0, 1)", self.start_factor)?;
        self.after.validate()?;
        require_nonzero("after.value(0)", self.after.value(0))
    }

    fn bounds(&self, last: usize) -> (f64, f64) {
        let rise = hull(point(self.value(0)), point(self.value(last.min(self.steps))));
        match last.checked_sub(self.steps) {
            Some(last) => hull(rise, self.after.bounds_until(last)),
            None => rise,
        }
    }

    fn depth(&self) -> usize {
        1 + self.after.depth()
    }
}
