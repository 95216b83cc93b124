use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::interpolate::half_cosine;
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneCycle {
    max: f64,
    steps: usize,
    pct_start: f64,
    div_factor: f64,
    final_div_factor: f64,
}

impl Schedule {
    /// One rise and one long fall, both half a cosine, with PyTorch's defaults: `pct_start` 0.3, `div_factor` 25,
    /// `final_div_factor` 1e4. See [`one_cycle_with`](Self::one_cycle_with).
    ///
    /// # Errors
    ///
    /// A `max` outside (0, inf); `steps` below 4.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let learning_rate = Schedule::one_cycle(0.1, 10)?;
    /// assert_eq!(learning_rate.value(0), 0.004);
    /// assert_eq!(learning_rate.value(2), 0.1);
    /// assert_eq!(learning_rate.value(9), 4e-7);
    /// assert_eq!(learning_rate.value(10), 4e-7);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn one_cycle(max: f64, steps: usize) -> Result<Self, ScheduleError> {
        Self::one_cycle_with(max, steps, 0.3, 25.0, 1e4)
    }

    /// One rise to `max` and one fall far below the start, both half a cosine. Continuous; monotone on each side of
    /// the peak.
    ///
    /// ```text
    /// initial = max / div_factor
    /// last    = initial / final_div_factor
    /// peak    = pct_start * steps - 1                  a position between steps, where it is no whole number
    ///
    /// value   = cos(initial -> max, step / peak)                             step <= peak
    ///         = cos(max -> last, (step - peak) / (steps - 1 - peak))         peak < step < steps
    /// cos(a -> b, t) = b + (a - b) * (1 + cos(pi * t)) / 2
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `initial` |
    /// | `pct_start * steps - 1` | `max` |
    /// | `steps - 1` and after | `last` |
    ///
    /// PyTorch's `OneCycleLR` with `total_steps = steps` and `anneal_strategy = "cos"`, two phases. The cycle takes
    /// `steps` values, so its last one is at `steps - 1`; a step beyond, which PyTorch refuses, holds it.
    ///
    /// # Errors
    ///
    /// A `max` outside (0, inf); a `pct_start` outside (0, 1); a `div_factor` or `final_div_factor` outside
    /// [1, inf); so few `steps` that `pct_start * steps` is not above 1, which leaves no step to rise in.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::one_cycle_with(8.0, 10, 0.5, 4.0, 2.0)?;
    /// assert_eq!([0, 2, 4, 9].map(|step| schedule.value(step)), [2.0, 5.0, 8.0, 1.0]);
    /// assert_eq!(schedule.bounds(), (1.0, 8.0));
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    ///
    /// # References
    ///
    /// Smith and Topin, [Super-Convergence](https://arxiv.org/abs/1708.07120). The cosine in place of the paper's
    /// straight lines, and two phases in place of three, are fastai's and PyTorch's.
    pub fn one_cycle_with(
        max: f64,
        steps: usize,
        pct_start: f64,
        div_factor: f64,
        final_div_factor: f64,
    ) -> Result<Self, ScheduleError> {
        Self::validated(Shape::OneCycle(OneCycle { max, steps, pct_start, div_factor, final_div_factor }))
    }
}

impl OneCycle {
    fn initial(&self) -> f64 {
        self.max / self.div_factor
    }

    fn last(&self) -> f64 {
        self.initial() / self.final_div_factor
    }

    fn peak(&self) -> f64 {
        self.pct_start * self.steps as f64 - 1.0
    }
}

impl Curve for OneCycle {
    fn value(&self, step: usize) -> f64 {
        let end = self.steps - 1;
        if step >= end {
            return self.last();
        }
        let (step, peak, end) = (step as f64, self.peak(), end as f64);
        if step <= peak {
            half_cosine(self.initial(), self.max, step / peak)
        } else {
            half_cosine(self.max, self.last(), (step - peak) / (end - peak))
        }
    }

    fn end(&self) -> Option<usize> {
        Some(self.steps - 1)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        let divisor = |factor: f64| factor >= 1.0 && factor.is_finite();
        require(self.max > 0.0 && self.max.is_finite(), "max", "(0, inf)", self.max)?;
        require(self.pct_start > 0.0 && self.pct_start < 1.0, "pct_start", "(0, 1)", self.pct_start)?;
        require(divisor(self.div_factor), "div_factor", "[1, inf)", self.div_factor)?;
        require(divisor(self.final_div_factor), "final_div_factor", "[1, inf)", self.final_div_factor)?;
        let range = || format!("(1 / `pct_start`, inf) = ({}, inf)", 1.0 / self.pct_start);
        require(self.peak() > 0.0, "steps", range(), self.steps)
    }

    fn turning_points(&self, last: usize) -> Vec<usize> {
        let before = self.peak() as usize;
        [before, before.saturating_add(1)].into_iter().filter(|&step| step <= last).collect()
    }
}
