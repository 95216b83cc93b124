use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use crate::{
    ConfigError, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::kl,
    floor::{FLOOR, log_sum_exp},
    tempered::{Tempered, tempered_loss},
};

/// The target's weight is up to `2^γ - 1`, which times a divergence has to stay within f32 (2^128).
const MAX_GAMMA: f64 = 64.0;

/// Configuration of [`OfaLoss`].
#[derive(Config, Debug)]
pub struct OfaLossConfig {
    /// Exponent that enhances the target, in (0, 64]: 1 is KD, more trusts the teacher where it is sure of the
    /// target. The authors use 1 to 1.5, by the pair of models.
    #[config(default = 1.0)]
    pub gamma: f64,
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl OfaLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `gamma` is not in (0, 64] or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<OfaLoss, ConfigError> {
        let valid = self.gamma > 0.0 && self.gamma <= MAX_GAMMA;
        Ok(OfaLoss {
            gamma: ConfigError::unless(valid, "gamma", "(0, 64]", self.gamma)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?,
        })
    }
}

/// OFA-KD's adaptive target enhancement: KD in which an exponent moves weight to the target where the teacher is sure
/// of it, for students of another architecture than the teacher's.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T),  t = target
/// w_t = (1 + p_t)^γ - 1,   w_c = p_c^γ for c ≠ t,   W = Σ_c w_c
/// loss = T² · mean over rows of  W KL(w / W || q)
/// ```
///
/// **Scale**: nats, always times temperature squared, averaged over unmasked rows. With γ = 1 it is KD. The authors'
/// code has no temperature squared and the cross-entropy `- Σ w_c ln q_c`: the same gradient, and a value that is
/// larger by the smallest that it can be, `- Σ w_c ln (w_c / W)`, which depends on the teacher alone.
///
/// Paper and code part in the exponent. The paper raises the target's factor alone: `(1 + p_t)^γ` beside `p_c`; the
/// code, which made the published numbers and is what is computed here, raises the other classes too. Both are the
/// same at γ = 1. The paper's 1, the cross-entropy with the label, is a term of its own in the code, and so in the
/// objective.
///
/// The method gives such a loss to every stage: an exit projects the stage's features to logits. The exits are heads
/// with weights of their own (learned parts of the objective), and each is compared with the teacher's final logits
/// by this loss.
///
/// Against a [sparse](crate::SparseLogits) teacher that does not list the target, the tail bucket takes its place;
/// without a bucket no class is enhanced.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or sparse;
/// - `targets`: class ids of any rank, one per row;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `T · (W q - w) / rows`.
///
/// # Errors
/// [`OfaLossConfig::init`] if γ is not in (0, 64] or the temperature not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::OfaLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// // p = (1/2, 1/2), w = (1.5² - 1, 0.5²) = (1.25, 0.25), W = 1.5: 1.25 ln (5/3) + 0.25 ln (1/3) = 0.363879.
/// let loss = OfaLossConfig::new().with_gamma(2.0).init()?;
/// let value = loss.forward(student, teacher, targets, None).into_scalar::<f64>();
/// assert!((value - 0.363879).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Hao et al., *One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation*, 2023,
///   arXiv 2310.19444, section 3.2.
/// - Reference code: Hao840/OFAKD `distillers/ofa.py` at f7bb896c (`ofa_loss`). It takes the logarithm of a probability
///   that may underflow to 0 where this stays in log space.
#[derive(Debug, Clone)]
pub struct OfaLoss {
    gamma: f64,
    tempered: Tempered,
}

impl OfaLoss {
    fn divergence(&self, aligned: Aligned, targets: Tensor<2, Int>) -> Tensor<1> {
        let target = aligned.target_columns(targets);
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        let power = |log: Tensor<2>| log.mul_scalar(self.gamma).clamp_min(FLOOR);
        let enhanced = log_enhanced(teacher.clone(), self.gamma);
        let log_weights = power(teacher).mask_where(target, enhanced);
        let log_sum = log_sum_exp(log_weights.clone());
        let sum = log_sum.clone().exp().squeeze_dim(1);
        kl(log_weights - log_sum, student) * sum
    }
}

tempered_loss!(OfaLoss, targets: E);

/// `ln((1 + p)^γ - 1)` of `ln p`, in logarithms throughout: beside 1 a small `p` would be lost.
fn log_enhanced(log_p: Tensor<2>, gamma: f64) -> Tensor<2> {
    let p = log_p.clone().exp();
    // ln ln(1 + p) = ln p - p / 2 + 5 p² / 24 - ..
    let (small, near) = (p.clone().lower_elem(1e-3), log_p - p.clone().div_scalar(2.0));
    let log_exponent = p.log1p().log().mask_where(small, near).add_scalar(gamma.ln());
    let exponent = log_exponent.clone().exp();
    // ln(e^y - 1) = ln y + y / 2 + y² / 24 - y⁴ / 2880 + ..
    let (small, squared) = (exponent.clone().lower_elem(0.5), exponent.clone().square());
    let near = log_exponent + exponent.clone().div_scalar(2.0) + squared.clone().div_scalar(24.0)
        - squared.square().div_scalar(2880.0);
    let far = exponent.clone() + exponent.neg().exp().neg().log1p();
    far.mask_where(small, near).clamp_min(FLOOR)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    fn value(gamma: f64, target: i32) -> f64 {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([target], &device);
        let loss = OfaLossConfig::new().with_gamma(gamma).with_temperature(2.0).init().unwrap();
        loss.forward(student, teacher, targets, None).into_scalar::<f64>()
    }

    #[test]
    fn without_enhancement_it_is_kd_whatever_the_target() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0]], &device);
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let kd = kd.forward(student, teacher, None).into_scalar::<f64>();
        for target in 0..4 {
            assert_relative_eq!(value(1.0, target), kd, max_relative = 1e-5);
        }
        assert!((value(1.5, 0) - kd).abs() > 0.01);
    }

    #[test]
    fn a_target_of_almost_no_probability_counts_as_in_kd() {
        let device = Device::flex();
        // Equal but for the target, which the student gives no chance: for a small p_t all of the loss is its.
        for (logit, relative) in [(-20.0, 1e-6), (-14.0, 1e-6), (-9.0, 1e-5), (-3.0, 1e-5), (2.0, 1e-5)] {
            let student = Tensor::<2>::from_floats([[-1e4, 0.0, 0.0]], &device);
            let teacher = Tensor::<2>::from_floats([[logit, 0.0, 0.0]], &device);
            let kd = KdLossConfig::new().with_temperature(1.0).init().unwrap();
            // In the same arithmetic: for the smallest p_t what f32 loses of it is 1e-4 of the loss.
            let kd = kd.forward_composed(student.clone(), teacher.clone(), None).into_scalar::<f64>();
            let targets = Tensor::<1, Int>::from_ints([0], &device);
            let ofa = OfaLossConfig::new().with_gamma(1.0).with_temperature(1.0).init().unwrap();
            let ofa = ofa.forward(student, teacher, targets, None).into_scalar::<f64>();
            assert_relative_eq!(ofa, kd, max_relative = relative);
        }
    }

    #[test]
    fn the_enhanced_weight_is_exact_for_every_probability() {
        let device = Device::flex();
        for gamma in [0.5, 1.0, 1.5, 8.0, 64.0] {
            for log_p in [-80.0f32, -30.0, -12.0, -7.0, -6.8, -3.0, -1.0, -0.3, 0.0] {
                let p = f64::from(log_p).exp();
                let expected = (gamma * p.ln_1p()).exp_m1().ln();
                let log_weight = log_enhanced(Tensor::from_floats([[log_p]], &device), gamma).into_scalar::<f64>();
                assert_relative_eq!(log_weight, expected, max_relative = 1e-6, epsilon = 1e-6);
            }
        }
    }

    #[test]
    fn the_largest_gamma_stays_finite() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[-1e4, 1e4, 0.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[1e4, 0.0, -1e4]], &device);
        let targets = Tensor::<1, Int>::from_ints([0], &device);
        let loss = OfaLossConfig::new().with_gamma(MAX_GAMMA).with_temperature(4.0).init().unwrap();
        let value = loss.forward(student.clone(), teacher, targets, None);
        let gradient = student.grad(&value.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
        assert!(value.into_scalar::<f64>().is_finite());
    }

    #[test]
    fn a_student_that_has_the_enhanced_distribution_has_no_gradient() {
        let device = Device::flex().autodiff();
        // p = (1/2, 1/4, 1/4), γ = 2, t = 0: w = (1.25, 1/16, 1/16).
        let teacher = Tensor::<2>::from_floats([[0.5, 0.25, 0.25]], &device).log();
        let student = Tensor::<2>::from_floats([[1.25, 0.0625, 0.0625]], &device).log().detach().require_grad();
        let targets = Tensor::<1, Int>::from_ints([0], &device);
        let loss = OfaLossConfig::new().with_gamma(2.0).init().unwrap();
        let value = loss.forward(student.clone(), teacher, targets, None);
        let gradient = student.grad(&value.backward()).unwrap().abs().max().into_scalar::<f64>();
        assert!(gradient < 1e-6, "{gradient}");
        assert!(value.into_scalar::<f64>().abs() < 1e-6);
    }

    #[test]
    fn an_unlisted_target_enhances_the_tail_or_nothing() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.0, 0.0, 0.0]], &device);
        let teacher = Tensor::<2>::from_floats([[0.5, 0.25, 0.25]], &device).log();
        let targets = Tensor::<1, Int>::from_ints([2], &device);
        let loss = OfaLossConfig::new().with_gamma(2.0).init().unwrap();
        let value = |tail| {
            let sparse = SparseLogits::from_dense(teacher.clone(), 1, tail).unwrap();
            loss.forward(student.clone(), sparse, targets.clone(), None).into_scalar::<f64>()
        };
        // Listed class 1/2 against 1/3, tail 1/2 against 2/3: w = (0.25, 1.25), W = 1.5.
        let expected = 0.25 * (0.5f64).ln() + 1.25 * (1.25f64).ln();
        assert_relative_eq!(value(Tail::Bucket), expected, max_relative = 1e-5);
        assert_eq!(value(Tail::Renormalise), 0.0);
    }

    #[test]
    fn rejects_gamma_out_of_range() {
        for gamma in [0.0, -1.0, 65.0, f64::NAN, f64::INFINITY] {
            let error = OfaLossConfig::new().with_gamma(gamma).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`gamma` must be in (0, 64], got {gamma}"));
        }
    }
}
