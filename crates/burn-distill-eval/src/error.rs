use thiserror::Error;

/// What makes an evaluation impossible.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A setting is outside the range that its field allows.
    #[error("`{field}` must be in {range}, got {value}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// The allowed values, as an interval.
        range: &'static str,
        /// What was given.
        value: f64,
    },
    /// A statistic was asked of no values at all.
    #[error("`{field}` must hold at least one value, got none")]
    Empty {
        /// Name of the argument.
        field: &'static str,
    },
    /// A value is NaN or infinite, for example the result of a run that diverged.
    #[error("`{field}` must be finite, got {value} at index {index}")]
    NotFinite {
        /// Name of the argument.
        field: &'static str,
        /// Where the value stands.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Two samples that should be paired have different sizes.
    #[error("`student` and `baseline` must have one value per seed each, got {student} and {baseline}")]
    Unpaired {
        /// Number of the student's values.
        student: usize,
        /// Number of the baseline's values.
        baseline: usize,
    },
}
