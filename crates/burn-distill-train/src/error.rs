use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::report::ReportError;
use crate::state::Fault;

/// Why a run could not be set up, was stopped, or could not be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting lies outside its range.
    #[error("`{field}` must be {allowed}, got {given}")]
    Setting {
        /// The setting's name, as in the builder.
        field: &'static str,
        /// The allowed range, in words.
        allowed: &'static str,
        /// What was given.
        given: String,
    },
    /// A schedule is invalid.
    #[error("`{field}`: {source}")]
    Schedule {
        /// The setting that holds the schedule.
        field: String,
        /// What is wrong with it.
        source: burn_distill_schedules::ScheduleError,
    },
    /// A loss or a gradient became NaN or infinite, and the run was told to stop at that.
    #[error("step {step}: `{term}` is {value}; {}", last_good(.checkpoint))]
    NonFinite {
        /// The optimiser step, counted from 0.
        step: usize,
        /// The term of the objective, or `gradient`.
        term: String,
        /// The value: NaN, inf or -inf.
        value: f64,
        /// The manifest of the last good checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The report or the metrics could not be written or read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The training loop of burn-train ended with an error.
    #[error("training stopped: {message}")]
    Training {
        /// What it said.
        message: String,
    },
    /// The student could not be exported.
    #[error("cannot export the student to {}: {message}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// A file or folder of the run could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn last_good(checkpoint: &Option<PathBuf>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "there is no checkpoint yet".to_string(),
    }
}

impl TrainError {
    pub(crate) fn setting(field: &'static str, allowed: &'static str, given: impl std::fmt::Display) -> Self {
        Self::Setting { field, allowed, given: given.to_string() }
    }

    pub(crate) fn of_fault(fault: Fault, checkpoint: Option<PathBuf>) -> Self {
        match fault {
            Fault::NonFinite { step, term, value } => Self::NonFinite { step, term, value, checkpoint },
            Fault::Setting { field, allowed, given } => Self::Setting { field, allowed, given },
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
