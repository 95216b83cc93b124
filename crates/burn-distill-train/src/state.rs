use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::train::Interrupter;
use burn_distill_schedules::{GapState, PlateauState};
use serde::{Deserialize, Serialize};

use crate::balance::GradNormState;

/// What to do with a step whose loss or gradient is NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Stop the run with [`TrainError::NonFinite`](crate::TrainError::NonFinite). Validation losses count too.
    #[default]
    Stop,
    /// Leave weights, batch-norm statistics, optimiser and step as if the batch had never been there, count it, and
    /// go on; with accumulation, the step is then the mean of the other batches of its group. A validation loss that
    /// is not finite is written to the metrics as `null`.
    Skip,
}

/// The moving parts of a run, shared by the clones of its [`Distiller`](crate::Distiller) (burn-train clones and
/// forks the model), its learning-rate scheduler, its metrics and its checkpoints.
#[derive(Debug, Default)]
pub(crate) struct RunState {
    pub(crate) seed: u64,
    pub(crate) non_finite: NonFinite,
    pub(crate) max_grad_norm: Option<f64>,
    pub(crate) interrupter: SharedInterrupter,
    step: AtomicUsize,
    skipped: AtomicUsize,
    micro_batches: AtomicUsize,
    gap: Mutex<GapState>,
    plateau: Mutex<PlateauState>,
    grad_norm_state: Mutex<GradNormState>,
    grad_norms: Mutex<GradNorms>,
    fault: Mutex<Option<Fault>>,
}

/// Why a run was stopped from inside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The first value that was not finite.
    NonFinite { step: usize, term: String, value: f64 },
    /// A setting that only the metrics of an epoch could show to be wrong.
    Setting { field: &'static str, allowed: &'static str, given: String },
}

/// The gradient norms of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GradNorms {
    sum: f64,
    count: usize,
    pub(crate) last: Option<f64>,
}

impl GradNorms {
    fn add(&mut self, norm: f64) {
        self.sum += norm;
        self.count += 1;
        self.last = Some(norm);
    }

    /// The mean over the optimiser steps of the epoch.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// [`Interrupter`] with a `Debug`.
#[derive(Clone, Default)]
pub(crate) struct SharedInterrupter(pub(crate) Interrupter);

impl std::fmt::Debug for SharedInterrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupter")
    }
}

/// A state is a few numbers that are valid at any moment, so a thread that panicked with the lock is no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunState {
    pub(crate) fn new(seed: u64, non_finite: NonFinite, max_grad_norm: Option<f64>) -> Self {
        Self { seed, non_finite, max_grad_norm, ..Self::default() }
    }

    /// The state of a loop that has an interrupter of its own.
    pub(crate) fn stopping(interrupter: &Interrupter) -> Self {
        Self { interrupter: SharedInterrupter(interrupter.clone()), ..Self::default() }
    }

    pub(crate) fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) {
        self.step.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self) -> usize {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Goes on from a checkpoint.
    pub(crate) fn restore(&self, step: usize, skipped: usize) {
        self.step.store(step, Ordering::Relaxed);
        self.skipped.store(skipped, Ordering::Relaxed);
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

    pub(crate) fn gap(&self) -> MutexGuard<'_, GapState> {
        lock(&self.gap)
    }

    pub(crate) fn plateau(&self) -> MutexGuard<'_, PlateauState> {
        lock(&self.plateau)
    }

    pub(crate) fn grad_norm_state(&self) -> MutexGuard<'_, GradNormState> {
        lock(&self.grad_norm_state)
    }

    pub(crate) fn add_grad_norm(&self, norm: f64) {
        lock(&self.grad_norms).add(norm);
    }

    pub(crate) fn grad_norms(&self) -> GradNorms {
        *lock(&self.grad_norms)
    }

    pub(crate) fn clear_grad_norms(&self) {
        *lock(&self.grad_norms) = GradNorms::default();
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        lock(&self.fault).clone()
    }

    /// Stops the run; the first reason counts.
    pub(crate) fn stop(&self, fault: Fault) {
        let reason = match &fault {
            Fault::NonFinite { step, term, value } => format!("step {step}: `{term}` is {value}"),
            Fault::Setting { field, allowed, given } => format!("`{field}` must be {allowed}, got {given}"),
        };
        lock(&self.fault).get_or_insert(fault);
        self.interrupter.0.stop(Some(&reason));
    }

    /// Records a value that is not finite and does what the policy says: stops the run, or counts the batch.
    pub(crate) fn not_finite(&self, term: &str, value: f64) {
        let step = self.step();
        match self.non_finite {
            NonFinite::Stop => self.stop(Fault::NonFinite { step, term: term.to_string(), value }),
            NonFinite::Skip => {
                log::warn!("step {step}: `{term}` is {value}; the batch is skipped");
                self.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
