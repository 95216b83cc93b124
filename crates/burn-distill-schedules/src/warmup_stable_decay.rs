use serde::{Deserialize, Serialize};

use crate::error::{require_finite, require_nonzero, require_steps};
use crate::interpolate::{lerp, progress};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WarmupStableDecay {
    peak: f64,
    warmup: usize,
    stable: usize,
    decay: usize,
    final_value: f64,
}

impl Schedule {
    /// A straight rise from 0, a plateau, and a straight fall. Continuous; monotone in each phase.
    ///
    /// ```text
    /// value = peak * step / warmup                                                  step < warmup
    ///       = peak                                                                  step < warmup + stable
    ///       = peak + (final_value - peak) * min((step - warmup - stable) / decay, 1)    after
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | 0 |
    /// | `warmup` to `warmup + stable` | `peak` |
    /// | `warmup + stable + decay` and after | `final_value` |
    ///
    /// Another form of fall is a composition: `Schedule::constant(peak)?.then(stable, fall)?.with_warmup(warmup)?`.
    ///
    /// # Errors
    ///
    /// A `peak` that is NaN, infinite or 0; a `final_value` that is NaN or infinite; a phase of 0 steps; phases whose
    /// sum overflows.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let learning_rate = Schedule::warmup_stable_decay(1.0, 2, 3, 4, 0.0)?;
    /// let values: Vec<f64> = (0..=10).map(|step| learning_rate.value(step)).collect();
    /// assert_eq!(values, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    ///
    /// # References
    ///
    /// Hu et al., [MiniCPM](https://arxiv.org/abs/2404.06395), section 4, who leave the form of the fall open; the
    /// linear fall is that of Hägele et al., [Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    /// Durations](https://arxiv.org/abs/2405.18392).
    pub fn warmup_stable_decay(
        peak: f64,
        warmup: usize,
        stable: usize,
        decay: usize,
        final_value: f64,
    ) -> Result<Self, ScheduleError> {
        Self::validated(Shape::WarmupStableDecay(WarmupStableDecay { peak, warmup, stable, decay, final_value }))
    }
}

impl WarmupStableDecay {
    /// The step at which the fall begins, at most `usize::MAX` in a validated schedule.
    fn fall(&self) -> usize {
        self.warmup.saturating_add(self.stable)
    }
}

impl Curve for WarmupStableDecay {
    fn value(&self, step: usize) -> f64 {
        if step < self.warmup {
            lerp(0.0, self.peak, progress(step, self.warmup))
        } else {
            lerp(self.peak, self.final_value, progress(step.saturating_sub(self.fall()), self.decay))
        }
    }

    fn end(&self) -> Option<usize> {
        self.fall().checked_add(self.decay)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_nonzero("peak", self.peak)?;
        require_steps("warmup", self.warmup)?;
        require_steps("stable", self.stable)?;
        require_steps("decay", self.decay)?;
        require_finite("final_value", self.final_value)?;
        let sum = self.warmup.checked_add(self.stable).and_then(|sum| sum.checked_add(self.decay));
        sum.map(|_| ()).ok_or(ScheduleError::TooManySteps { parameters: "`warmup`, `stable` and `decay`" })
    }

    fn turning_points(&self, last: usize) -> Vec<usize> {
        // The value rises (or falls) to the plateau, and then to the end.
        vec![self.warmup.min(last)]
    }
}
