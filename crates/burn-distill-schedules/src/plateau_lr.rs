use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate;

use crate::lr::ScheduledLr;
use crate::{PlateauState, ReduceOnPlateau, Schedule, ScheduleError};

const BEST: &str = "best";
const BAD_OBSERVATIONS: &str = "bad_observations";
const COOLDOWN_LEFT: &str = "cooldown_left";
const REDUCTIONS: &str = "reductions";

/// A [`Schedule`] times the scale of a [`ReduceOnPlateau`], as a learning rate for Burn.
///
/// Burn owns the scheduler while it trains; a [`handle`](Self::handle) taken before feeds it the metric. The record
/// holds the next step and the [`PlateauState`], so a resumed run goes on exactly where it was. A clone shares the
/// state with the original and with its handles.
///
/// # Example
///
/// ```
/// use burn::lr_scheduler::LrScheduler;
/// use burn_distill_schedules::{PlateauLr, ReduceOnPlateau};
///
/// let mut learning_rate = PlateauLr::new(0.1, ReduceOnPlateau::new(0.5, 0)?)?;
/// let validation = learning_rate.handle();
///
/// validation.observe(2.0);
/// assert_eq!(learning_rate.step(), 0.1);
/// validation.observe(2.0);
/// assert_eq!(learning_rate.step(), 0.05);
/// # Ok::<(), burn_distill_schedules::ScheduleError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PlateauLr {
    base: ScheduledLr,
    handle: PlateauHandle,
}

/// Feeds a metric to a [`PlateauLr`] that Burn owns. Clones feed the same scheduler.
#[derive(Debug, Clone)]
pub struct PlateauHandle {
    plateau: ReduceOnPlateau,
    state: Arc<Mutex<PlateauState>>,
}

impl PlateauLr {
    /// Starts at step 0 with nothing observed.
    ///
    /// # Errors
    ///
    /// A base schedule that is invalid, or anywhere below 0.
    pub fn new(base: impl Into<Schedule>, plateau: ReduceOnPlateau) -> Result<Self, ScheduleError> {
        let handle = PlateauHandle { plateau, state: Arc::default() };
        Ok(Self { base: ScheduledLr::new(base)?, handle })
    }

    /// The way to feed it while Burn owns it.
    pub fn handle(&self) -> PlateauHandle {
        self.handle.clone()
    }
}

impl PlateauHandle {
    /// Takes in a metric, usually the validation loss of an epoch.
    pub fn observe(&self, metric: f64) {
        self.plateau.observe(&mut self.lock(), metric);
    }

    /// What has been seen so far.
    pub fn state(&self) -> PlateauState {
        *self.lock()
    }

    /// What the base schedule is multiplied with now.
    pub fn scale(&self) -> f64 {
        self.plateau.scale(&self.lock())
    }

    /// The state is a few numbers that are valid at any moment, so a thread that panicked with the lock is no harm.
    fn lock(&self) -> MutexGuard<'_, PlateauState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LrScheduler for PlateauLr {
    fn step(&mut self) -> LearningRate {
        self.base.step() * self.handle.scale()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        let PlateauState { best, bad_observations, cooldown_left, reductions } = self.handle.state();
        let record = self
            .base
            .to_record()
            .with_scalar(BAD_OBSERVATIONS, bad_observations)
            .with_scalar(COOLDOWN_LEFT, cooldown_left)
            .with_scalar(REDUCTIONS, reductions);
        match best {
            Some(best) => record.with_scalar(BEST, best),
            None => record,
        }
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        let state = (record.scalar(BAD_OBSERVATIONS), record.scalar(COOLDOWN_LEFT), record.scalar(REDUCTIONS));
        if let (Some(bad_observations), Some(cooldown_left), Some(reductions)) = state {
            let best = record.scalar(BEST);
            *self.handle.lock() = PlateauState { best, bad_observations, cooldown_left, reductions };
        }
        self.base.load_record(record);
    }
}
