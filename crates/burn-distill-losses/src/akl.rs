use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::{kl, reverse_kl},
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`AklLoss`].
#[derive(Config, Debug)]
pub struct AklLossConfig {
    /// Teacher probability that the head holds at least, in (0, 1).
    #[config(default = 0.5)]
    pub mu: f64,
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

impl AklLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `mu` is not in (0, 1) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<AklLoss, ConfigError> {
        Ok(AklLoss {
            mu: ConfigError::unless(self.mu > 0.0 && self.mu < 1.0, "mu", "(0, 1)", self.mu)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?,
        })
    }
}

/// Adaptive KL: forward and reverse KL, weighted in each row by where the student is still wrong, among the teacher's
/// likely classes (the head) or among the others (the tail).
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// head = the fewest most probable classes of the teacher whose probabilities sum to at least μ
/// g_head = Σ_{c in head} |p_c - q_c|,  g_tail = Σ_{c not in head} |p_c - q_c|
/// loss = T² · mean over rows of  (g_head KL(p || q) + g_tail KL(q || p)) / (g_head + g_tail)
/// ```
///
/// **Scale**: true KL in nats, always times temperature squared, averaged over unmasked rows; the reference codes have
/// no temperature squared. Where the teacher's probability is exactly 0, the reverse part counts it as 1.2e-38, as
/// [`ReverseKlLoss`](crate::ReverseKlLoss). A row whose gaps are all 0 has the value 0 (the reference codes: NaN).
///
/// Of the two reference codes, DSKD's takes this head. The authors' own leaves the class that crosses μ to the tail,
/// unless it is the first, so it weighs the reverse part more; it also takes the student's infinite logits for 0 when
/// it measures the gaps.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or [sparse](crate::SparseLogits); a tail bucket is one class;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only, through the two divergences; the weights are constants, as in the reference codes. So the
/// gradient is not that of the value.
///
/// # Errors
/// [`AklLossConfig::init`] if μ is not in (0, 1) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::AklLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device);
/// // q = (1/2, 1/2), p = (3/4, 1/4): both gaps are 1/4, so it is half of 0.130812 + 0.143841.
/// let value = AklLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.137327).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Wu et al., *Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models*, 2024,
///   arXiv 2404.02657, section on adaptive KL (μ = 0.5, the gap is the absolute difference).
/// - Reference code: songmzhang/DSKD `code/criterions/various_divergence.py` at 077337ac, which sums from the least
///   probable class (its `adaptive_kl_alpha` is 1 - μ); wutaiqiang/LLM_KD_AKL `AKL.py` at ff278be6.
#[derive(Debug, Clone)]
pub struct AklLoss {
    mu: f64,
    tempered: Tempered,
}

impl AklLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        let head = self.head_weight(student.clone().without_autodiff().exp(), teacher.clone().exp());
        let tail = head.clone().neg().add_scalar(1.0);
        kl(teacher.clone(), student.clone()) * head + reverse_kl(student, teacher) * tail
    }

    /// `g_head / (g_head + g_tail)` of the probabilities `[rows, width]`, `[rows]`.
    fn head_weight(&self, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        let (teacher, order) = teacher.sort_descending_with_indices(1);
        let gap = (student.gather(1, order) - teacher.clone()).abs();
        // A class is in the head if what is more probable does not reach μ without it.
        let before = teacher.clone().cumsum(1) - teacher;
        let in_tail = before.greater_equal_elem(self.mu);
        let [all, head] = [gap.clone(), gap.mask_fill(in_tail, 0.0)].map(|gap| gap.sum_dim(1).squeeze_dim::<1>(1));
        head / all.clamp_min(f64::from(f32::MIN_POSITIVE))
    }
}

tempered_loss!(AklLoss);

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn head_is_the_fewest_classes_that_reach_mu() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_floats([[0.1, 0.4, 0.2, 0.3]], &device);
        let student = Tensor::<2>::from_floats([[0.2, 0.1, 0.3, 0.4]], &device);
        // Gaps from the most probable class on: 0.3, 0.1, 0.1, 0.1.
        for (mu, head) in [(0.3, 0.3), (0.5, 0.4), (0.65, 0.4), (0.8, 0.5), (0.95, 0.6)] {
            let loss = AklLossConfig::new().with_mu(mu).init().unwrap();
            let weight = loss.head_weight(student.clone(), teacher.clone()).into_scalar::<f64>();
            assert_relative_eq!(weight, head / 0.6, max_relative = 1e-5);
        }
    }

    #[test]
    fn a_row_without_gaps_is_zero() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[0.3, -1.0, f32::NEG_INFINITY]], &device);
        let value = AklLossConfig::new().init().unwrap().forward(logits.clone(), logits, None).into_scalar::<f64>();
        assert_eq!(value, 0.0);
    }

    #[test]
    fn rejects_mu_out_of_range() {
        for mu in [0.0, 1.0, f64::NAN] {
            let error = AklLossConfig::new().with_mu(mu).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`mu` must be in (0, 1), got {mu}"));
        }
    }
}
