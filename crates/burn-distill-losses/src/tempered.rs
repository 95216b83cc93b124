//! What the losses on tempered logits share: their settings, and the public methods that follow from a value per row.

use burn::tensor::Tensor;

use crate::{
    ConfigError, Convention, Mask, Reduction, TeacherLogits, TemperatureScale, VocabularyPolicy,
    align::{Aligned, align},
    convention::Divisor,
    error::expect_temperature,
};

/// The settings of a loss that compares a student's and a teacher's distribution at a temperature.
#[derive(Debug, Clone)]
pub(crate) struct Tempered {
    temperature: f64,
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
    convention: Convention,
}

impl Tempered {
    /// Settings under the house convention.
    pub(crate) fn new(
        temperature: f64,
        reduction: Reduction,
        vocabulary: VocabularyPolicy,
    ) -> Result<Self, ConfigError> {
        let temperature = ConfigError::check_temperature(temperature)?;
        Ok(Self { temperature, reduction, vocabulary, convention: Convention::default() })
    }

    /// The same settings under another convention.
    pub(crate) fn under(self, convention: Convention) -> Self {
        Self { convention, ..self }
    }

    /// The same settings at another temperature.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub(crate) fn at(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    pub(crate) fn temperature(&self) -> f64 {
        self.temperature
    }

    /// What `rows` gives for the aligned logits, `[rows]`, times temperature squared (or as the convention says); 0 for
    /// masked-out rows.
    pub(crate) fn rows<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: TeacherLogits,
        mask: &Mask,
        rows: impl FnOnce(Aligned) -> Tensor<1>,
    ) -> Tensor<1> {
        let aligned = align(student_logits, teacher_logits, mask, self.vocabulary);
        let rows = rows(aligned);
        mask.zero(match self.convention.temperature_scale {
            TemperatureScale::Squared => rows.mul_scalar(self.temperature.powi(2)),
            TemperatureScale::One => rows,
        })
    }

    /// What the convention divides a mean by, for these inputs.
    pub(crate) fn divisor<const D: usize>(
        &self,
        student_logits: &Tensor<D>,
        teacher_logits: &TeacherLogits,
        mask: &Mask,
    ) -> Divisor {
        self.convention.denominator.divisor(&student_logits.dims(), teacher_logits, mask, self.vocabulary)
    }

    /// Reduces values `[rows]`, in which masked-out rows are 0 already, to `[1]`.
    pub(crate) fn reduce(&self, values: Tensor<1>, mask: &Mask, divisor: Divisor) -> Tensor<1> {
        divisor.reduce(values, self.reduction, mask)
    }
}

/// Gives a loss the methods `at_temperature`, `forward_no_reduction` and `forward`.
///
/// `tempered_loss!(NameLoss)` needs a field `tempered: Tempered` and a private method
/// `divergence(&self, aligned: Aligned) -> Tensor<1>`, the formula of a row without temperature squared, reduction and
/// mask. `tempered_loss!(NameLoss, targets: E)` is for losses that take class ids too, as
/// `divergence(&self, aligned: Aligned, targets: Tensor<2, Int>)`, `[rows, 1]`.
macro_rules! tempered_loss {
    ($loss:ident $(, $targets:ident: $rank:ident)?) => {
        impl $loss {
            /// The same loss at another temperature, for schedules.
            ///
            /// # Panics
            /// If `temperature` is not in (0, inf).
            #[track_caller]
            pub fn at_temperature(&self, temperature: f64) -> Self {
                let mut loss = self.clone();
                loss.tempered = self.tempered.at(temperature);
                loss
            }

            /// The loss of each row, `[rows]`.
            pub fn forward_no_reduction<const D: usize $(, const $rank: usize)?>(
                &self,
                student_logits: burn::tensor::Tensor<D>,
                teacher_logits: impl Into<$crate::TeacherLogits>,
                $($targets: burn::tensor::Tensor<$rank, burn::tensor::Int>,)?
                mask: impl Into<$crate::Mask>,
            ) -> burn::tensor::Tensor<1> {
                let mask = mask.into();
                self.tempered.rows(student_logits, teacher_logits.into(), &mask, |aligned| {
                    $(let $targets = $crate::align::flatten_targets($targets, aligned.student.dims()[0], &mask);)?
                    self.divergence(aligned $(, $targets)?)
                })
            }

            /// The reduced loss, `[1]`.
            pub fn forward<const D: usize $(, const $rank: usize)?>(
                &self,
                student_logits: burn::tensor::Tensor<D>,
                teacher_logits: impl Into<$crate::TeacherLogits>,
                $($targets: burn::tensor::Tensor<$rank, burn::tensor::Int>,)?
                mask: impl Into<$crate::Mask>,
            ) -> burn::tensor::Tensor<1> {
                let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
                let divisor = self.tempered.divisor(&student_logits, &teacher_logits, &mask);
                let values = self.forward_no_reduction(student_logits, teacher_logits, $($targets,)? mask.clone());
                self.tempered.reduce(values, &mask, divisor)
            }
        }
    };
}

pub(crate) use tempered_loss;
