use serde::{Deserialize, Serialize};

use crate::ScheduleError;
use crate::constant::Constant;
use crate::error::require;
use crate::shape::{Curve, Shape};

/// How many schedules may lie inside each other. What can be built must also be readable, and JSON readers stop at
/// a depth of 128 brackets, of which one schedule inside another takes up to four.
const MAX_NESTING: usize = 24;

/// A number that is a pure function of the training step: a temperature, a learning rate, the weight of a loss.
///
/// `step` counts optimiser steps from 0. Because the value depends on nothing else, a resumed run needs only its
/// step. A schedule that ends holds its last value for ever.
///
/// | constructor | from step 0 ... | ... to its end |
/// |---|---|---|
/// | [`constant`](Self::constant) | `value` | `value` |
/// | [`linear`](Self::linear), [`polynomial`](Self::polynomial), [`cosine`](Self::cosine) | `from` | `to` at `steps` |
/// | [`cosine_restarts`](Self::cosine_restarts) | `from`, and again in each cycle | never settles |
/// | [`exponential`](Self::exponential), [`step_decay`](Self::step_decay) | `from` | never settles |
/// | [`exponential_with_floor`](Self::exponential_with_floor) | `from` | `floor` |
/// | [`multi_step`](Self::multi_step) | `from` | `from * factor^n` at the last of `n` milestones |
/// | [`one_cycle`](Self::one_cycle) | `max / 25` | `max / 250_000` at `steps - 1` |
/// | [`warmup_stable_decay`](Self::warmup_stable_decay) | 0 | `final_value` at `warmup + stable + decay` |
/// | [`with_warmup`](Self::with_warmup) | 0 | that of the schedule, `steps` later |
/// | [`then`](Self::then) | that of the first schedule | that of the second, `at_step` later |
///
/// # Serialisation
///
/// By serde, as the constructor's name with its arguments. What is read is validated as the constructors validate:
///
/// ```
/// use burn_distill_schedules::Schedule;
///
/// let schedule = Schedule::cosine(8.0, 1.0, 1000)?;
/// let json = serde_json::to_string(&schedule).unwrap();
/// assert_eq!(json, r#"{"cosine":{"from":8.0,"to":1.0,"steps":1000}}"#);
/// assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
///
/// let bad = r#"{"cosine":{"from":8.0,"to":1.0,"steps":0}}"#;
/// let error = serde_json::from_str::<Schedule>(bad).unwrap_err();
/// assert_eq!(error.to_string(), "`steps` must be in [1, inf), got 0");
/// # Ok::<(), burn_distill_schedules::ScheduleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Shape", into = "Shape")]
pub struct Schedule(Shape);

impl Schedule {
    /// The value at a step, counted from 0.
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// let schedule = Schedule::linear(4.0, 2.0, 4)?;
    /// let values: Vec<f64> = (0..6).map(|step| schedule.value(step)).collect();
    /// assert_eq!(values, [4.0, 3.5, 3.0, 2.5, 2.0, 2.0]);
    /// assert_eq!(schedule.value(usize::MAX), 2.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn value(&self, step: usize) -> f64 {
        self.curve().value(step)
    }

    /// The least and the greatest value over all steps `0..=usize::MAX`.
    ///
    /// They are values that the schedule takes. An exponential without a floor has the lower bound 0 where it
    /// underflows to 0.
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// assert_eq!(Schedule::cosine(8.0, 1.0, 100)?.bounds(), (1.0, 8.0));
    /// assert_eq!(Schedule::cosine(8.0, 1.0, 100)?.then(50, 9.0)?.bounds().1, 9.0);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn bounds(&self) -> (f64, f64) {
        self.bounds_until(usize::MAX)
    }

    /// The step from which the value is constant, or `None` where it never settles.
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// assert_eq!(Schedule::constant(1.0)?.end(), Some(0));
    /// assert_eq!(Schedule::linear(1.0, 0.0, 10)?.with_warmup(5)?.end(), Some(15));
    /// assert_eq!(Schedule::exponential(1.0, 0.9)?.end(), None);
    /// # Ok::<(), burn_distill_schedules::ScheduleError>(())
    /// ```
    pub fn end(&self) -> Option<usize> {
        self.curve().end()
    }

    /// Checks every parameter again.
    ///
    /// The constructors and the deserialiser have done this already; only a schedule made with `From<f64>` can fail.
    ///
    /// # Errors
    ///
    /// As the constructor of the schedule.
    ///
    /// ```
    /// use burn_distill_schedules::Schedule;
    ///
    /// assert!(Schedule::from(0.5).validate().is_ok());
    /// let error = Schedule::from(f64::NAN).validate().unwrap_err();
    /// assert_eq!(error.to_string(), "`value` must be in (-inf, inf), got NaN");
    /// ```
    pub fn validate(&self) -> Result<(), ScheduleError> {
        require(self.depth() <= MAX_NESTING, "nesting", format!("[1, {MAX_NESTING}]"), self.depth())?;
        self.curve().validate()
    }

    /// The way in for every constructor.
    pub(crate) fn validated(shape: Shape) -> Result<Self, ScheduleError> {
        let schedule = Self(shape);
        schedule.validate()?;
        Ok(schedule)
    }

    pub(crate) fn into_shape(self) -> Shape {
        self.0
    }

    pub(crate) fn bounds_until(&self, last: usize) -> (f64, f64) {
        self.curve().bounds(last)
    }

    pub(crate) fn depth(&self) -> usize {
        self.curve().depth()
    }

    fn curve(&self) -> &dyn Curve {
        self.0.curve()
    }
}

/// A constant, unchecked: where a plain number is accepted as a schedule (the weight of a loss), it is
/// [`validate`](Schedule::validate) that refuses NaN and the infinities later. [`Schedule::constant`] refuses them
/// at once.
impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Self(Shape::Constant(Constant(value)))
    }
}

impl TryFrom<Shape> for Schedule {
    type Error = ScheduleError;

    fn try_from(shape: Shape) -> Result<Self, ScheduleError> {
        Self::validated(shape)
    }
}

impl From<Schedule> for Shape {
    fn from(schedule: Schedule) -> Self {
        schedule.0
    }
}
