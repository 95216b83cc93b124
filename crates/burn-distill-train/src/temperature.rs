use burn_distill_schedules::{GapState, GapTemperature, Schedule};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The temperature of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// A pure function of the step.
    Schedule(Schedule),
    /// Follows the gap between teacher and student: the mean KL(teacher || student) at temperature 1 of the training
    /// batches, in nats. Needs [`Distillation::classification`](crate::Distillation::classification) with teacher
    /// logits.
    Gap(GapTemperature),
}

impl Temperature {
    pub(crate) fn value(&self, step: usize, gap: &GapState) -> f64 {
        match self {
            Self::Schedule(schedule) => schedule.value(step),
            Self::Gap(temperature) => temperature.value(gap),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        if let Self::Schedule(schedule) = self {
            let invalid = |source| TrainError::Schedule { field: "temperature".into(), source };
            schedule.validate().map_err(invalid)?;
            let (least, most) = schedule.bounds();
            if !(least > 0.0 && most.is_finite()) {
                return Err(TrainError::setting(
                    "temperature",
                    "in (0, inf) at every step",
                    format!("{least} to {most}"),
                ));
            }
        }
        Ok(())
    }
}

impl From<Schedule> for Temperature {
    fn from(schedule: Schedule) -> Self {
        Self::Schedule(schedule)
    }
}

impl From<GapTemperature> for Temperature {
    fn from(temperature: GapTemperature) -> Self {
        Self::Gap(temperature)
    }
}

impl From<f64> for Temperature {
    fn from(temperature: f64) -> Self {
        Self::Schedule(temperature.into())
    }
}
