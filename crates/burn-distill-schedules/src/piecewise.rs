use serde::{Deserialize, Serialize};

use crate::error::require_steps;
use crate::shape::{Curve, Shape, hull};
use crate::{Schedule, ScheduleError};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piecewise {
    first: Box<Schedule>,
    then: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    at_step: usize,
    schedule: Schedule,
}

impl Schedule {
    /// This schedule before `at_step`, and from there on `next`, which starts at its own step 0. It may jump at the
    /// joint.
    ///
    /// ```text
    /// value(step) = self(step)              step < at_step
    ///             = next(step - at_step)    step >= at_step
    /// ```
    ///
    /// | step | value |
    /// |---|---|
    /// | 0 | `self(0)` |
    /// | `at_step - 1` | `self(at_step - 1)` |
    /// | `at_step` | `next(0)` |
    ///
    /// In a chain `a.then(100, b)?.then(300, c)?` every `at_step` counts from the start of the whole, so `c` starts at
    /// step 300.
    ///
    /// # Errors
    ///
    /// An `at_step` of 0, or not above that of the piece before in a chain: a piece would never be seen. A number in
    /// place of a schedule that is NaN or infinite.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// // A hint loss that trains alone for 100 steps, fades over 50, and is then off.
    /// let hint_weight = Schedule::constant(1.0)?.then(100, Schedule::linear(1.0, 0.0, 50)?)?.then(200, 0.0)?;
    /// assert_eq!([0, 99, 100, 125, 150, 200].map(|step| hint_weight.value(step)), [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn then(self, at_step: usize, next: impl Into<Schedule>) -> Result<Self, ScheduleError> {
        let piece = Piece { at_step, schedule: next.into() };
        let piecewise = match self.into_shape() {
            Shape::Piecewise(mut piecewise) => {
                piecewise.then.push(piece);
                piecewise
            }
            shape => Piecewise { first: Box::new(Schedule::validated(shape)?), then: vec![piece] },
        };
        Self::validated(Shape::Piecewise(piecewise))
    }
}

impl Piecewise {
    /// The pieces with the step at which each starts.
    fn pieces(&self) -> impl Iterator<Item = (usize, &Schedule)> {
        let then = self.then.iter().map(|piece| (piece.at_step, &piece.schedule));
        std::iter::once((0, &*self.first)).chain(then)
    }
}

impl Curve for Piecewise {
    fn value(&self, step: usize) -> f64 {
        match self.then[..self.then.partition_point(|piece| piece.at_step <= step)].last() {
            Some(piece) => piece.schedule.value(step - piece.at_step),
            None => self.first.value(step),
        }
    }

    fn end(&self) -> Option<usize> {
        let (start, schedule) = self.pieces().last()?;
        schedule.end()?.checked_add(start)
    }

    fn validate(&self) -> Result<(), ScheduleError> {
        self.first.validate()?;
        let Some(first) = self.then.first() else {
            return Err(ScheduleError::Empty { parameter: "then" });
        };
        require_steps("at_step", first.at_step)?;
        if let Some(pair) = self.then.windows(2).find(|pair| pair[0].at_step >= pair[1].at_step) {
            let (previous, given) = (pair[0].at_step, pair[1].at_step);
            return Err(ScheduleError::NotIncreasing { parameter: "at_step", previous, given });
        }
        self.then.iter().try_for_each(|piece| piece.schedule.validate())
    }

    fn bounds(&self, last: usize) -> (f64, f64) {
        let starts = self.then.iter().map(|piece| piece.at_step);
        let lasts = starts.map(|start| last.min(start - 1)).chain([last]);
        self.pieces()
            .zip(lasts)
            .filter(|((start, _), _)| *start <= last)
            .map(|((start, schedule), last)| schedule.bounds_until(last - start))
            .fold((f64::INFINITY, f64::NEG_INFINITY), hull)
    }

    fn depth(&self) -> usize {
        1 + self.pieces().map(|(_, schedule)| schedule.depth()).max().unwrap_or(0)
    }
}
