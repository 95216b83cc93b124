use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Convention, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::reverse_kl_excluding,
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`ReverseKlLoss`].
#[derive(Config, Debug)]
pub struct ReverseKlLossConfig {
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// Probability with which a class counts to which the teacher gives none, in (0, 1).
    #[config(default = "f64::from(f32::MIN_POSITIVE)")]
    pub excluded: f64,
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

impl ReverseKlLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf) or `excluded` is not in (0, 1).
    pub fn init(&self) -> Result<ReverseKlLoss, ConfigError> {
        let valid = self.excluded > 0.0 && self.excluded < 1.0;
        Ok(ReverseKlLoss {
            excluded: ConfigError::unless(valid, "excluded", "(0, 1)", self.excluded)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Reverse KL: the divergence from the student's to the teacher's distribution, which prefers a few modes of the
/// teacher to covering all of them.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  Σ_c q_c (ln q_c - ln p_c)
/// ```
///
/// **Scale**: true KL in nats, always times temperature squared, averaged over unmasked rows. Where the teacher's
/// probability is exactly 0 (logit `-inf`, a class it lacks) the divergence would be infinite; such a class counts
/// with probability `excluded`, 1.2e-38 by default (the smallest normal f32), so the loss is 87 nats times what the
/// student puts there. Configurations under other libraries' conventions, as [`ReverseKlLossConfig::trl`], are scaled
/// as they say.
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
/// [`ReverseKlLossConfig::init`] if the temperature is not in (0, inf) or `excluded` not in (0, 1).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::ReverseKlLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device);
/// let loss = ReverseKlLossConfig::new().init()?;
/// // q = (1/2, 1/2), p = (3/4, 1/4): 0.5 ln(2/3) + 0.5 ln 2 = 0.143841.
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.143841).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Gu et al., *MiniLLM*, 2023, arXiv 2306.08543, equation 1 (there over sequences; here per token).
/// - Reference code: TRL `generalized_jsd_loss` with `beta = 1` at 35def3ee computes this without temperature squared.
#[derive(Debug, Clone)]
pub struct ReverseKlLoss {
    excluded: f64,
    tempered: Tempered,
}

impl ReverseKlLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        reverse_kl_excluding(student, teacher, self.excluded)
    }

    pub(crate) fn kernel(&self) -> Divergence {
        Divergence::ReverseKl { excluded: self.excluded }
    }
}

tempered_loss!(ReverseKlLoss; kernel);

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_class_that_the_teacher_excludes_costs_87_nats() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
        let teacher = Tensor::<2>::from_floats([[0.0, f32::NEG_INFINITY]], &device);
        let value = ReverseKlLossConfig::new().init().unwrap().forward(student, teacher, None).into_scalar::<f64>();
        assert_relative_eq!(value, 0.5f64.ln() + 0.5 * 87.336_54, max_relative = 1e-6);
    }

    #[test]
    fn rejects_excluded_out_of_range() {
        for excluded in [0.0, 1.0, f64::NAN] {
            let error = ReverseKlLossConfig::new().with_excluded(excluded).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`excluded` must be in (0, 1), got {excluded}"));
        }
    }
}
