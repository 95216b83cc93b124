use burn::{config::Config, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    ConfigError, Convention, Reduction, VocabularyPolicy,
    align::Aligned,
    divergence::{cross_entropy, kl_from},
    fused::Divergence,
    tempered::{Tempered, tempered_loss},
};

/// What [`KdLoss`] computes of a row; the gradient is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KdForm {
    /// The Kullback-Leibler divergence, which is 0 when the student equals the teacher.
    #[default]
    Divergence,
    /// The cross-entropy `- Σ_c p_c ln q_c`, larger by the teacher's entropy: what Hinton's paper and several libraries
    /// compute.
    CrossEntropy,
}

/// Configuration of [`KdLoss`].
#[derive(Config, Debug)]
pub struct KdLossConfig {
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 4.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
    /// Divergence or cross-entropy.
    #[config(default = "KdForm::Divergence")]
    pub form: KdForm,
    /// How it is scaled; this library's way by default, see [`Convention`].
    #[config(default = "Convention::default()")]
    pub convention: Convention,
}

impl KdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<KdLoss, ConfigError> {
        Ok(KdLoss {
            form: self.form,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Knowledge distillation: the Kullback-Leibler divergence from the teacher's to the student's softened distribution.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  Σ_c p_c (ln p_c - ln q_c)
/// ```
///
/// **Scale**: true KL in nats (the teacher's entropy is subtracted), always times temperature squared, averaged over
/// unmasked rows (samples or tokens), never over classes. A teacher logit of `-inf` is a class of probability 0 and
/// contributes nothing; a student logit of `-inf` where the teacher has probability makes the loss very large.
/// Configurations under other libraries' conventions, as [`KdLossConfig::trl`], are scaled as they say.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows (`[batch, classes]`, `[batch, tokens, classes]`);
/// - `teacher_logits`: the same rows, dense or [sparse](crate::SparseLogits);
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `T · (q - p) / rows`.
///
/// # Errors
/// [`KdLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::KdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[2.0 * 3f32.ln(), 0.0]], &device);
/// let loss = KdLossConfig::new().with_temperature(2.0).init()?;
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// // p = (3/4, 1/4), q = (1/2, 1/2): KL = 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812, times 2².
/// assert!((value - 4.0 * 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv 1503.02531, section 2. The
///   paper minimises the cross-entropy with the soft targets, whose gradient is the same.
/// - Reference code: RepDistiller `distiller_zoo/KD.py` at b84f547c (`DistillKL`) computes this value.
#[derive(Debug, Clone)]
pub struct KdLoss {
    form: KdForm,
    tempered: Tempered,
}

impl KdLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.with_teacher_probs(self.tempered.temperature());
        match self.form {
            KdForm::Divergence => kl_from(teacher, student),
            KdForm::CrossEntropy => cross_entropy(teacher.0, student),
        }
    }

    pub(crate) fn kernel(&self) -> Divergence {
        match self.form {
            KdForm::Divergence => Divergence::ForwardKl,
            KdForm::CrossEntropy => Divergence::CrossEntropy,
        }
    }
}

tempered_loss!(KdLoss; kernel);

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rejects_temperatures_out_of_range() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = KdLossConfig::new().with_temperature(temperature).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`temperature` must be in (0, inf), got {temperature}"));
        }
    }

    #[test]
    #[should_panic(expected = "`temperature` must be in (0, inf), got 0")]
    fn at_temperature_panics_out_of_range() {
        KdLossConfig::new().init().unwrap().at_temperature(0.0);
    }

    #[test]
    #[should_panic(expected = "VocabularyPolicy")]
    fn panics_when_vocabularies_differ_without_a_policy() {
        let device = Device::flex();
        let loss = KdLossConfig::new().init().unwrap();
        loss.forward(Tensor::<2>::zeros([2, 3], &device), Tensor::<2>::zeros([2, 4], &device), None);
    }

    #[test]
    fn large_temperature_approaches_half_the_mean_squared_centred_difference() {
        // Hinton's limit: T² KL -> sum of squared centred differences / (2 classes).
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[1.0, -2.0, 0.5, 0.5]], &device);
        let teacher = Tensor::<2>::from_floats([[-1.0, 0.0, 2.0, -1.0]], &device);
        let loss = KdLossConfig::new().with_temperature(100.0).init().unwrap();
        let value = loss.forward(student, teacher, None).into_scalar::<f64>();
        let expected = (2f64.powi(2) + 2f64.powi(2) + 1.5f64.powi(2) + 1.5f64.powi(2)) / 8.0;
        assert!((value - expected).abs() < 0.02, "{value} is not near {expected}");
    }
}
