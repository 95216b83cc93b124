use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, precision::features};

/// Configuration of [`HintLoss`].
#[derive(Config, Debug)]
pub struct HintLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl HintLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<HintLoss, ConfigError> {
        Ok(HintLoss { reduction: self.reduction })
    }
}

/// FitNets hint: the mean squared difference between a student's activation and the teacher's hint.
///
/// ```text
/// loss = mean over samples and elements of  (student - teacher)²
/// ```
///
/// **Scale**: mean over all elements, as in PyTorch's `mse_loss` and in RepDistiller. The paper's equation 3 has half
/// the squared norm: a factor 1/2 and a sum over the elements instead of the mean. Where widths differ, the student's
/// activation passes through a connector (a learned projection) before it comes here.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[batch, ..]`;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::HintLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 2.0], [3.0, 1.0]], &device);
/// // (1 + 0 + 0 + 9) / 4.
/// let value = HintLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 2.5).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Romero et al., *FitNets: Hints for Thin Deep Nets*, 2015, arXiv 1412.6550, equation 3.
/// - Reference code: RepDistiller `distiller_zoo/FitNet.py` at b84f547c.
#[derive(Debug, Clone)]
pub struct HintLoss {
    reduction: Reduction,
}

impl HintLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        squared_difference(student, teacher)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// The mean squared difference of each sample, `[batch]`; no gradient to the teacher.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub(crate) fn squared_difference<const D: usize>(student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
    let (dims, teacher_dims) = (student.dims(), teacher.dims());
    assert_eq!(dims, teacher_dims, "`student` and `teacher` must have the same shape");
    let (student, teacher) = features(student, teacher);
    let per_sample = (student - teacher).square().reshape([dims[0], dims[1..].iter().product()]);
    per_sample.mean_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    #[should_panic(expected = "must have the same shape")]
    fn panics_on_shapes_that_would_broadcast() {
        let device = Device::flex();
        let loss = HintLossConfig::new().init().unwrap();
        loss.forward(Tensor::<2>::zeros([2, 3], &device), Tensor::<2>::zeros([2, 1], &device));
    }
}
