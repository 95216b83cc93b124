use std::sync::Arc;

use burn::lr_scheduler::{DynLrScheduler, LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate as Rate;
use burn_distill_schedules::{PlateauHandle, PlateauLr, ReduceOnPlateau, Schedule, ScheduledLr};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::state::RunState;

/// The learning rate of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningRate {
    /// A pure function of the step.
    Schedule(Schedule),
    /// A schedule that shrinks when the monitored metric of the validation data stops improving.
    Plateau {
        /// What is shrunk.
        base: Schedule,
        /// When, and by how much.
        plateau: ReduceOnPlateau,
    },
}

impl From<Schedule> for LearningRate {
    fn from(schedule: Schedule) -> Self {
        Self::Schedule(schedule)
    }
}

impl From<f64> for LearningRate {
    fn from(rate: f64) -> Self {
        Self::Schedule(rate.into())
    }
}

/// The learning rate as Burn drives it, carrying what else moves with the steps into the checkpoint: the step itself
/// and the gap that a temperature follows, as exact numbers.
#[derive(Clone)]
pub(crate) struct RunScheduler {
    rate: DynLrScheduler,
    run: Arc<RunState>,
}

const RATE: &str = "rate";
const STEP: &str = "step";
const GAP: &str = "gap";

impl RunScheduler {
    pub(crate) fn new(rate: &LearningRate, run: Arc<RunState>) -> Result<(Self, Option<PlateauHandle>), TrainError> {
        let invalid = |source| TrainError::Schedule { field: "learning_rate".into(), source };
        let (rate, handle) = match rate {
            LearningRate::Schedule(schedule) => {
                (DynLrScheduler::from(ScheduledLr::new(schedule.clone()).map_err(invalid)?), None)
            }
            LearningRate::Plateau { base, plateau } => {
                let rate = PlateauLr::new(base.clone(), *plateau).map_err(invalid)?;
                let handle = rate.handle();
                (rate.into(), Some(handle))
            }
        };
        Ok((Self { rate, run }, handle))
    }
}

impl LrScheduler for RunScheduler {
    fn step(&mut self) -> Rate {
        self.rate.step()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        let record =
            LrSchedulerRecord::new().with_record(RATE, self.rate.to_record()).with_scalar(STEP, self.run.step());
        match self.run.gap().mean {
            Some(mean) => record.with_scalar(GAP, mean),
            None => record,
        }
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.rate = self.rate.clone().load_record(record.record(RATE));
        if let Some(step) = record.scalar::<usize>(STEP) {
            self.run.set_step(step);
        }
        self.run.gap().mean = record.scalar(GAP);
    }
}
