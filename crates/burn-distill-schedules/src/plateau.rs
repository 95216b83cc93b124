use serde::{Deserialize, Serialize};

use crate::ScheduleError;
use crate::error::{require, require_decay};

/// Whether a metric improves by falling or by rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlateauMode {
    /// A lower metric is better: a loss.
    #[default]
    Min,
    /// A higher metric is better: an accuracy.
    Max,
}

/// What the threshold of an improvement is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// A part of the best metric: better than `best * (1 - threshold)`, or `best * (1 + threshold)` where higher is
    /// better.
    #[default]
    Rel,
    /// An amount: better than `best - threshold`, or `best + threshold` where higher is better.
    Abs,
}

/// Shrinks a schedule when a metric stops improving: the rule of PyTorch's `ReduceLROnPlateau`.
///
/// The rule itself does not change during a run; what it has seen is in a [`PlateauState`], which is saved and
/// resumed with the run. The rate of a step is `base.value(step) * rule.scale(&state)`.
///
/// ```text
/// scale = max(factor^reductions, min)
///
/// observe(metric):
///     if metric improves on best by the threshold:  best = metric, bad = 0
///     otherwise:                                    bad += 1
///     if cooldown_left > 0:                         cooldown_left -= 1, bad = 0
///     if bad > patience:                            reductions += 1, bad = 0, cooldown_left = cooldown
/// ```
///
/// | observations | scale |
/// |---|---|
/// | none | 1 |
/// | `patience + 1` in a row without improvement | `factor` |
/// | many without improvement | `min` |
///
/// It equals PyTorch's with `min_lr = min * base` and `eps = 0`. A metric that is not finite counts as one without
/// improvement; the same as PyTorch for NaN, while PyTorch would take an infinity on the good side for the best.
///
/// # Example
///
/// ```
/// use burn_distill_schedules::{PlateauState, ReduceOnPlateau, Schedule};
///
/// let base = Schedule::constant(0.1)?;
/// let plateau = ReduceOnPlateau::new(0.5, 1)?;
/// let mut state = PlateauState::default();
/// for loss in [3.0, 2.0, 2.1, 2.2] {
///     plateau.observe(&mut state, loss);
/// }
/// assert_eq!(base.value(1000) * plateau.scale(&state), 0.05);
/// # Ok::<(), burn_distill_schedules::ScheduleError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct ReduceOnPlateau(Fields);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    factor: f64,
    patience: usize,
    #[serde(default)]
    mode: PlateauMode,
    #[serde(default = "default_threshold")]
    threshold: f64,
    #[serde(default)]
    threshold_mode: ThresholdMode,
    #[serde(default)]
    cooldown: usize,
    #[serde(default)]
    min: f64,
}

fn default_threshold() -> f64 {
    1e-4
}

/// What a [`ReduceOnPlateau`] has seen. Saved with the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// The best metric so far; `None` before the first finite one.
    pub best: Option<f64>,
    /// How many observations in a row, outside a cooldown, brought no improvement.
    pub bad_observations: usize,
    /// How many more observations are not counted after a reduction.
    pub cooldown_left: usize,
    /// How many times the scale was reduced.
    pub reductions: usize,
}

impl ReduceOnPlateau {
    /// Multiplies by `factor` after more than `patience` observations in a row without improvement.
    ///
    /// PyTorch's other defaults: lower is better, a relative threshold of 1e-4, no cooldown, no minimum.
    ///
    /// # Errors
    ///
    /// A `factor` outside (0, 1).
    pub fn new(factor: f64, patience: usize) -> Result<Self, ScheduleError> {
        Self::try_from(Fields {
            factor,
            patience,
            mode: PlateauMode::default(),
            threshold: default_threshold(),
            threshold_mode: ThresholdMode::default(),
            cooldown: 0,
            min: 0.0,
        })
    }

    /// Whether the metric improves by falling (the default) or by rising.
    pub fn with_mode(self, mode: PlateauMode) -> Self {
        Self(Fields { mode, ..self.0 })
    }

    /// By how much a metric must be better than the best to count as an improvement.
    ///
    /// # Errors
    ///
    /// A `threshold` outside [0, 1) where it is relative, or outside [0, inf) where it is absolute.
    pub fn with_threshold(self, threshold: f64, threshold_mode: ThresholdMode) -> Result<Self, ScheduleError> {
        Self::try_from(Fields { threshold, threshold_mode, ..self.0 })
    }

    /// How many observations after a reduction are not counted.
    pub fn with_cooldown(self, cooldown: usize) -> Self {
        Self(Fields { cooldown, ..self.0 })
    }

    /// The least scale, as a part of the base schedule.
    ///
    /// # Errors
    ///
    /// A `min` outside [0, 1).
    pub fn with_min(self, min: f64) -> Result<Self, ScheduleError> {
        Self::try_from(Fields { min, ..self.0 })
    }

    /// Takes in a metric, usually the validation loss of an epoch.
    pub fn observe(&self, state: &mut PlateauState, metric: f64) {
        if self.improves(metric, state.best) {
            state.best = Some(metric);
            state.bad_observations = 0;
        } else {
            state.bad_observations = state.bad_observations.saturating_add(1);
        }
        if state.cooldown_left > 0 {
            state.cooldown_left -= 1;
            state.bad_observations = 0;
        }
        if state.bad_observations > self.0.patience {
            state.reductions = state.reductions.saturating_add(1);
            state.bad_observations = 0;
            state.cooldown_left = self.0.cooldown;
        }
    }

    /// What the base schedule is multiplied with, from [`min`](Self::with_min) to 1.
    pub fn scale(&self, state: &PlateauState) -> f64 {
        self.0.factor.powf(state.reductions as f64).max(self.0.min)
    }

    fn improves(&self, metric: f64, best: Option<f64>) -> bool {
        let Some(best) = best else {
            return metric.is_finite();
        };
        let threshold = self.0.threshold;
        metric.is_finite()
            && match (self.0.mode, self.0.threshold_mode) {
                (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
                (PlateauMode::Min, ThresholdMode::Abs) => metric < best - threshold,
                (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (1.0 + threshold),
                (PlateauMode::Max, ThresholdMode::Abs) => metric > best + threshold,
            }
    }
}

impl TryFrom<Fields> for ReduceOnPlateau {
    type Error = ScheduleError;

    fn try_from(fields: Fields) -> Result<Self, ScheduleError> {
        require_decay("factor", fields.factor)?;
        let (above, range) = match fields.threshold_mode {
            ThresholdMode::Rel => (1.0, "[0, 1) where it is relative"),
            ThresholdMode::Abs => (f64::INFINITY, "[0, inf)"),
        };
        require(fields.threshold >= 0.0 && fields.threshold < above, "threshold", range, fields.threshold)?;
        require(fields.min >= 0.0 && fields.min < 1.0, "min", "[0, 1)", fields.min)?;
        Ok(Self(fields))
    }
}

impl From<ReduceOnPlateau> for Fields {
    fn from(plateau: ReduceOnPlateau) -> Self {
        plateau.0
    }
}
