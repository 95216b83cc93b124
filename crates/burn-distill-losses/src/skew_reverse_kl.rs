use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Convention, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::{EXCLUDED, kl, mixture, reverse_kl},
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`SkewReverseKlLoss`].
#[derive(Config, Debug)]
pub struct SkewReverseKlLossConfig {
    /// Weight of the student in the mixture, in [0, 1): 0 is the reverse KL.
    #[config(default = 0.1)]
    pub alpha: f64,
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
    /// How it is scaled; this library's way by default, see [`Convention`].
    #[config(default = "Convention::default()")]
    pub convention: Convention,
}

impl SkewReverseKlLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `alpha` is not in [0, 1) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<SkewReverseKlLoss, ConfigError> {
        Ok(SkewReverseKlLoss {
            alpha: ConfigError::unless((0.0..1.0).contains(&self.alpha), "alpha", "[0, 1)", self.alpha)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Skew reverse KL (DistiLLM): the reverse KL to a teacher with a little of the student mixed in, which stays bounded
/// where the teacher has no probability.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  KL(q || (1 - α) p + α q)
/// ```
///
/// **Scale**: true KL in nats, at most `-ln α`, always times temperature squared, averaged over unmasked rows. The
/// authors' code knows no temperature ([`SkewReverseKlLossConfig::distillm`]). `alpha` weighs the student here and the teacher in
/// [`SkewKlLoss`](crate::SkewKlLoss): in both it is the side that the divergence starts from.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or [sparse](crate::SparseLogits);
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only.
///
/// # Errors
/// [`SkewReverseKlLossConfig::init`] if α is not in [0, 1) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::SkewReverseKlLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, f32::NEG_INFINITY]], &device);
/// let loss = SkewReverseKlLossConfig::new().with_alpha(0.5).init()?;
/// // q = (1/2, 1/2), mixture (3/4, 1/4): 0.5 ln(2/3) + 0.5 ln 2 = 0.143841.
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.143841).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Ko et al., *DistiLLM: Towards Streamlined Distillation for Large Language Models*, 2024, arXiv 2402.03898, section
///   3.1 (skew reverse KLD, α = 0.1).
/// - Reference code: jongwooko/distillm `distillm/losses.py` at d47e77ff (`skewed_reverse_kl`) computes this value
///   without temperature squared.
#[derive(Debug, Clone)]
pub struct SkewReverseKlLoss {
    alpha: f64,
    tempered: Tempered,
}

impl SkewReverseKlLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        if self.alpha == 0.0 {
            return reverse_kl(student, teacher);
        }
        kl(student.clone(), mixture(student, teacher, 1.0 - self.alpha))
    }

    fn kernel(&self) -> Divergence {
        if self.alpha == 0.0 {
            Divergence::ReverseKl { excluded: EXCLUDED }
        } else {
            Divergence::SkewReverseKl { alpha: self.alpha }
        }
    }
}

tempered_loss!(SkewReverseKlLoss; kernel);

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::ReverseKlLossConfig;

    #[test]
    fn without_skew_it_is_the_reverse_kl() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, f32::NEG_INFINITY], [0.2, 0.9, -1.5]], &device);
        let skew = SkewReverseKlLossConfig::new().with_alpha(0.0).with_temperature(2.0).init().unwrap();
        let reverse = ReverseKlLossConfig::new().with_temperature(2.0).init().unwrap();
        let skew = skew.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        assert_eq!(skew, reverse.forward(student, teacher, None).into_scalar::<f64>());
    }

    #[test]
    fn rejects_alpha_out_of_range() {
        for alpha in [-0.1, 1.0, f64::NAN] {
            let error = SkewReverseKlLossConfig::new().with_alpha(alpha).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`alpha` must be in [0, 1), got {alpha}"));
        }
    }
}
