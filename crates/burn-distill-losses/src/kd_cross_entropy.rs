use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use crate::{
    ConfigError, CrossEntropyLoss, CrossEntropyLossConfig, KdLoss, KdLossConfig, KernelPath, Mask, Reduction,
    TeacherLogits, VocabularyPolicy,
    align::flatten_targets,
    fused::{Divergence, Fused},
    tempered::Tempered,
};

/// Configuration of [`KdCrossEntropyLoss`].
#[derive(Config, Debug)]
pub struct KdCrossEntropyLossConfig {
    /// Temperature that softens both distributions, in (0, inf). The labels' part is at temperature 1.
    #[config(default = 4.0)]
    pub temperature: f64,
    /// Weight of the soft targets, in [0, inf).
    #[config(default = 0.9)]
    pub soft_weight: f64,
    /// Weight of the labels, in [0, inf).
    #[config(default = 0.1)]
    pub hard_weight: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl KdCrossEntropyLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf) or a weight is not in [0, inf).
    pub fn init(&self) -> Result<KdCrossEntropyLoss, ConfigError> {
        let kd = KdLossConfig::new().with_temperature(self.temperature).with_vocabulary(self.vocabulary);
        Ok(KdCrossEntropyLoss {
            soft_weight: ConfigError::check_weight("soft_weight", self.soft_weight)?,
            hard_weight: ConfigError::check_weight("hard_weight", self.hard_weight)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?,
            reduction: self.reduction,
            kd: kd.init()?,
            hard: CrossEntropyLossConfig::new().init()?,
        })
    }
}

/// Knowledge distillation beside the labels, in one pass over the logits.
///
/// ```text
/// loss = soft_weight · T² · KL(softmax(teacher_logits / T) || softmax(student_logits / T))
///      + hard_weight · CE(student_logits, targets)                   mean over rows
/// ```
///
/// The same number as [`KdLoss`] and [`CrossEntropyLoss`] with these weights: use the two as terms of an objective where
/// their weights follow schedules or their values are to be seen apart, and this one where time counts.
///
/// Where a vocabulary policy leaves out columns of the student, both parts are without them.
///
/// **Scale**: nats, both parts averaged over unmasked rows; the soft one times temperature squared.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or [sparse](crate::SparseLogits);
/// - `targets`: a class id per row, of the student's classes;
/// - `mask`: a boolean per row, true = counts, for both parts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `(soft_weight · T · (q - p) + hard_weight · (softmax(student_logits) - onehot)) / rows`.
///
/// # Errors
/// [`KdCrossEntropyLossConfig::init`] if the temperature is not in (0, inf) or a weight not in [0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::KdCrossEntropyLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[2.0 * 3f32.ln(), 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_ints([1], &device);
/// let loss = KdCrossEntropyLossConfig::new().with_temperature(2.0).init()?;
/// // KL = 0.130812 as in `KdLoss`, CE = ln 2: 0.9 · 4 · 0.130812 + 0.1 · 0.693147.
/// let value = loss.forward(student, teacher, targets, None).into_scalar::<f64>();
/// assert!((value - 0.540238).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv 1503.02531, section 2.
/// - Reference code: RepDistiller `train_student.py` at b84f547c (`gamma * loss_cls + alpha * loss_div`).
#[derive(Debug, Clone)]
pub struct KdCrossEntropyLoss {
    soft_weight: f64,
    hard_weight: f64,
    tempered: Tempered,
    reduction: Reduction,
    kd: KdLoss,
    hard: CrossEntropyLoss,
}

impl KdCrossEntropyLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { tempered: self.tempered.at(temperature), kd: self.kd.at_temperature(temperature), ..self.clone() }
    }

    /// The way in which `forward` computes these inputs.
    ///
    /// # Panics
    /// As `forward`.
    pub fn kernel_path<const D: usize>(
        &self,
        student_logits: &Tensor<D>,
        teacher_logits: &TeacherLogits,
    ) -> KernelPath {
        (&self.fused(student_logits, teacher_logits)).into()
    }

    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
        match self.fused(&student_logits, &teacher_logits) {
            Ok(kernel) => {
                let targets = class_ids(&student_logits, targets, &mask);
                self.tempered.kernel_rows(&kernel, student_logits, teacher_logits, Some(targets), &mask)
            }
            Err(_) => self.composed_rows(student_logits, teacher_logits, targets, &mask),
        }
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
        let fused = self.fused(&student_logits, &teacher_logits);
        log::debug!("KdCrossEntropyLoss: {}", KernelPath::from(&fused));
        match fused {
            Ok(kernel) => {
                let targets = class_ids(&student_logits, targets, &mask);
                self.tempered.kernel_reduced(&kernel, student_logits, teacher_logits, Some(targets), &mask)
            }
            Err(_) => self.forward_composed(student_logits, teacher_logits, targets, mask),
        }
    }

    /// The reduced loss composed of tensor operations, as [`Self::forward`] computes it where there is no kernel.
    pub fn forward_composed<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.composed_rows(student_logits, teacher_logits.into(), targets, &mask), &mask)
    }

    fn composed_rows<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: TeacherLogits,
        targets: Tensor<E, Int>,
        mask: &Mask,
    ) -> Tensor<1> {
        let dims = student_logits.dims();
        let classes = self.tempered.classes(dims[D - 1], &teacher_logits);
        let compared = student_logits.clone().narrow(D - 1, 0, classes);
        let hard = self.hard.forward_no_reduction(compared, targets, mask.clone());
        let soft = self.kd.composed_rows(student_logits, teacher_logits, mask);
        soft.mul_scalar(self.soft_weight) + hard.mul_scalar(self.hard_weight)
    }

    fn fused<const D: usize>(
        &self,
        student_logits: &Tensor<D>,
        teacher_logits: &TeacherLogits,
    ) -> Result<Fused, String> {
        let weights = [self.soft_weight, self.hard_weight];
        self.tempered.kernel(student_logits, teacher_logits, Some(Divergence::ForwardKl), weights)
    }
}

fn class_ids<const D: usize, const E: usize>(
    student_logits: &Tensor<D>,
    targets: Tensor<E, Int>,
    mask: &Mask,
) -> Tensor<1, Int> {
    let rows = student_logits.dims()[..D - 1].iter().product();
    flatten_targets(targets, rows, mask).reshape([rows])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_weights_out_of_range() {
        let error = KdCrossEntropyLossConfig::new().with_hard_weight(-0.5).init().unwrap_err();
        assert_eq!(error.to_string(), "`hard_weight` must be in [0, inf), got -0.5");
        let error = KdCrossEntropyLossConfig::new().with_soft_weight(f64::NAN).init().unwrap_err();
        assert_eq!(error.to_string(), "`soft_weight` must be in [0, inf), got NaN");
    }
}
