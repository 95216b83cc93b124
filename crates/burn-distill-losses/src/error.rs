use thiserror::Error;

/// A setting of a loss that is out of its range; returned by every `init()`.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is outside the range that its field allows.
    #[error("`{field}` must be in {range}, got {value}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// The allowed values, as an interval.
        range: &'static str,
        /// What was given.
        value: f64,
    },
}

impl ConfigError {
    /// `value` if `valid`, otherwise the error that names the field and its range.
    pub(crate) fn unless(valid: bool, field: &'static str, range: &'static str, value: f64) -> Result<f64, Self> {
        if valid { Ok(value) } else { Err(Self::OutOfRange { field, range, value }) }
    }

    /// Finite and above zero.
    pub(crate) fn check_positive(field: &'static str, value: f64) -> Result<f64, Self> {
        Self::unless(value > 0.0 && value.is_finite(), field, "(0, inf)", value)
    }

    /// A temperature: finite and above zero.
    pub(crate) fn check_temperature(value: f64) -> Result<f64, Self> {
        Self::check_positive("temperature", value)
    }

    /// A weight: finite and not negative.
    pub(crate) fn check_weight(field: &'static str, value: f64) -> Result<f64, Self> {
        Self::unless(value >= 0.0 && value.is_finite(), field, "[0, inf)", value)
    }

    /// A number of things: at least one.
    pub(crate) fn check_count(field: &'static str, value: usize) -> Result<usize, Self> {
        Self::unless(value > 0, field, "[1, inf)", value as f64).map(|_| value)
    }
}

/// The temperature that `at_temperature` was given, for losses whose schedule changes it during a run.
///
/// # Panics
/// If `temperature` is not in (0, inf).
#[track_caller]
pub(crate) fn expect_temperature(temperature: f64) -> f64 {
    match ConfigError::check_temperature(temperature) {
        Ok(temperature) => temperature,
        Err(error) => panic!("{error}"),
    }
}

/// What makes a teacher's signal unusable for a student.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LossError {
    /// Student and teacher have different numbers of classes and no policy says what to do about it.
    #[error(
        "`student_logits` have {student} classes and `teacher_logits` {teacher}; choose \
         `VocabularyPolicy::Truncate` (drop the last columns of the larger side) or `VocabularyPolicy::MaskPadding` \
         (compare over the student's vocabulary)"
    )]
    VocabularyMismatch {
        /// Classes of the student.
        student: usize,
        /// Classes of the teacher.
        teacher: usize,
    },
    /// The indices and the log-probabilities of a sparse teacher differ in shape.
    #[error("`indices` have shape {indices:?} and `log_probs` {log_probs:?}; both must be [rows, k]")]
    SparseShape {
        /// Shape of the indices.
        indices: [usize; 2],
        /// Shape of the log-probabilities.
        log_probs: [usize; 2],
    },
    /// A sparse teacher lists no class, or more classes than its vocabulary has.
    #[error("`k` must be in [1, {vocabulary}] (the vocabulary), got {k}")]
    SparseSize {
        /// Listed classes of each row.
        k: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The tail's log-probabilities are not one for each row.
    #[error("`tail_log_probs` must have one value per row: {rows}, got {given}")]
    TailRows {
        /// Rows of the sparse teacher.
        rows: usize,
        /// Values given.
        given: usize,
    },
    /// The indices of a sampled teacher differ in shape from its log-probabilities or its weights.
    #[error("`indices` have shape {indices:?} and `{part}` {given:?}; both must be [rows, draws]")]
    SampledShape {
        /// What differs: `log_probs` or `weights`.
        part: &'static str,
        /// Shape of the indices.
        indices: [usize; 2],
        /// Shape of the part.
        given: [usize; 2],
    },
    /// The ends of a text's tokens are not in order.
    #[error(
        "token {position} of the {side} ends at byte {end}, before token {}, which ends at {before}",
        position - 1
    )]
    TokenEnds {
        /// `student` or `teacher`.
        side: &'static str,
        /// Position of the token that ends too early.
        position: usize,
        /// Where it ends.
        end: usize,
        /// Where the token before it ends.
        before: usize,
    },
    /// A token of a vocabulary map is outside its vocabulary or matched twice.
    #[error("{side} token {id} must be below the vocabulary's size {size} and in one pair only")]
    MatchedToken {
        /// `student` or `teacher`.
        side: &'static str,
        /// Id of the token.
        id: usize,
        /// Size of the vocabulary.
        size: usize,
    },
    /// A setting of a sparse or sampled teacher is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
