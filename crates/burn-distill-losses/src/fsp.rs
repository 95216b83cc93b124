use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction,
    pool::{max_pool, smaller_size},
    precision::features,
};

/// Configuration of [`FspLoss`].
#[derive(Config, Debug)]
pub struct FspLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl FspLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<FspLoss, ConfigError> {
        Ok(FspLoss { reduction: self.reduction })
    }
}

/// Flow of the solution procedure (FSP): what lies between two stages of the teacher, as inner products of their
/// channels, lies between two stages of the student.
///
/// ```text
/// G_cd = mean over positions of  first_c · second_d
/// loss = mean over samples and pairs of channels of  ( G(student)_cd - G(teacher)_cd )²
/// ```
///
/// **Scale**: the mean over the pairs of channels, as in RepDistiller; the paper has their sum, torchdistill the sum of
/// the lengths of G's columns. Where the stages differ in size, the larger is reduced by maximum pooling, as the paper
/// and torchdistill do; RepDistiller takes averages. The student's stages have the teacher's channels, but any sizes.
/// Several pairs of stages are several terms. The paper trains on this loss alone first and on the labels afterwards.
///
/// # Shapes
/// - `student`: its first and its second stage, `[batch, channels, height, width]` each, of any channels and sizes;
/// - `teacher`: the same batch and channels, any heights and widths;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To both of the student's stages, not to the teacher's.
///
/// # Panics
/// `forward` if the batches differ, or a stage's channels.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::FspLossConfig;
///
/// let device = Device::flex();
/// let map = |values: [f32; 2]| Tensor::<4>::from_floats([[[values]]], &device);
/// // Student (1 · 3 + 2 · 4) / 2, teacher (1 · 1 + 0 · 5) / 2.
/// let (student, teacher) = ([map([1.0, 2.0]), map([3.0, 4.0])], [map([1.0, 0.0]), map([1.0, 5.0])]);
/// let value = FspLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (5.5f64 - 0.5).powi(2)).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yim et al., *A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning*,
///   CVPR 2017, section 3.
/// - Reference code: torchdistill `losses/mid_level.py` at 3e4373c4 (`FSPLoss.compute_fsp_matrix`); RepDistiller
///   `distiller_zoo/FSP.py` at b84f547c.
#[derive(Debug, Clone)]
pub struct FspLoss {
    reduction: Reduction,
}

impl FspLoss {
    /// The loss of each sample, `[batch]`; each side is its first and its second stage.
    pub fn forward_no_reduction(&self, student: [Tensor<4>; 2], teacher: [Tensor<4>; 2]) -> Tensor<1> {
        let ([first, second], [teacher_first, teacher_second]) = (student, teacher);
        let (first, teacher_first) = features(first, teacher_first);
        let (second, teacher_second) = features(second, teacher_second);
        let (student, teacher) = (flow(first, second), flow(teacher_first, teacher_second));
        let (dims, teacher_dims) = (student.dims(), teacher.dims());
        assert_eq!(
            dims, teacher_dims,
            "batch and channels of the two stages must be the same for `student` and `teacher`"
        );
        let [batch, rows, columns] = dims;
        (student - teacher).square().reshape([batch, rows * columns]).mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`; each side is its first and its second stage.
    pub fn forward(&self, student: [Tensor<4>; 2], teacher: [Tensor<4>; 2]) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// The inner products `[batch, first channels, second channels]`, over the number of positions.
fn flow(first: Tensor<4>, second: Tensor<4>) -> Tensor<3> {
    let (batch, other) = (first.dims()[0], second.dims()[0]);
    assert_eq!(batch, other, "the two stages must have one batch size, got {batch} and {other}");
    let size = smaller_size(&first, &second);
    let (first, second): (Tensor<3>, Tensor<3>) =
        (max_pool(first, size).flatten(2, 3), max_pool(second, size).flatten(2, 3));
    first.matmul(second.transpose()).div_scalar((size[0] * size[1]) as f64)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn where_in_the_picture_does_not_matter() {
        let device = Device::flex();
        device.seed(8);
        let random = |channels| Tensor::<4>::random([2, channels, 3, 4], Distribution::Default, &device);
        let teacher = [random(2), random(5)];
        let loss = FspLossConfig::new().init().unwrap();
        let flipped = teacher.clone().map(|stage| stage.flip([2, 3]));
        assert!(loss.forward(flipped, teacher.clone()).into_scalar::<f64>() < 1e-12);
        // That both stages agree on where does.
        let [first, second] = teacher.clone();
        assert!(loss.forward([first.flip([2, 3]), second], teacher).into_scalar::<f64>() > 1e-4);
    }

    #[test]
    #[should_panic(expected = "must be the same for `student` and `teacher`")]
    fn panics_on_channels_that_would_broadcast() {
        let device = Device::flex();
        let map = |channels| Tensor::<4>::zeros([2, channels, 2, 2], &device);
        FspLossConfig::new().init().unwrap().forward([map(3), map(4)], [map(1), map(4)]);
    }
}
