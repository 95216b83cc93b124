use burn::{
    config::Config,
    tensor::{Bool, Int, Tensor},
};

use crate::{
    ConfigError, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::kl,
    floor::FLOOR,
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`DkdLoss`].
#[derive(Config, Debug)]
pub struct DkdLossConfig {
    /// Weight of the target-class part, in [0, inf).
    #[config(default = 1.0)]
    pub alpha: f64,
    /// Weight of the non-target-class part, in [0, inf). The paper uses 8 for most pairs on CIFAR-100 (up to 14) and
    /// 0.5 on ImageNet.
    #[config(default = 8.0)]
    pub beta: f64,
    /// Temperature that softens both distributions, in (0, inf); 4 on CIFAR-100 and 1 on ImageNet in the paper.
    #[config(default = 4.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl DkdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If a weight is not in [0, inf) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<DkdLoss, ConfigError> {
        Ok(DkdLoss {
            alpha: ConfigError::check_weight("alpha", self.alpha)?,
            beta: ConfigError::check_weight("beta", self.beta)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?,
        })
    }
}

/// Decoupled knowledge distillation: KD split into how sure the teacher is of the target, and how it ranks the other
/// classes, with a weight for each.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T),  t = target
/// TCKD = KL( [p_t, 1 - p_t] || [q_t, 1 - q_t] )
/// NCKD = KL( p_c / (1 - p_t) || q_c / (1 - q_t) )   over c ≠ t
/// loss = T² · mean over rows of  α TCKD + β NCKD
/// ```
///
/// **Scale**: true KL in nats, always times temperature squared, averaged over unmasked rows. With α = 1 and
/// β = 1 - p_t it would be KD. The linear warm-up of the authors' trainer is the weight of this term in the
/// objective. Against a [sparse](crate::SparseLogits) teacher that does not list the target, the tail bucket takes
/// its place; without a bucket TCKD is 0. Where the teacher gives every class but the target probability 0, NCKD is 0.
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
/// [`DkdLossConfig::init`] if a weight is not in [0, inf) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::DkdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[2f32.ln(), 0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[2f32.ln(), 3f32.ln() - 2f32.ln(), 0.5f32.ln()]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// let loss = DkdLossConfig::new().with_temperature(1.0).with_beta(8.0).init()?;
/// // Both give the target 1/2, so TCKD = 0; the others are (3/4, 1/4) against (1/2, 1/2): NCKD = 0.130812.
/// let value = loss.forward(student, teacher, targets, None).into_scalar::<f64>();
/// assert!((value - 8.0 * 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zhao et al., *Decoupled Knowledge Distillation*, 2022, arXiv 2203.08679, equations 5 and 7.
/// - Reference code: mdistiller `mdistiller/distillers/DKD.py` at a08d46f1. It subtracts 1000 from the target's logit
///   where this takes the target out, and takes the logarithm of a probability that may underflow to 0 where this
///   stays in log space.
#[derive(Debug, Clone)]
pub struct DkdLoss {
    alpha: f64,
    beta: f64,
    tempered: Tempered,
}

impl DkdLoss {
    fn divergence(&self, aligned: Aligned, targets: Tensor<2, Int>) -> Tensor<1> {
        let target = aligned.target_columns(targets);
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        let (student, teacher) = (Decoupled::new(student, &target), Decoupled::new(teacher, &target));
        let nothing_else = teacher.nothing_else();
        let tckd = kl(teacher.target_or_not, student.target_or_not);
        let nckd = kl(teacher.among_others, student.among_others).mask_fill(nothing_else, 0.0);
        tckd.mul_scalar(self.alpha) + nckd.mul_scalar(self.beta)
    }

    fn kernel(&self) -> Divergence {
        Divergence::Decoupled { alpha: self.alpha, beta: self.beta }
    }
}

tempered_loss!(DkdLoss, targets: E; kernel);

/// The two distributions that the log-probabilities `[rows, width]` of one side factor into.
pub(crate) struct Decoupled {
    /// `[ln p_t, ln (1 - p_t)]`, `[rows, 2]`.
    target_or_not: Tensor<2>,
    /// `ln (p_c / (1 - p_t))`, `[rows, width]`; the target has probability 0.
    pub(crate) among_others: Tensor<2>,
}

impl Decoupled {
    pub(crate) fn new(log_probs: Tensor<2>, target: &Tensor<2, Bool>) -> Self {
        let absent = target.clone().any_dim(1).bool_not();
        let of_target = log_probs.clone().mask_fill(target.clone().bool_not(), 0.0).sum_dim(1);
        let others = log_probs.mask_fill(target.clone(), FLOOR);
        // The others are normalised relative to the largest of them: when the target has nearly all the probability,
        // their own logarithms are large numbers whose rounding would show.
        let largest = others.clone().without_autodiff().max_dim(1);
        let others = others - largest.clone();
        let log_sum = others.clone().exp().sum_dim(1).log();
        let of_others = log_sum.clone() + largest;
        Self {
            target_or_not: Tensor::cat(vec![of_target.mask_fill(absent, FLOOR), of_others], 1),
            among_others: others - log_sum,
        }
    }

    /// The rows in which every class but the target has probability 0, `[rows]`: they say nothing of the others.
    pub(crate) fn nothing_else(&self) -> Tensor<1, Bool> {
        let of_others = self.target_or_not.clone().narrow(1, 1, 1).squeeze_dim::<1>(1);
        of_others.lower_elem(FLOOR / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Device, activation::log_softmax};

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    #[test]
    fn one_row_with_the_weight_of_the_rest_is_kd() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([2], &device);
        let p = log_softmax(teacher.clone(), 1).exp().narrow(1, 2, 1).into_scalar::<f64>();
        let dkd = DkdLossConfig::new().with_beta(1.0 - p).with_temperature(1.0).init().unwrap();
        let kd = KdLossConfig::new().with_temperature(1.0).init().unwrap();
        assert_relative_eq!(
            dkd.forward(student.clone(), teacher.clone(), targets, None).into_scalar::<f64>(),
            kd.forward(student, teacher, None).into_scalar::<f64>(),
            max_relative = 1e-5
        );
    }

    #[test]
    fn unlisted_target_without_a_tail_leaves_the_other_part() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[3.0, 2.0, -4.0, -4.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([3], &device);
        let sparse = SparseLogits::from_dense(teacher, 2, Tail::Renormalise).unwrap();
        let value = |alpha: f64| {
            let loss = DkdLossConfig::new().with_alpha(alpha).with_beta(1.0).with_temperature(1.0).init().unwrap();
            loss.forward(student.clone(), sparse.clone(), targets.clone(), None).into_scalar::<f64>()
        };
        let (p, q) = (1.0 / (1.0 + (-1f64).exp()), 1.0 / (1.0 + (-1.3f64).exp()));
        let expected = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        assert_relative_eq!(value(0.0), expected, epsilon = 1e-6);
        assert_relative_eq!(value(5.0), expected, epsilon = 1e-6);
    }

    #[test]
    fn teacher_sure_of_the_target_says_nothing_of_the_others() {
        let device = Device::flex();
        let infinity = f32::INFINITY;
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[-infinity, 1.0, -infinity, -infinity]], &device);
        let targets = Tensor::<1, Int>::from_ints([1], &device);
        let loss = DkdLossConfig::new().with_temperature(1.0).init().unwrap();
        let value = loss.forward(student.clone(), teacher, targets, None).into_scalar::<f64>();
        let expected = -log_softmax(student, 1).narrow(1, 1, 1).into_scalar::<f64>();
        assert_relative_eq!(value, expected, max_relative = 1e-6);
    }
}
