use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate;

use crate::error::require;
use crate::{Schedule, ScheduleError};

/// The key of the next step in a scheduler's record.
const STEP: &str = "step";

/// A [`Schedule`] as the learning rate of Burn's optimisers and of burn-train.
///
/// The first call of [`step`](LrScheduler::step) gives `value(0)`, the next `value(1)`. Its record is the number of
/// the next step, so a resumed run goes on exactly where it was. A record without a step, of another kind of
/// scheduler, leaves the step as it is, as in Burn's own schedulers.
///
/// # Example
///
/// ```
/// use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
/// use burn_distill_schedules::{Schedule, ScheduledLr};
///
/// let schedule = Schedule::linear(0.5, 0.0, 4)?;
/// let mut learning_rate = ScheduledLr::new(schedule.clone())?;
/// assert_eq!([learning_rate.step(), learning_rate.step()], [0.5, 0.375]);
///
/// let bytes = learning_rate.to_record().into_bytes().unwrap();
/// let mut resumed = ScheduledLr::new(schedule)?;
/// resumed.load_record(LrSchedulerRecord::from_bytes(bytes).unwrap());
/// assert_eq!(resumed.step(), 0.25);
/// # Ok::<(), burn_distill_schedules::ScheduleError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScheduledLr {
    schedule: Schedule,
    next_step: usize,
}

impl ScheduledLr {
    /// Starts at step 0.
    ///
    /// # Errors
    ///
    /// A schedule that is invalid, or anywhere below 0.
    pub fn new(schedule: impl Into<Schedule>) -> Result<Self, ScheduleError> {
        Ok(Self { schedule: learning_rate(schedule.into())?, next_step: 0 })
    }

    /// Starts at another step.
    pub fn with_next_step(self, next_step: usize) -> Self {
        Self { next_step, ..self }
    }

    /// The step whose value the next call of [`step`](LrScheduler::step) gives.
    pub fn next_step(&self) -> usize {
        self.next_step
    }

    /// The schedule it follows.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl LrScheduler for ScheduledLr {
    fn step(&mut self) -> LearningRate {
        let value = self.schedule.value(self.next_step);
        self.next_step = self.next_step.saturating_add(1);
        value
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar(STEP, self.next_step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(next_step) = record.scalar(STEP) {
            self.next_step = next_step;
        }
    }
}

/// The schedule, if it can be a learning rate.
fn learning_rate(schedule: Schedule) -> Result<Schedule, ScheduleError> {
    schedule.validate()?;
    let (min, _) = schedule.bounds();
    require(min >= 0.0, "learning rate", "[0, inf)", min)?;
    Ok(schedule)
}
