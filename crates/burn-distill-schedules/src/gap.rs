use serde::{Deserialize, Serialize};

use crate::ScheduleError;
use crate::error::require;

/// A temperature that follows the gap between teacher and student: high while the student is far behind, so that
/// it sees soft targets, and low as it comes near.
///
/// The gap is whatever falls as the student learns, with 0 for "as good": KL(teacher || student) in nats, or the
/// teacher's accuracy less the student's. It is smoothed by an exponential moving average, kept in a [`GapState`],
/// which is saved and resumed with the run.
///
/// ```text
/// mean        = gap                                             first observation
///             = momentum * mean + (1 - momentum) * gap          after
/// temperature = min + (max - min) * g / (g + half_gap)          g = max(mean, 0)
/// ```
///
/// | smoothed gap | temperature |
/// |---|---|
/// | none observed yet | `max` |
/// | 0 or less | `min` |
/// | `half_gap` | `(min + max) / 2` |
/// | infinity | `max` |
///
/// Strictly between, it rises with the gap. The rule is this library's own; it puts into one number what annealing by
/// the step puts into a schedule: [`Schedule::cosine`](crate::Schedule::cosine) is the choice that follows published
/// work.
///
/// # Example
///
/// ```
/// use burn_distill_schedules::{GapState, GapTemperature};
///
/// let temperature = GapTemperature::new(1.0, 9.0, 0.5)?.with_momentum(0.5)?;
/// let mut state = GapState::default();
/// assert_eq!(temperature.value(&state), 9.0);
///
/// temperature.observe(&mut state, 1.5);
/// assert_eq!(temperature.value(&state), 7.0);
/// temperature.observe(&mut state, -0.5); // the mean is now 0.5
/// assert_eq!(temperature.value(&state), 5.0);
/// # Ok::<(), burn_distill_schedules::ScheduleError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct GapTemperature(Fields);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    min: f64,
    max: f64,
    half_gap: f64,
    #[serde(default = "default_momentum")]
    momentum: f64,
}

fn default_momentum() -> f64 {
    0.9
}

/// What a [`GapTemperature`] has seen. Saved with the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapState {
    /// The smoothed gap; `None` before the first finite observation.
    pub mean: Option<f64>,
}

impl GapTemperature {
    /// A temperature between `min` and `max` that is halfway at a gap of `half_gap`. The momentum is 0.9.
    ///
    /// # Errors
    ///
    /// A `min` outside (0, inf); a `max` outside (`min`, inf); a `half_gap` outside (0, inf).
    pub fn new(min: f64, max: f64, half_gap: f64) -> Result<Self, ScheduleError> {
        Self::try_from(Fields { min, max, half_gap, momentum: default_momentum() })
    }

    /// How much of the mean an observation leaves as it was; 0 is no smoothing.
    ///
    /// # Errors
    ///
    /// A `momentum` outside [0, 1).
    pub fn with_momentum(self, momentum: f64) -> Result<Self, ScheduleError> {
        Self::try_from(Fields { momentum, ..self.0 })
    }

    /// Takes in a gap. One that is NaN or infinite is ignored: it would stay in the mean for ever.
    pub fn observe(&self, state: &mut GapState, gap: f64) {
        if gap.is_finite() {
            let momentum = self.0.momentum;
            state.mean = Some(state.mean.map_or(gap, |mean| momentum * mean + (1.0 - momentum) * gap));
        }
    }

    /// The temperature, from `min` to `max`.
    pub fn value(&self, state: &GapState) -> f64 {
        let Fields { min, max, half_gap, .. } = self.0;
        match state.mean {
            None => max,
            // `g / (g + half_gap)` in a form that neither overflows nor divides 0 by 0.
            Some(mean) if mean > 0.0 => crate::interpolate::lerp(min, max, 1.0 / (1.0 + half_gap / mean)),
            Some(_) => min,
        }
    }
}

impl TryFrom<Fields> for GapTemperature {
    type Error = ScheduleError;

    fn try_from(fields: Fields) -> Result<Self, ScheduleError> {
        let Fields { min, max, half_gap, momentum } = fields;
        require(min > 0.0 && min.is_finite(), "min", "(0, inf)", min)?;
        require(max > min && max.is_finite(), "max", format!("({min}, inf)"), max)?;
        require(half_gap > 0.0 && half_gap.is_finite(), "half_gap", "(0, inf)", half_gap)?;
        require((0.0..1.0).contains(&momentum), "momentum", "[0, 1)", momentum)?;
        Ok(Self(fields))
    }
}

impl From<GapTemperature> for Fields {
    fn from(temperature: GapTemperature) -> Self {
        temperature.0
    }
}
