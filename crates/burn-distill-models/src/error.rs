/// What can be wrong with a model's or a loader's configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A number lies outside its range.
    #[error("`{field}` must be {allowed}, got {given}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// The allowed range, in words.
        allowed: &'static str,
        /// What was given.
        given: String,
    },
}

impl ModelError {
    pub(crate) fn out_of_range(field: &'static str, allowed: &'static str, given: impl std::fmt::Display) -> Self {
        Self::OutOfRange { field, allowed, given: given.to_string() }
    }
}
