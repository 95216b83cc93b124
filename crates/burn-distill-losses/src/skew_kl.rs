use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Convention, KdForm, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::{cross_entropy, kl, mixture},
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`SkewKlLoss`].
#[derive(Config, Debug)]
pub struct SkewKlLossConfig {
    /// Weight of the teacher in the mixture, in [0, 1): 0 is the forward KL.
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
    /// Divergence or cross-entropy, with the mixture in the student's place.
    #[config(default = "KdForm::Divergence")]
    pub form: KdForm,
    /// How it is scaled; this library's way by default, see [`Convention`].
    #[config(default = "Convention::default()")]
    pub convention: Convention,
}

impl SkewKlLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `alpha` is not in [0, 1) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<SkewKlLoss, ConfigError> {
        Ok(SkewKlLoss {
            alpha: ConfigError::unless((0.0..1.0).contains(&self.alpha), "alpha", "[0, 1)", self.alpha)?,
            form: self.form,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Skew KL (DistiLLM): the forward KL to a student with a little of the teacher mixed in, which bounds both the loss
/// and its gradient where the student has nearly no probability.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  KL(p || α p + (1 - α) q)
/// ```
///
/// **Scale**: true KL in nats, at most `-ln α`, always times temperature squared, averaged over unmasked rows.
/// [`SkewKlLossConfig::distillm`] is the authors' code, which leaves out the teacher's entropy (the gradient is the same)
/// and knows no temperature.
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
/// [`SkewKlLossConfig::init`] if α is not in [0, 1) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::SkewKlLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[-1e4, 1e4]], &device);
/// let teacher = Tensor::<2>::from_floats([[1e4, -1e4]], &device);
/// // Distributions without common classes: the bound, - ln 0.1 = 2.302585.
/// let value = SkewKlLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 2.302585).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Ko et al., *DistiLLM: Towards Streamlined Distillation for Large Language Models*, 2024, arXiv 2402.03898, section
///   3.1 (skew KLD, α = 0.1).
/// - Reference code: jongwooko/distillm `distillm/losses.py` at d47e77ff (`skewed_forward_kl`, in cross-entropy form);
///   songmzhang/DSKD `code/criterions/various_divergence.py` at 077337ac is this value without temperature squared.
#[derive(Debug, Clone)]
pub struct SkewKlLoss {
    alpha: f64,
    form: KdForm,
    tempered: Tempered,
}

impl SkewKlLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        let mixture = mixture(student, teacher.clone(), self.alpha);
        match self.form {
            KdForm::Divergence => kl(teacher, mixture),
            KdForm::CrossEntropy => cross_entropy(teacher.exp(), mixture),
        }
    }

    fn kernel(&self) -> Divergence {
        match self.form {
            KdForm::Divergence if self.alpha == 0.0 => Divergence::ForwardKl,
            KdForm::CrossEntropy if self.alpha == 0.0 => Divergence::CrossEntropy,
            form => Divergence::SkewKl { alpha: self.alpha, cross_entropy: form == KdForm::CrossEntropy },
        }
    }
}

tempered_loss!(SkewKlLoss; kernel);

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::KdLossConfig;

    #[test]
    fn without_skew_it_is_the_forward_kl() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, f32::NEG_INFINITY], [0.2, 0.9, -1.5]], &device);
        let skew = SkewKlLossConfig::new().with_alpha(0.0).with_temperature(2.0).init().unwrap();
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let skew = skew.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        assert_eq!(skew, kd.forward(student, teacher, None).into_scalar::<f64>());
    }

    #[test]
    fn rejects_alpha_out_of_range() {
        for alpha in [-0.1, 1.0, f64::NAN] {
            let error = SkewKlLossConfig::new().with_alpha(alpha).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`alpha` must be in [0, 1), got {alpha}"));
        }
    }
}
