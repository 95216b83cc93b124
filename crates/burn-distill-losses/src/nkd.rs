use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use crate::{
    ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy,
    align::{align, flatten_targets},
    divergence::kl,
    dkd::Decoupled,
    error::expect_temperature,
};

/// Configuration of [`NkdLoss`].
#[derive(Config, Debug)]
pub struct NkdLossConfig {
    /// Weight of the other classes, in [0, inf). The authors use 1.5 on ImageNet and 3.5 on CIFAR-100.
    #[config(default = 1.5)]
    pub gamma: f64,
    /// Temperature that softens both sides' distributions over the other classes, in (0, inf). The authors use 1 on
    /// ImageNet and 3 on CIFAR-100.
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl NkdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `gamma` is not in [0, inf) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<NkdLoss, ConfigError> {
        Ok(NkdLoss {
            gamma: ConfigError::check_weight("gamma", self.gamma)?,
            temperature: ConfigError::check_temperature(self.temperature)?,
            reduction: self.reduction,
            vocabulary: self.vocabulary,
        })
    }
}

/// Normalised knowledge distillation: the target's cross-entropy weighted by the teacher's confidence, and the other
/// classes, normalised on both sides so that their sums are equal and they can be matched.
///
/// ```text
/// p, q = softmax(teacher_logits), softmax(student_logits),  t = target
/// P, Q = softmax over c ≠ t of  teacher_logits / T  and of  student_logits / T
/// loss = mean over rows of  - p_t ln q_t + γ T² KL(P || Q)
/// ```
///
/// **Scale**: nats, averaged over unmasked rows. The target's part has no temperature (so that T² = 1 belongs to it);
/// the other classes' part is always times temperature squared. The paper and its code have the cross-entropy
/// `- Σ P_c ln Q_c` in place of the KL: the same gradient, and a value that is larger by `γ T²` times the entropy of P.
/// The target's part is not a divergence: it pulls `q_t` to 1, not to `p_t`, and is 0 nowhere else. With γ = 0 it is
/// a cross-entropy that the teacher weighs. The cross-entropy with the labels is added by the objective. The
/// authors' second method, USKD, has no teacher and a head of its own; it is not this.
///
/// Against a [sparse](crate::SparseLogits) teacher that does not list the target, the tail bucket takes its place;
/// without a bucket the target's part is 0. Where the teacher gives every class but the target probability 0, the
/// other part is 0.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or sparse;
/// - `targets`: class ids of any rank, one per row;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only.
///
/// # Errors
/// [`NkdLossConfig::init`] if γ is not in [0, inf) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::NkdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[2f32.ln(), 0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[2f32.ln(), 3f32.ln() - 2f32.ln(), 0.5f32.ln()]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// // Both give the target 1/2: 0.5 ln 2 = 0.346574. The others are (3/4, 1/4) against (1/2, 1/2): KL = 0.130812.
/// let value = NkdLossConfig::new().init()?.forward(student, teacher, targets, None).into_scalar::<f64>();
/// assert!((value - 0.346574 - 1.5 * 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
///   and Customized Soft Labels*, 2023, arXiv 2303.13005, section 3.1.
/// - Reference code: yzd-v/cls_KD `mmcls/models/dis_losses/nkd.py` at 1e5d48f3, with the cross-entropy.
#[derive(Debug, Clone)]
pub struct NkdLoss {
    gamma: f64,
    temperature: f64,
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
}

impl NkdLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let aligned = align(student_logits, teacher_logits.into(), &mask, self.vocabulary);
        let targets = flatten_targets(targets, aligned.student.dims()[0], &mask);
        let target = aligned.target_columns(targets);
        let at_target = |values: Tensor<2>| values.mask_fill(target.clone().bool_not(), 0.0).sum_dim(1);
        let (student, (confidence, _)) = aligned.clone().with_teacher_probs(1.0);
        let target_part = (at_target(confidence) * at_target(student)).neg().squeeze_dim(1);
        let (student, teacher) = aligned.log_probs(self.temperature);
        let (student, teacher) = (Decoupled::new(student, &target), Decoupled::new(teacher, &target));
        let nothing_else = teacher.nothing_else();
        let other_part = kl(teacher.among_others, student.among_others).mask_fill(nothing_else, 0.0);
        mask.zero(target_part + other_part.mul_scalar(self.gamma * self.temperature.powi(2)))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let values = self.forward_no_reduction(student_logits, teacher_logits, targets, mask.clone());
        self.reduction.apply(values, &mask)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Device, activation};

    use super::*;
    use crate::{DkdLossConfig, SparseLogits, Tail};

    #[test]
    fn it_is_the_weighted_target_and_the_other_part_of_dkd() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([1], &device);
        let others = DkdLossConfig::new().with_alpha(0.0).with_beta(3.5).with_temperature(3.0).init().unwrap();
        let others = others.forward(student.clone(), teacher.clone(), targets.clone(), None).into_scalar::<f64>();
        let p = activation::softmax(teacher.clone(), 1).narrow(1, 1, 1).into_scalar::<f64>();
        let hard = -activation::log_softmax(student.clone(), 1).narrow(1, 1, 1).into_scalar::<f64>();
        let nkd = NkdLossConfig::new().with_gamma(3.5).with_temperature(3.0).init().unwrap();
        let value = nkd.forward(student, teacher, targets, None).into_scalar::<f64>();
        assert_relative_eq!(value, p * hard + others, max_relative = 1e-5);
    }

    #[test]
    fn unlisted_target_without_a_tail_leaves_the_other_part() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[3.0, 2.0, -4.0, -4.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([3], &device);
        let sparse = SparseLogits::from_dense(teacher, 2, Tail::Renormalise).unwrap();
        let nkd = NkdLossConfig::new().with_gamma(2.0).init().unwrap();
        let value = nkd.forward(student, sparse, targets, None).into_scalar::<f64>();
        let (p, q) = (1.0 / (1.0 + (-1f64).exp()), 1.0 / (1.0 + (-1.3f64).exp()));
        let expected = 2.0 * (p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln());
        assert_relative_eq!(value, expected, max_relative = 1e-5);
    }

    #[test]
    fn rejects_a_negative_gamma() {
        let error = NkdLossConfig::new().with_gamma(-0.5).init().unwrap_err();
        assert_eq!(error.to_string(), "`gamma` must be in [0, inf), got -0.5");
    }
}
