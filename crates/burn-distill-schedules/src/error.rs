/// Why a schedule was refused.
///
/// Every message names the parameter, what it may be and what was given.
///
/// ```
/// use burn_distill_schedules::Schedule;
///
/// let error = Schedule::linear(1.0, 0.0, 0).unwrap_err();
/// assert_eq!(error.to_string(), "`steps` must be in [1, inf), got 0");
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A real-valued parameter is outside its range. NaN is outside every range.
    #[error("`{parameter}` must be in {range}, got {given}")]
    OutOfRange {
        /// The parameter's name.
        parameter: &'static str,
        /// The values it may have.
        range: String,
        /// The value it was given.
        given: f64,
    },
    /// A number of steps, or another count, is outside its range.
    #[error("`{parameter}` must be in {range}, got {given}")]
    CountOutOfRange {
        /// The parameter's name.
        parameter: &'static str,
        /// The values it may have.
        range: String,
        /// The value it was given.
        given: usize,
    },
    /// A list that needs at least one element has none.
    #[error("`{parameter}` must hold at least one step, got none")]
    Empty {
        /// The parameter's name.
        parameter: &'static str,
    },
    /// A list of steps does not increase.
    #[error("`{parameter}` must be strictly increasing, got {given} after {previous}")]
    NotIncreasing {
        /// The parameter's name.
        parameter: &'static str,
        /// The element before the one that is too small.
        previous: usize,
        /// The element that is too small.
        given: usize,
    },
    /// The phases are longer than a `usize` can count.
    #[error("the sum of {parameters} must be at most {}, got more", usize::MAX)]
    TooManySteps {
        /// The names of the parameters that are added.
        parameters: &'static str,
    },
}

/// The number that is checked decides which error is given.
pub(crate) trait Given: Copy {
    fn out_of_range(self, parameter: &'static str, range: String) -> ScheduleError;
}

impl Given for f64 {
    fn out_of_range(self, parameter: &'static str, range: String) -> ScheduleError {
        ScheduleError::OutOfRange { parameter, range, given: self }
    }
}

impl Given for usize {
    fn out_of_range(self, parameter: &'static str, range: String) -> ScheduleError {
        ScheduleError::CountOutOfRange { parameter, range, given: self }
    }
}

/// `holds` is whether `given` lies in `range`; it must be written so that a NaN does not hold.
pub(crate) fn require<G: Given>(
    holds: bool,
    parameter: &'static str,
    range: impl Into<String>,
    given: G,
) -> Result<(), ScheduleError> {
    if holds { Ok(()) } else { Err(given.out_of_range(parameter, range.into())) }
}

pub(crate) fn require_finite(parameter: &'static str, given: f64) -> Result<(), ScheduleError> {
    require(given.is_finite(), parameter, "(-inf, inf)", given)
}

/// A schedule that multiplies its start would be the constant 0 from 0.
pub(crate) fn require_nonzero(parameter: &'static str, given: f64) -> Result<(), ScheduleError> {
    require(given.is_finite() && given != 0.0, parameter, "(-inf, 0) or (0, inf)", given)
}

pub(crate) fn require_steps(parameter: &'static str, given: usize) -> Result<(), ScheduleError> {
    require(given >= 1, parameter, "[1, inf)", given)
}

/// Of a factor that shrinks what it multiplies.
pub(crate) fn require_decay(parameter: &'static str, given: f64) -> Result<(), ScheduleError> {
    require(given > 0.0 && given < 1.0, parameter, "(0, 1)", given)
}
