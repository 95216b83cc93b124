use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction,
    norm::l2_normalize,
    pool::{average_pool, smaller_size},
    precision::features,
};

/// Configuration of [`AttentionTransferLoss`].
#[derive(Config, Debug)]
pub struct AttentionTransferLossConfig {
    /// Power of an activation's magnitude in the attention map, in [1, inf).
    #[config(default = 2.0)]
    pub p: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl AttentionTransferLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `p` is not in [1, inf).
    pub fn init(&self) -> Result<AttentionTransferLoss, ConfigError> {
        let valid = self.p >= 1.0 && self.p.is_finite();
        Ok(AttentionTransferLoss { p: ConfigError::unless(valid, "p", "[1, inf)", self.p)?, reduction: self.reduction })
    }
}

/// Attention transfer: the student looks where the teacher looks. An attention map is the mean over channels of the
/// activations' magnitudes, to the power p, normalised over the positions.
///
/// ```text
/// map(f) = vec( mean over channels of |f|^p ),   unit(x) = x / |x|₂
/// loss = mean over samples and positions of  ( unit(map(student)) - unit(map(teacher)) )²
/// ```
///
/// **Scale**: the mean over positions, as in the authors' code. The paper (equation 2) has the norm of the difference,
/// not squared and without the mean, and sums the channels, which the normalisation makes equal. The squared maps have
/// length 1, so the value is at most 4 / (height · width); the authors weigh it by 1000 or more.
/// Where heights or widths differ, the larger features are reduced by adaptive average pooling before the map
/// is taken. Features that are all zero have an all-zero map.
///
/// # Shapes
/// - `student`: `[batch, channels, height, width]`; `teacher`: the same batch, any channels, height and width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only.
///
/// # Errors
/// [`AttentionTransferLossConfig::init`] if `p` is not in [1, inf).
///
/// # Panics
/// `forward` if the batches differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::AttentionTransferLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[1.0, 0.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[0.0, -3.0]]]], &device);
/// // Unit maps (1, 0) and (0, 1): the mean of two squared differences of 1.
/// let value = AttentionTransferLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 1.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zagoruyko, Komodakis, *Paying More Attention to Attention*, 2017, arXiv 1612.03928, equation 2.
/// - Reference code: szagoruyko/attention-transfer `utils.py` at 893df548 (`at_loss`); the pooling is RepDistiller's,
///   `distiller_zoo/AT.py` at b84f547c.
#[derive(Debug, Clone)]
pub struct AttentionTransferLoss {
    p: f64,
    reduction: Reduction,
}

impl AttentionTransferLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (student, teacher) = features(student, teacher);
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let size = smaller_size(&student, &teacher);
        let difference = self.attention(student, size) - self.attention(teacher, size);
        difference.square().mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }

    /// The attention map `[batch, height * width]` at `size`, of length 1.
    fn attention(&self, features: Tensor<4>, size: [usize; 2]) -> Tensor<2> {
        let batch = features.dims()[0];
        let features = average_pool(features, size);
        let energy = if self.p == 2.0 { features.square() } else { features.abs().powf_scalar(self.p) };
        l2_normalize(energy.mean_dim(1).reshape([batch, size[0] * size[1]]), 1)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rejects_powers_below_one() {
        let error = AttentionTransferLossConfig::new().with_p(0.5).init().unwrap_err();
        assert_eq!(error.to_string(), "`p` must be in [1, inf), got 0.5");
    }

    #[test]
    fn power_is_of_the_magnitude() {
        let device = Device::flex();
        let student = Tensor::<4>::from_floats([[[[1.0, -2.0]]]], &device);
        let teacher = Tensor::<4>::from_floats([[[[-1.0, 2.0]]]], &device);
        let loss = AttentionTransferLossConfig::new().with_p(3.0).init().unwrap();
        assert_eq!(loss.forward(student, teacher).into_scalar::<f32>(), 0.0);
    }
}
