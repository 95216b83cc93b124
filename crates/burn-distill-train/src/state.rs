use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::train::Interrupter;
use burn_distill_schedules::GapState;
use serde::{Deserialize, Serialize};

/// What to do with a step whose loss or gradient is NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Stop the run with [`TrainError::NonFinite`](crate::TrainError::NonFinite).
    #[default]
    Stop,
    /// Leave the weights and the batch-norm statistics as they were before the batch, count it, and go on.
    Skip,
}

/// The moving parts of a run, shared by the clones of its [`Distiller`](crate::Distiller) (burn-train clones and
/// forks the model), its learning-rate scheduler and its checkpoints.
#[derive(Debug, Default)]
pub(crate) struct RunState {
    pub(crate) seed: u64,
    pub(crate) non_finite: NonFinite,
    pub(crate) max_grad_norm: Option<f64>,
    step: AtomicUsize,
    micro_batches: AtomicUsize,
    skipped: AtomicUsize,
    gap: Mutex<GapState>,
    grad_norm: Mutex<Option<f64>>,
    fault: Mutex<Option<Fault>>,
    pub(crate) interrupter: SharedInterrupter,
}

/// The first value that was not finite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) step: usize,
    pub(crate) term: String,
    pub(crate) value: f64,
}

/// [`Interrupter`] with a `Debug`.
#[derive(Clone, Default)]
pub(crate) struct SharedInterrupter(pub(crate) Interrupter);

impl std::fmt::Debug for SharedInterrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupter")
    }
}

impl RunState {
    pub(crate) fn new(seed: u64, non_finite: NonFinite, max_grad_norm: Option<f64>) -> Self {
        Self { seed, non_finite, max_grad_norm, ..Self::default() }
    }

    pub(crate) fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn set_step(&self, step: usize) {
        self.step.store(step, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self) {
        self.step.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a batch on its way to the next optimiser step, and gives how many came before it.
    pub(crate) fn start_micro_batch(&self) -> usize {
        self.micro_batches.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a batch back out of the mean that the next optimiser step is.
    pub(crate) fn drop_micro_batch(&self) {
        self.micro_batches.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn take_micro_batches(&self) -> usize {
        self.micro_batches.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn skipped(&self) -> usize {
        self.skipped.load(Ordering::Relaxed)
    }

    pub(crate) fn gap(&self) -> MutexGuard<'_, GapState> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn grad_norm(&self) -> MutexGuard<'_, Option<f64>> {
        self.grad_norm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a value that is not finite and does what the policy says: stops the run, or counts the batch.
    pub(crate) fn not_finite(&self, term: &str, value: f64) {
        let step = self.step();
        match self.non_finite {
            NonFinite::Stop => {
                self.fault().get_or_insert_with(|| Fault { step, term: term.to_string(), value });
                self.interrupter.0.stop(Some(&format!("step {step}: `{term}` is {value}")));
            }
            NonFinite::Skip => {
                log::warn!("step {step}: `{term}` is {value}; the batch is skipped");
                self.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
