use std::sync::Arc;

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate as Rate;
use burn_distill_schedules::{PlateauState, ReduceOnPlateau, Schedule, ScheduledLr};
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
        /// When, and by how much. Its mode must be the monitor's: `Max` where a higher metric is better.
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

impl LearningRate {
    fn base(&self) -> &Schedule {
        match self {
            Self::Schedule(schedule) => schedule,
            Self::Plateau { base, .. } => base,
        }
    }

    pub(crate) fn plateau(&self) -> Option<&ReduceOnPlateau> {
        match self {
            Self::Schedule(_) => None,
            Self::Plateau { plateau, .. } => Some(plateau),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        let invalid = |source| TrainError::Schedule { field: "learning_rate".into(), source };
        ScheduledLr::new(self.base().clone()).map(drop).map_err(invalid)
    }
}

/// The learning rate as Burn drives it: a function of the run's one step counter, so that a batch that is skipped
/// leaves no trace in it. Its record carries what follows the metrics, as exact numbers.
#[derive(Clone)]
pub(crate) struct RunScheduler {
    rate: LearningRate,
    run: Arc<RunState>,
}

const STEP: &str = "step";
const GAP: &str = "gap.mean";
const BEST: &str = "plateau.best";
const BAD_OBSERVATIONS: &str = "plateau.bad_observations";
const COOLDOWN_LEFT: &str = "plateau.cooldown_left";
const REDUCTIONS: &str = "plateau.reductions";

fn logit_of(task: usize) -> String {
    format!("grad_norm.{task}.logit")
}

fn initial_of(task: usize) -> String {
    format!("grad_norm.{task}.initial")
}

impl RunScheduler {
    pub(crate) fn new(rate: LearningRate, run: Arc<RunState>) -> Self {
        Self { rate, run }
    }
}

impl LrScheduler for RunScheduler {
    fn step(&mut self) -> Rate {
        let scale = self.rate.plateau().map_or(1.0, |plateau| plateau.scale(&self.run.plateau()));
        self.rate.base().value(self.run.step()) * scale
    }

    fn to_record(&self) -> LrSchedulerRecord {
        let PlateauState { best, bad_observations, cooldown_left, reductions } = *self.run.plateau();
        let mut record = LrSchedulerRecord::new()
            .with_scalar(STEP, self.run.step())
            .with_scalar(BAD_OBSERVATIONS, bad_observations)
            .with_scalar(COOLDOWN_LEFT, cooldown_left)
            .with_scalar(REDUCTIONS, reductions);
        if let Some(best) = best {
            record = record.with_scalar(BEST, best);
        }
        if let Some(mean) = self.run.gap().mean {
            record = record.with_scalar(GAP, mean);
        }
        let balance = self.run.grad_norm_state();
        for (task, (logit, initial)) in balance.logits.iter().zip(&balance.initial).enumerate() {
            record = record.with_scalar(&logit_of(task), *logit);
            if let Some(initial) = initial {
                record = record.with_scalar(&initial_of(task), *initial);
            }
        }
        record
    }

    /// The step itself is the manifest's, which is read before.
    fn load_record(&mut self, record: LrSchedulerRecord) {
        let count = |key| record.scalar::<usize>(key).unwrap_or_default();
        *self.run.plateau() = PlateauState {
            best: record.scalar(BEST),
            bad_observations: count(BAD_OBSERVATIONS),
            cooldown_left: count(COOLDOWN_LEFT),
            reductions: count(REDUCTIONS),
        };
        self.run.gap().mean = record.scalar(GAP);
        let mut balance = self.run.grad_norm_state();
        *balance = Default::default();
        while let Some(logit) = record.scalar(&logit_of(balance.logits.len())) {
            let initial = record.scalar(&initial_of(balance.logits.len()));
            balance.logits.push(logit);
            balance.initial.push(initial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NonFinite;

    fn run() -> Arc<RunState> {
        Arc::new(RunState::new(0, NonFinite::Stop, None))
    }

    #[test]
    fn the_rate_follows_the_step_and_the_record_holds_the_rest() {
        let plateau = ReduceOnPlateau::new(0.5, 0).unwrap();
        let rate = LearningRate::Plateau { base: Schedule::linear(1.0, 0.0, 4).unwrap(), plateau };
        let first = run();
        let mut scheduler = RunScheduler::new(rate.clone(), first.clone());
        assert_eq!([scheduler.step(), scheduler.step()], [1.0, 1.0]); // no optimiser step in between
        first.advance();
        for metric in [0.1 + 0.2, 0.5, 0.5] {
            plateau.observe(&mut first.plateau(), metric);
        }
        first.gap().mean = Some(1.0 / 3.0);
        let observation = |loss| Some(crate::balance::TaskObservation { squared_norm: loss, loss });
        first.grad_norm_state().observe(&[observation(0.1), observation(0.7), None]);
        first.grad_norm_state().step(1.5, 0.1);
        assert_eq!(scheduler.step(), 0.75 * 0.25);

        let bytes = scheduler.to_record().into_bytes().unwrap();
        let second = run();
        let mut resumed = RunScheduler::new(rate, second.clone());
        resumed.load_record(LrSchedulerRecord::from_bytes(bytes).unwrap());
        second.restore(1, 0);
        assert_eq!(resumed.step(), scheduler.step());
        assert_eq!(*second.plateau(), *first.plateau());
        assert_eq!(*second.gap(), *first.gap());
        assert_eq!(*second.grad_norm_state(), *first.grad_norm_state());
        assert_ne!(second.grad_norm_state().logits, [0.0; 3]);
    }

    #[test]
    fn a_negative_rate_is_refused_by_name() {
        let error = LearningRate::from(-0.1).validate().unwrap_err().to_string();
        assert!(error.starts_with("`learning_rate`: ") && error.contains("-0.1"), "{error}");
    }
}
