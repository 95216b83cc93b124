use burn::{
    config::Config,
    tensor::{Tensor, activation::relu},
};

use crate::{ConfigError, Mask, Reduction, precision::features, sp::flatten_samples};

/// Configuration of [`AbLoss`].
#[derive(Config, Debug)]
pub struct AbLossConfig {
    /// How far from zero the student's pre-activations should be, in (0, inf).
    #[config(default = 1.0)]
    pub margin: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl AbLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `margin` is not in (0, inf).
    pub fn init(&self) -> Result<AbLoss, ConfigError> {
        let margin = ConfigError::check_positive("margin", self.margin)?;
        Ok(AbLoss { margin, reduction: self.reduction })
    }
}

/// Activation boundaries (AB): the student's neurons are active where the teacher's are, by a margin, however strongly
/// those are.
///
/// ```text
/// loss = mean over samples of  Σ over elements of  max(0, margin - student)²  where teacher > 0
///                                                  max(0, margin + student)²  elsewhere
/// ```
///
/// Both sides are **pre-activations**: features before the ReLU. The paper trains on this loss alone first and on the
/// labels afterwards.
///
/// **Scale**: the sum over the elements of a sample, as in the paper and torchdistill, so it grows with the size of the
/// features. RepDistiller has 3/1000 of it, and halves each shallower stage once more. A student that equals its teacher
/// is not at 0 where it is nearer to zero than the margin.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[batch, ..]`; a connector gives it where channels differ;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; 0 for a neuron on the teacher's side of its boundary by more than the margin.
///
/// # Errors
/// [`AbLossConfig::init`] if `margin` is not in (0, inf).
///
/// # Panics
/// `forward` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::AbLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.5, 3.0, 1.0, -2.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[9.0, 0.1, -1.0, -0.1]], &device);
/// // Active, but short of the margin by 1/2; active enough; active, but should not be; inactive enough.
/// let value = AbLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (0.25 + 0.0 + 4.0 + 0.0)).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Heo et al., *Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons*, 2019, arXiv
///   1811.03233, the alternative loss.
/// - Reference code: torchdistill `losses/mid_level.py` at 3e4373c4 (`AltActTransferLoss`); RepDistiller
///   `distiller_zoo/AB.py` at b84f547c.
#[derive(Debug, Clone)]
pub struct AbLoss {
    margin: f64,
    reduction: Reduction,
}

impl AbLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        let (dims, teacher_dims) = (student.dims(), teacher.dims());
        assert_eq!(dims, teacher_dims, "`student` and `teacher` must have the same shape");
        let (student, teacher) = features(student, teacher);
        // How far the student is on the teacher's side of the boundary.
        let agreed = student.clone().mask_where(teacher.lower_equal_elem(0.0), student.neg());
        let short = relu(agreed.neg().add_scalar(self.margin));
        flatten_samples(short.square()).sum_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rejects_a_margin_of_nothing() {
        let error = AbLossConfig::new().with_margin(0.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`margin` must be in (0, inf), got 0");
    }

    #[test]
    fn only_the_side_of_the_boundary_matters() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -0.2, 1.7], [-3.0, 0.0, 0.9]], &device);
        let teacher = Tensor::<2>::from_floats([[0.1, 5.0, -0.1], [-2.0, 0.0, 8.0]], &device);
        let loss = AbLossConfig::new().with_margin(0.5).init().unwrap();
        let values = |teacher: Tensor<2>| loss.forward_no_reduction(student.clone(), teacher).into_data();
        assert_eq!(values(teacher.clone()), values(teacher.clone() * teacher.clone().abs().mul_scalar(100.0)));
        assert_ne!(values(teacher.clone()), values(teacher.neg()));
    }

    #[test]
    #[should_panic(expected = "must have the same shape")]
    fn panics_on_shapes_that_would_broadcast() {
        let device = Device::flex();
        let loss = AbLossConfig::new().init().unwrap();
        loss.forward(Tensor::<2>::zeros([2, 3], &device), Tensor::<2>::zeros([2, 1], &device));
    }
}
