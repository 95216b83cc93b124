use burn::{
    config::Config,
    tensor::{Bool, Int, Tensor},
};

use crate::{
    ConfigError, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::kl,
    floor::{FLOOR, log_sum_exp},
    tempered::{Tempered, tempered_loss},
};

/// What the authors' code adds to the teacher's cross-entropy, by which it divides.
const EPSILON: f64 = 1e-7;

/// Configuration of [`WsldLoss`].
#[derive(Config, Debug)]
pub struct WsldLossConfig {
    /// Temperature that softens both distributions, in (0, inf). The authors use 2 on ImageNet and 4 on CIFAR-100.
    #[config(default = 4.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl WsldLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<WsldLoss, ConfigError> {
        Ok(WsldLoss { tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)? })
    }
}

/// Weighted soft labels: KD with a weight for each sample, small where the student knows the label better than the
/// teacher does, so that soft labels teach where they reduce the bias more than they add variance.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// w = 1 - exp(- H(student) / (H(teacher) + 1e-7)),  H = cross-entropy with the target at temperature 1, a constant
/// loss = T² · mean over rows of  w KL(p || q)
/// ```
///
/// **Scale**: true KL in nats, always times temperature squared, averaged over unmasked rows; the weights are not
/// normalised. The paper and its code have the cross-entropy with the soft labels in place of the KL: the same
/// gradient, as the weights are constants, and a value that is larger by `w T²` times the teacher's entropy. The 1e-7
/// is the code's. The authors give this term the weight 2.5 beside a cross-entropy with the labels of weight 1.
///
/// Against a [sparse](crate::SparseLogits) teacher both cross-entropies are those of the coarse distributions. A
/// target that it does not list is the tail bucket; without a bucket its weight is 0, as with any target that the
/// teacher gives probability 0.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or sparse;
/// - `targets`: class ids of any rank, one per row;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only, and not through the weights.
///
/// # Errors
/// [`WsldLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::WsldLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 3f32.ln()]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// let loss = WsldLossConfig::new().with_temperature(1.0).init()?;
/// // The teacher doubts the target, 1/4 against 1/2: w = 1 - exp(- ln 2 / ln 4) = 1 - exp(-0.5) = 0.393469.
/// // KL = 0.25 ln 0.5 + 0.75 ln 1.5 = 0.130812.
/// let value = loss.forward(student, teacher, targets, None).into_scalar::<f64>();
/// assert!((value - 0.393469 * 0.130812).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zhou et al., *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective*, 2021,
///   arXiv 2102.00650, section 4.
/// - Reference code: bellymonster/Weighted-Soft-Label-Distillation `knowledge_distiller.py` at 67820dd7, with the
///   cross-entropy.
#[derive(Debug, Clone)]
pub struct WsldLoss {
    tempered: Tempered,
}

impl WsldLoss {
    fn divergence(&self, aligned: Aligned, targets: Tensor<2, Int>) -> Tensor<1> {
        let target = aligned.target_columns(targets);
        let ratio = cross_entropy(aligned.student.clone(), &target)
            / cross_entropy(aligned.teacher.clone(), &target).add_scalar(EPSILON);
        // 1 - exp(-r) = 2 tanh(r / 2) / (1 + tanh(r / 2)), exact for small r too. From 40 on it is 1; the tanh of some GPUs
        // is not a number there.
        let tanh = ratio.clamp_max(40.0).div_scalar(2.0).tanh();
        let weight = tanh.clone().mul_scalar(2.0) / tanh.add_scalar(1.0);
        let weight = weight.mask_fill(target.any_dim(1).bool_not(), 0.0).squeeze_dim(1);
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        kl(teacher, student) * weight
    }
}

tempered_loss!(WsldLoss, targets: E);

/// The cross-entropy of each row with its target, `[rows, 1]`, without gradient; of no meaning for a row without one.
fn cross_entropy(logits: Tensor<2>, target: &Tensor<2, Bool>) -> Tensor<2> {
    let logits = logits.without_autodiff().clamp_min(FLOOR);
    let ([rows, width], [_, listed]) = (logits.dims(), target.dims());
    // A tail whose term is to be dropped is no target, but has its share of the probability.
    let target = match width - listed {
        0 => target.clone(),
        tail => Tensor::cat(vec![target.clone(), Tensor::zeros([rows, tail], &target.device())], 1),
    };
    let of_target = logits.clone().mask_fill(target.clone().bool_not(), 0.0).sum_dim(1);
    // ln(1 + e^gap), which keeps its digits where the target has nearly all the probability.
    let gap = log_sum_exp((logits - of_target).mask_fill(target, FLOOR));
    gap.clone().clamp_min(0.0) + gap.abs().neg().exp().log1p()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail, TeacherLogits};

    /// What WSLD is, divided by KD: the weight.
    fn weight(student: [f32; 3], teacher: [f32; 3], target: i32) -> f64 {
        let device = Device::flex();
        let [student, teacher] = [student, teacher].map(|row| Tensor::<2>::from_floats([row], &device));
        let targets = Tensor::<1, Int>::from_ints([target], &device);
        let wsld = WsldLossConfig::new().init().unwrap().forward(student.clone(), teacher.clone(), targets, None);
        let kd = KdLossConfig::new().init().unwrap().forward(student, teacher, None);
        wsld.into_scalar::<f64>() / kd.into_scalar::<f64>()
    }

    #[test]
    fn a_teacher_that_knows_is_listened_to_and_a_student_that_knows_is_left_alone() {
        let (sure, wrong, open) = ([20.0, 0.0, 1.0], [-20.0, 0.0, 1.0], [0.5, 0.0, 1.0]);
        assert_relative_eq!(weight(open, sure, 0), 1.0, epsilon = 1e-5);
        assert!(weight(sure, open, 0) < 1e-6);
        assert!(weight(open, wrong, 0) < 0.06);
        // Equal cross-entropies, other distributions: 1 - 1/e.
        assert_relative_eq!(weight([0.5, 0.0, 1.0], [0.5, 1.0, 0.0], 0), 1.0 - (-1f64).exp(), max_relative = 1e-5);
    }

    #[test]
    fn a_weight_far_below_one_keeps_its_digits() {
        // H(student) = ln(1 + 2 e^-12), H(teacher) = ln 3.
        let expected = (2.0 * (-12f64).exp()).ln_1p() / 3f64.ln();
        assert_relative_eq!(weight([12.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0), expected, max_relative = 1e-4);
    }

    #[test]
    fn a_target_that_the_teacher_excludes_counts_nothing() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0]], &device);
        let dense = Tensor::<2>::from_floats([[1.0, f32::NEG_INFINITY, 0.5]], &device);
        let sparse = SparseLogits::from_dense(dense.clone(), 2, Tail::Renormalise).unwrap();
        let loss = WsldLossConfig::new().init().unwrap();
        for teacher in [TeacherLogits::Dense(dense), sparse.into()] {
            let targets = Tensor::<1, Int>::from_ints([1], &device);
            assert!(loss.forward(student.clone(), teacher, targets, None).into_scalar::<f64>() < 1e-20);
        }
    }
}
