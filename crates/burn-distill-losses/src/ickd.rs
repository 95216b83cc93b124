use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, norm::l2_normalize, precision::features};

/// Configuration of [`IckdLoss`].
#[derive(Config, Debug)]
pub struct IckdLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl IckdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<IckdLoss, ConfigError> {
        Ok(IckdLoss { reduction: self.reduction })
    }
}

/// Inter-channel correlation (ICKD-C): channels that say the same for the teacher say the same for the student.
///
/// ```text
/// F = one sample's features as [channels, positions],   C(F) = rows of F Fᵀ, each divided by its length
/// loss = mean over samples of  1 / channels · Σ_cd ( C(student)_cd - C(teacher)_cd )²
/// ```
///
/// **Scale**: sum over all pairs of channels, divided by the number of channels once, as in the authors' code for
/// CIFAR; at most 4. Their code for ImageNet, which torchdistill took over, divides by the batch twice. Height and width
/// of student and teacher may differ; the channels may not: a 1x1 convolution with batch norm, the authors' embedding,
/// is a connector. The variant for dense prediction, with a matrix for each cell of a grid, is this loss on the cells.
///
/// # Shapes
/// - `student`: `[batch, channels, height, width]`; `teacher`: the same batch and channels, any height and width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; 0 for a channel that is zero everywhere.
///
/// # Panics
/// `forward` if batches or channels differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::IckdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[1.0, 0.0]], [[0.0, 1.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[2.0]], [[2.0]]]], &device);
/// // Rows (1, 0) and (0, 1) against (1, 1) / √2: 2 - √2 for each, over 2 channels.
/// let value = IckdLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (2.0 - 2f64.sqrt())).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Liu et al., *Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation*, 2021, arXiv
///   2202.03680, section 3.
/// - Reference code: ADLab-AutoDrive/ICKD `Cifar100/distiller_zoo/ICKD.py` at 403b8d3d; torchdistill
///   `losses/mid_level.py` at 3e4373c4 (`ChSimLoss`).
#[derive(Debug, Clone)]
pub struct IckdLoss {
    reduction: Reduction,
}

impl IckdLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let ([batch, channels, ..], [teacher_batch, teacher_channels, ..]) = (student.dims(), teacher.dims());
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        assert_eq!(channels, teacher_channels, "`student` has {channels} channels and `teacher` {teacher_channels}");
        let (student, teacher) = features(student, teacher);
        let difference = (correlations(student) - correlations(teacher)).square();
        difference.reshape([batch, channels * channels]).sum_dim(1).squeeze_dim::<1>(1).div_scalar(channels as f64)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// `[batch, channels, channels]`, each row of length 1.
fn correlations(features: Tensor<4>) -> Tensor<3> {
    let channels: Tensor<3> = features.flatten(2, 3);
    l2_normalize(channels.clone().matmul(channels.transpose()), 2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn scale_and_where_in_the_picture_do_not_matter() {
        let device = Device::flex();
        device.seed(4);
        let teacher = Tensor::<4>::random([2, 4, 3, 3], Distribution::Default, &device);
        let student = teacher.clone().flip([2, 3]).mul_scalar(-2.5);
        let loss = IckdLossConfig::new().init().unwrap();
        let value = loss.forward(student, teacher.clone()).into_scalar::<f64>();
        assert!(value < 1e-11, "{value}");
        // The order of the channels does.
        let value = loss.forward(teacher.clone().flip([1]), teacher).into_scalar::<f64>();
        assert!(value > 1e-4, "{value}");
    }

    #[test]
    #[should_panic(expected = "`student` has 3 channels and `teacher` 1")]
    fn panics_on_channels_that_would_broadcast() {
        let device = Device::flex();
        let loss = IckdLossConfig::new().init().unwrap();
        loss.forward(Tensor::zeros([2, 3, 2, 2], &device), Tensor::zeros([2, 1, 2, 2], &device));
    }
}
