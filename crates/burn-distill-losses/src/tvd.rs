use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Convention, Reduction, VocabularyPolicy,
    align::Aligned,
    tempered::{Tempered, tempered_loss},
};

/// Configuration of [`TvdLoss`].
#[derive(Config, Debug)]
pub struct TvdLossConfig {
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

impl TvdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<TvdLoss, ConfigError> {
        Ok(TvdLoss {
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?.under(self.convention),
        })
    }
}

/// Total variation distance: the probability that the student puts elsewhere than the teacher. Symmetric and bounded,
/// so single classes that one side nearly excludes weigh little.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  1/2 Σ_c |p_c - q_c|
/// ```
///
/// **Scale**: a probability in [0, 1], always times temperature squared as every logit loss here (as DistillKit, not
/// Liger-Kernel; the distance itself shrinks with T, not with T²), averaged over unmasked rows. At `p = q` it has a
/// kink, not a minimum of slope 0; the gradient given there is 0. Configurations under other libraries' conventions, as
/// [`TvdLossConfig::liger`], are scaled as they say.
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
/// [`TvdLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::TvdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device);
/// // q = (1/2, 1/2), p = (3/4, 1/4): half of 1/4 + 1/4.
/// let value = TvdLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.25).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Wen et al., *f-Divergence Minimization for Sequence-Level Knowledge Distillation*, 2023, arXiv 2307.15190 (total
///   variation distance, there over sequences, here per token).
/// - Reference code: DistillKit `distillkit/lossfuncs/tvd.py` at a61c2e7d computes this value; jongwooko/distillm
///   `distillm/losses.py` at d47e77ff (`tv_distance`) without temperature.
#[derive(Debug, Clone)]
pub struct TvdLoss {
    tempered: Tempered,
}

impl TvdLoss {
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.log_probs(self.tempered.temperature());
        (student.exp() - teacher.exp()).abs().sum_dim(1).squeeze_dim::<1>(1).mul_scalar(0.5)
    }
}

tempered_loss!(TvdLoss);

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn distributions_without_common_classes_are_at_distance_one() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[f32::NEG_INFINITY, 0.0, 1.0]], &device);
        let teacher = Tensor::<2>::from_floats([[0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]], &device);
        let value = TvdLossConfig::new().init().unwrap().forward(student, teacher, None).into_scalar::<f64>();
        assert_relative_eq!(value, 1.0, max_relative = 1e-6);
    }

    #[test]
    fn at_equality_there_is_no_gradient() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0]], &device).require_grad();
        let loss = TvdLossConfig::new().init().unwrap().forward(student.clone(), student.clone(), None);
        let gradient = student.grad(&loss.backward()).unwrap();
        assert_eq!(gradient.into_data_as::<f32>().try_to_vec::<f32>().unwrap(), [0.0; 3]);
    }
}
