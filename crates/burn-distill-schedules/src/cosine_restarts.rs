use serde::{Deserialize, Serialize};

use crate::error::{require, require_finite, require_steps};
use crate::interpolate::{half_cosine, lerp};
use crate::shape::{Curve, Shape};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CosineRestarts {
    from: f64,
    to: f64,
    first_cycle: usize,
    cycle_multiplier: usize,
    decay: f64,
}

impl Schedule {
    /// Half a cosine towards `to`, over and over, each cycle `cycle_multiplier` times as long as the one before.
    /// Monotone within a cycle; it jumps where a cycle starts.
    ///
    /// ```text
    /// length(k) = first_cycle * cycle_multiplier^k           cycle k starts where cycle k - 1 has run its length
    /// peak(k)   = to + (from - to) * decay^k
    /// value     = to + (peak(k) - to) * (1 + cos(pi * (step - start(k)) / length(k))) / 2
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `from` |
    /// | `first_cycle - 1` | near `to`, the lowest of the first cycle |
    /// | `first_cycle` | `to + (from - to) * decay` |
    ///
    /// It never settles. With `decay` = 1 it is PyTorch's `CosineAnnealingWarmRestarts` (`T_0 = first_cycle`,
    /// `T_mult = cycle_multiplier`, `eta_min = to`).
    ///
    /// # Errors
    ///
    /// A `from` or `to` that is NaN or infinite; a `cycle_multiplier` of 0; a `first_cycle` of 0, or of 1 where
    /// `cycle_multiplier` is 1 too (every step would be a restart); a `decay` outside (0, 1].
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::cosine_restarts(8.0, 0.0, 2, 2, 0.5)?;
    /// let values: Vec<f64> = (0..7).map(|step| (schedule.value(step) * 1e6).round() / 1e6).collect();
    /// assert_eq!(values, [8.0, 4.0, 4.0, 3.414214, 2.0, 0.585786, 2.0]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    ///
    /// # References
    ///
    /// Loshchilov and Hutter, [SGDR](https://arxiv.org/abs/1608.03983), equation 5.
    pub fn cosine_restarts(
        from: f64,
        to: f64,
        first_cycle: usize,
        cycle_multiplier: usize,
        decay: f64,
    ) -> Result<Self, ScheduleError> {
        Self::validated(Shape::CosineRestarts(CosineRestarts { from, to, first_cycle, cycle_multiplier, decay }))
    }
}

struct Cycle {
    index: usize,
    start: usize,
    length: usize,
}

impl CosineRestarts {
    fn cycle(&self, step: usize) -> Cycle {
        if self.cycle_multiplier == 1 {
            let index = step / self.first_cycle;
            return Cycle { index, start: index * self.first_cycle, length: self.first_cycle };
        }
        // At most 64 cycles, as each is at least twice as long as the one before.
        let mut cycle = Cycle { index: 0, start: 0, length: self.first_cycle };
        while step - cycle.start >= cycle.length {
            cycle.index += 1;
            cycle.start += cycle.length;
            cycle.length = cycle.length.saturating_mul(self.cycle_multiplier);
        }
        cycle
    }
}

impl Curve for CosineRestarts {
    fn value(&self, step: usize) -> f64 {
        let Cycle { index, start, length } = self.cycle(step);
        let peak = lerp(self.to, self.from, self.decay.powf(index as f64));
        half_cosine(peak, self.to, (step - start) as f64 / length as f64)
    }

    fn end(&self) -> Option<usize> {
        // From `to` to `to` is the one case that stands still.
        (self.from == self.to).then_some(0)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        require_finite("from", self.from)?;
        require_finite("to", self.to)?;
        require_steps("cycle_multiplier", self.cycle_multiplier)?;
        require_steps("first_cycle", self.first_cycle)?;
        require(
            self.first_cycle > 1 || self.cycle_multiplier > 1,
            "first_cycle",
            "[2, inf) where `cycle_multiplier` is 1",
            self.first_cycle,
        )?;
        require(self.decay > 0.0 && self.decay <= 1.0, "decay", "(0, 1]", self.decay)
    }

    fn turning_points(&self, last: usize) -> Vec<usize> {
        // A later cycle starts no further from `to` than the first, and comes at least as near to it. So the extremes
        // are at 0, at the last step of the last full cycle, and in the cycle after it, at `last`.
        self.cycle(last).start.checked_sub(1).into_iter().collect()
    }
}
