use serde::{Deserialize, Serialize};

use crate::LossError;

/// What to do when student and teacher have different numbers of classes (often the same vocabulary, padded to
/// different multiples). Nothing is done silently: the default is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VocabularyPolicy {
    /// The loss panics with a message that names both sizes.
    #[default]
    Error,
    /// Drop the last columns of the larger side before the softmax: right when they are padding that no target uses.
    Truncate,
    /// Compare over the student's vocabulary. Classes that the teacher lacks have teacher probability 0; classes
    /// that the student lacks are removed from the teacher, whose other probabilities are renormalised.
    MaskPadding,
}

impl VocabularyPolicy {
    /// Whether this policy can compare `student` classes with `teacher` classes. A loss panics where this fails.
    ///
    /// # Errors
    /// [`LossError::VocabularyMismatch`] if the sizes differ and the policy is [`VocabularyPolicy::Error`].
    ///
    /// ```
    /// use burn_distill_losses::VocabularyPolicy;
    ///
    /// assert!(VocabularyPolicy::Error.check(151_936, 152_064).is_err());
    /// assert!(VocabularyPolicy::Truncate.check(151_936, 152_064).is_ok());
    /// ```
    pub fn check(self, student: usize, teacher: usize) -> Result<(), LossError> {
        match self {
            VocabularyPolicy::Error if student != teacher => Err(LossError::VocabularyMismatch { student, teacher }),
            _ => Ok(()),
        }
    }

    /// The number of classes over which student and teacher are compared.
    ///
    /// # Panics
    /// If [`VocabularyPolicy::check`] fails.
    #[track_caller]
    pub(crate) fn classes(self, student: usize, teacher: usize) -> usize {
        if let Err(error) = self.check(student, teacher) {
            panic!("{error}");
        }
        match self {
            VocabularyPolicy::Error | VocabularyPolicy::MaskPadding => student,
            VocabularyPolicy::Truncate => student.min(teacher),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_both_sizes_and_the_choices() {
        let message = VocabularyPolicy::Error.check(7, 9).unwrap_err().to_string();
        for part in ["7", "9", "Truncate", "MaskPadding"] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
        assert_eq!(VocabularyPolicy::Error.check(7, 7), Ok(()));
    }

    #[test]
    fn compared_classes() {
        assert_eq!(VocabularyPolicy::Truncate.classes(7, 9), 7);
        assert_eq!(VocabularyPolicy::Truncate.classes(9, 7), 7);
        assert_eq!(VocabularyPolicy::MaskPadding.classes(9, 7), 9);
        assert_eq!(VocabularyPolicy::MaskPadding.classes(7, 9), 7);
    }
}
