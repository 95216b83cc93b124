use serde::{Deserialize, Serialize};

use crate::error::{require, require_nonzero, require_steps};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MultiStep {
    from: f64,
    factor: f64,
    milestones: Vec<usize>,
}

impl Schedule {
    /// A staircase: multiplied by `factor` at each milestone. Monotone; it rises where `factor` is above 1.
    ///
    /// ```text
    /// value(step) = from * factor^n        n = number of milestones <= step
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 to `milestones[0] - 1` | `from` |
    /// | `milestones[0]` to `milestones[1] - 1` | `from * factor` |
    /// | the last milestone and after | `from * factor^milestones.len()` |
    ///
    /// PyTorch's `MultiStepLR` with `gamma = factor`.
    ///
    /// # Errors
    ///
    /// A `from` that is NaN, infinite or 0; a `factor` outside (0, inf), equal to 1, or so large that the last value
    /// is infinite; `milestones` that are empty, not strictly increasing, or begin with 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::multi_step(1.0, 0.5, [150, 180, 210])?;
    /// assert_eq!([0, 149, 150, 180, 210, 240].map(|step| schedule.value(step)), [1.0, 1.0, 0.5, 0.25, 0.125, 0.125]);
    /// assert_eq!(schedule.end(), Some(210));
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn multi_step(from: f64, factor: f64, milestones: impl Into<Vec<usize>>) -> Result<Self, ScheduleError> {
        Self::validated(Shape::MultiStep(MultiStep { from, factor, milestones: milestones.into() }))
    }
}

impl MultiStep {
    fn after(&self, milestones: usize) -> f64 {
        self.from * self.factor.powf(milestones as f64)
    }
}

impl Curve for MultiStep {
    fn value(&self, step: usize) -> f64 {
        self.after(self.milestones.partition_point(|&milestone| milestone <= step))
    }

    fn end(&self) -> Option<usize> {
        Some(self.milestones.last().copied().unwrap_or(0))
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_nonzero("from", self.from)?;
        require(
            self.factor > 0.0 && self.factor.is_finite() && self.factor != 1.0,
            "factor",
            "(0, 1) or (1, inf)",
            self.factor,
        )?;
        let Some(&first) = self.milestones.first() else {
            return Err(ScheduleError::Empty { parameter: "milestones" });
        };
        require_steps("milestones[0]", first)?;
        if let Some(pair) = self.milestones.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(ScheduleError::NotIncreasing { parameter: "milestones", previous: pair[0], given: pair[1] });
        }
        let count = self.milestones.len();
        let range = || format!("(0, 1) or (1, inf) with a finite `from` * `factor`^{count}");
        require(self.after(count).is_finite(), "factor", range(), self.factor)
    }
}
