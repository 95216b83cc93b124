use serde::{Deserialize, Serialize};

use crate::error::{require_finite, require_steps};
use crate::interpolate::{half_cosine, progress};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cosine {
    from: f64,
    to: f64,
    steps: usize,
}

impl Schedule {
    /// Half a cosine from one value to another, flat at both ends. Continuous, monotone.
    ///
    /// ```text
    /// value(step) = to + (from - to) * (1 + cos(pi * min(step / steps, 1))) / 2
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | `steps / 2` | `(from + to) / 2` |
    /// | `steps` and after | `to` |
    ///
    /// Up to `steps` it is PyTorch's `CosineAnnealingLR` with `T_max = steps` and `eta_min = to`. Beyond, PyTorch's
    /// (and Burn's) rises again; this one holds `to`.
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
    /// let temperature = Schedule::cosine(8.0, 1.0, 1000)?;
    /// assert_eq!(temperature.value(0), 8.0);
    /// assert!((temperature.value(500) - 4.5).abs() < 1e-12);
    /// assert_eq!(temperature.value(1000), 1.0);
    /// assert_eq!(temperature.value(2000), 1.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    ///
    /// # References
    ///
    /// Loshchilov and Hutter, [SGDR](https://arxiv.org/abs/1608.03983), equation 5, with a single cycle.
    pub fn cosine(from: f64, to: f64, steps: usize) -> Result<Self, ScheduleError> {
        Self::validated(Shape::Cosine(Cosine { from, to, steps }))
    }
}

impl Curve for Cosine {
    fn value(&self, step: usize) -> f64 {
        half_cosine(self.from, self.to, progress(step, self.steps))
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
