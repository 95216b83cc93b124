use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Convention, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::{EXCLUDED, jensen_shannon},
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`JsdLoss`].
#[derive(Config, Debug)]
pub struct JsdLossConfig {
    /// Weight of the teacher in the mixture, in [0, 1]: 0 is the forward KL, 1 the reverse KL.
    #[config(default = 0.5)]
    pub beta: f64,
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

impl JsdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `beta` is not in [0, 1] or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<JsdLoss, ConfigError> {
        Ok(JsdLoss {
            beta: ConfigError::unless((0.0..=1.0).contains(&self.beta), "beta", "[0, 1]", self.beta)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Generalised Jensen-Shannon divergence (GKD): student and teacher against their mixture; bounded for 0 < β < 1.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T),  m = β p + (1 - β) q
/// loss = T² · mean over rows of  β KL(p || m) + (1 - β) KL(q || m)
/// β = 0: T² KL(p || q), the forward KL;   β = 1: T² KL(q || p), the reverse KL
/// ```
///
/// At the end points the formula itself is 0; they are the limits of the loss divided by β and by 1 - β, as in the
/// paper's code.
///
/// **Scale**: nats, always times temperature squared (TRL and Liger-Kernel leave it out), averaged over unmasked
/// rows. `beta` weighs the teacher in the mixture, as in TRL; distillm's `js_distance` weighs the student. Configurations
/// under other libraries' conventions, as [`JsdLossConfig::trl`], are scaled as they say.
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
/// [`JsdLossConfig::init`] if β is not in [0, 1] or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::JsdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[-1e4, 1e4]], &device);
/// let teacher = Tensor::<2>::from_floats([[1e4, -1e4]], &device);
/// // Distributions without common classes: the bound, ln 2 = 0.693147.
/// let value = JsdLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.693147).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Agarwal et al., *On-Policy Distillation of Language Models (GKD)*, 2023, arXiv 2306.13649, equation 1 (their P is
///   the teacher, Q the student).
/// - Reference code: TRL `generalized_jsd_loss` at 35def3ee, without temperature squared.
#[derive(Debug, Clone)]
pub struct JsdLoss {
    beta: f64,
    tempered: Tempered,
}

impl JsdLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        jensen_shannon(student, teacher, self.beta)
    }

    pub(crate) fn kernel(&self) -> Divergence {
        if self.beta == 0.0 {
            Divergence::ForwardKl
        } else if self.beta == 1.0 {
            Divergence::ReverseKl { excluded: EXCLUDED }
        } else {
            Divergence::JensenShannon { beta: self.beta }
        }
    }
}

tempered_loss!(JsdLoss; kernel);

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, ReverseKlLossConfig};

    #[test]
    fn end_points_are_the_two_kl_divergences_and_the_limits_near_them() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1], [0.2, 0.9, -1.5]], &device);
        let jsd = |beta: f64| {
            let loss = JsdLossConfig::new().with_beta(beta).with_temperature(2.0).init().unwrap();
            loss.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>()
        };
        let forward = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let reverse = ReverseKlLossConfig::new().with_temperature(2.0).init().unwrap();
        let forward = forward.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        let reverse = reverse.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        assert_eq!(jsd(0.0), forward);
        assert_eq!(jsd(1.0), reverse);
        assert_relative_eq!(jsd(1e-2) / 1e-2, forward, max_relative = 0.05);
        assert_relative_eq!(jsd(1.0 - 1e-2) / 1e-2, reverse, max_relative = 0.05);
    }

    #[test]
    fn rejects_beta_out_of_range() {
        let error = JsdLossConfig::new().with_beta(1.5).init().unwrap_err();
        assert_eq!(error.to_string(), "`beta` must be in [0, 1], got 1.5");
    }
}
