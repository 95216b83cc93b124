//! What the losses on tempered logits share: their settings, and the public methods that follow from a value per row.

use burn::tensor::{Int, Tensor};

use crate::{
    ConfigError, Convention, Mask, Reduction, TeacherLogits, TemperatureScale, VocabularyPolicy,
    align::{Aligned, align, assert_rows},
    convention::Divisor,
    error::expect_temperature,
    fused::{Divergence, Fused, Spec, row_weights},
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
        mask.zero(rows(aligned).mul_scalar(self.scale()))
    }

    /// What a row's divergence is multiplied by.
    fn scale(&self) -> f64 {
        match self.convention.temperature_scale {
            TemperatureScale::Squared => self.temperature.powi(2),
            TemperatureScale::One => 1.0,
        }
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

    /// Over how many classes a student's `columns` are compared with the teacher's.
    ///
    /// # Panics
    /// If they differ and the policy does not allow it.
    #[track_caller]
    pub(crate) fn classes(&self, columns: usize, teacher_logits: &TeacherLogits) -> usize {
        self.vocabulary.classes(columns, teacher_logits.dims().1)
    }

    /// The kernel for `soft` times `divergence` and `hard` times the labels' cross-entropy on these inputs, or why there
    /// is none.
    pub(crate) fn kernel<const D: usize>(
        &self,
        student_logits: &Tensor<D>,
        teacher_logits: &TeacherLogits,
        divergence: Option<Divergence>,
        [soft, hard]: [f64; 2],
    ) -> Result<Fused, String> {
        let divergence = divergence.ok_or("this loss has no kernel")?;
        let dims = student_logits.dims();
        let rows = dims[..D - 1].iter().product();
        assert_rows(rows, teacher_logits.dims().0);
        let classes = self.classes(dims[D - 1], teacher_logits);
        let spec = Spec { divergence, temperature: self.temperature, soft: soft * self.scale(), hard, classes };
        Fused::new(student_logits, teacher_logits, spec)
    }

    /// The rows by a kernel, as of [`Tempered::rows`].
    pub(crate) fn kernel_rows<const D: usize>(
        &self,
        kernel: &Fused,
        student_logits: Tensor<D>,
        teacher_logits: TeacherLogits,
        targets: Option<Tensor<1, Int>>,
        mask: &Mask,
    ) -> Tensor<1> {
        let weights = row_weights(mask, &student_logits.device());
        mask.check_height(student_logits.dims()[..D - 1].iter().product());
        kernel.rows(student_logits, teacher_logits, weights, targets)
    }

    /// The reduced loss by a kernel, in which the reduction is each row's weight, so that the gradient is finished with
    /// the forward pass.
    pub(crate) fn kernel_reduced<const D: usize>(
        &self,
        kernel: &Fused,
        student_logits: Tensor<D>,
        teacher_logits: TeacherLogits,
        targets: Option<Tensor<1, Int>>,
        mask: &Mask,
    ) -> Tensor<1> {
        let divisor = self.divisor(&student_logits, &teacher_logits, mask);
        let weights = row_weights(mask, &student_logits.device());
        let rows = student_logits.dims()[..D - 1].iter().product();
        mask.check_height(rows);
        let weights = divisor.weights(weights, rows, self.reduction, mask);
        kernel.rows(student_logits, teacher_logits, weights, targets).sum()
    }
}

/// Gives a loss the methods `at_temperature`, `forward_no_reduction` and `forward`.
///
/// `tempered_loss!(NameLoss)` needs a field `tempered: Tempered` and a private method
/// `divergence(&self, aligned: Aligned) -> Tensor<1>`, the formula of a row without temperature squared, reduction and
/// mask. `tempered_loss!(NameLoss, targets: E)` is for losses that take class ids too, as
/// `divergence(&self, aligned: Aligned, targets: Tensor<2, Int>)`, `[rows, 1]`. With `; kernel` at the end there is also a
/// method `kernel(&self) -> Divergence`, what the fused kernels compute for this loss.
macro_rules! tempered_loss {
    (@kernel $self:ident) => { None };
    (@kernel $self:ident kernel) => { Some($self.kernel()) };
    (@targets $mask:ident, $student:ident) => { None };
    (@targets $mask:ident, $student:ident, $targets:ident) => {{
        let dims = $student.dims();
        let rows = dims[..dims.len() - 1].iter().product();
        Some($crate::align::flatten_targets($targets.clone(), rows, &$mask).reshape([rows]))
    }};
    ($loss:ident $(, $targets:ident: $rank:ident)? $(; $kernel:ident)?) => {
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

            /// The way in which `forward` computes these inputs.
            ///
            /// # Panics
            /// As `forward`.
            pub fn kernel_path<const D: usize>(
                &self,
                student_logits: &burn::tensor::Tensor<D>,
                teacher_logits: &$crate::TeacherLogits,
            ) -> $crate::KernelPath {
                (&self.fused(student_logits, teacher_logits)).into()
            }

            fn fused<const D: usize>(
                &self,
                student_logits: &burn::tensor::Tensor<D>,
                teacher_logits: &$crate::TeacherLogits,
            ) -> Result<$crate::fused::Fused, String> {
                let kernel = tempered_loss!(@kernel self $($kernel)?);
                self.tempered.kernel(student_logits, teacher_logits, kernel, [1.0, 0.0])
            }

            /// The loss of each row, `[rows]`.
            pub fn forward_no_reduction<const D: usize $(, const $rank: usize)?>(
                &self,
                student_logits: burn::tensor::Tensor<D>,
                teacher_logits: impl Into<$crate::TeacherLogits>,
                $($targets: burn::tensor::Tensor<$rank, burn::tensor::Int>,)?
                mask: impl Into<$crate::Mask>,
            ) -> burn::tensor::Tensor<1> {
                let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
                let fused = self.fused(&student_logits, &teacher_logits);
                log::debug!("{}: {}", stringify!($loss), $crate::KernelPath::from(&fused));
                match fused {
                    Ok(kernel) => {
                        let targets = tempered_loss!(@targets mask, student_logits $(, $targets)?);
                        self.tempered.kernel_rows(&kernel, student_logits, teacher_logits, targets, &mask)
                    }
                    Err(_) => self.composed_rows(student_logits, teacher_logits, $($targets,)? &mask),
                }
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
                let fused = self.fused(&student_logits, &teacher_logits);
                log::debug!("{}: {}", stringify!($loss), $crate::KernelPath::from(&fused));
                match fused {
                    Ok(kernel) => {
                        let targets = tempered_loss!(@targets mask, student_logits $(, $targets)?);
                        self.tempered.kernel_reduced(&kernel, student_logits, teacher_logits, targets, &mask)
                    }
                    Err(_) => self.forward_composed(student_logits, teacher_logits, $($targets,)? mask),
                }
            }

            /// The reduced loss composed of tensor operations, as [`Self::forward`] computes it where there is no
            /// kernel: what the kernels are tested against.
            pub fn forward_composed<const D: usize $(, const $rank: usize)?>(
                &self,
                student_logits: burn::tensor::Tensor<D>,
                teacher_logits: impl Into<$crate::TeacherLogits>,
                $($targets: burn::tensor::Tensor<$rank, burn::tensor::Int>,)?
                mask: impl Into<$crate::Mask>,
            ) -> burn::tensor::Tensor<1> {
                let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
                let divisor = self.tempered.divisor(&student_logits, &teacher_logits, &mask);
                let values = self.composed_rows(student_logits, teacher_logits, $($targets,)? &mask);
                self.tempered.reduce(values, &mask, divisor)
            }

            pub(crate) fn composed_rows<const D: usize $(, const $rank: usize)?>(
                &self,
                student_logits: burn::tensor::Tensor<D>,
                teacher_logits: $crate::TeacherLogits,
                $($targets: burn::tensor::Tensor<$rank, burn::tensor::Int>,)?
                mask: &$crate::Mask,
            ) -> burn::tensor::Tensor<1> {
                self.tempered.rows(student_logits, teacher_logits, mask, |aligned| {
                    $(let $targets = $crate::align::flatten_targets($targets, aligned.student.dims()[0], mask);)?
                    self.divergence(aligned $(, $targets)?)
                })
            }
        }
    };
}

pub(crate) use tempered_loss;
