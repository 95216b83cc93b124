use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction,
    hint::squared_difference,
    pool::{average_pool, smaller_size},
    precision::features,
};

/// Configuration of [`SimKdLoss`].
#[derive(Config, Debug)]
pub struct SimKdLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl SimKdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<SimKdLoss, ConfigError> {
        Ok(SimKdLoss { reduction: self.reduction })
    }
}

/// SimKD: the student's last feature map is the teacher's, because it will be read by the teacher's classifier.
///
/// ```text
/// loss = mean over samples, channels and positions of  ( projected student - teacher )²
/// ```
///
/// It is the whole objective: no labels, no logits, one weight of 1. The student is its backbone, a projector and the
/// teacher's own classifier, frozen, also when it is used afterwards: `ReusedClassifier` in `burn-distill-models` is
/// the last two. Where heights or widths differ, the larger features are reduced by adaptive average pooling. It is
/// `HintLoss` but for that.
///
/// **Scale**: mean over all elements, as in the paper and the authors' code.
///
/// # Shapes
/// - `student`: `[batch, channels, height, width]`, after the projector; `teacher`: the same batch and channels, any
///   height and width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if batches or channels differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::SimKdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[1.0]], [[0.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[2.0, 4.0]], [[1.0, -1.0]]]], &device);
/// // The teacher's averages are 3 and 0: (4 + 0) / 2.
/// let value = SimKdLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 2.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Chen et al., *Knowledge Distillation with the Reused Teacher Classifier*, 2022, arXiv 2203.14001, section 3.
/// - Reference code: DefangChen/SimKD `models/util.py` and `helper/loops.py` at 2b389c31 (it pools to a square).
#[derive(Debug, Clone)]
pub struct SimKdLoss {
    reduction: Reduction,
}

impl SimKdLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (student, teacher) = features(student, teacher);
        let size = smaller_size(&student, &teacher);
        squared_difference(average_pool(student, size), average_pool(teacher, size))
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    #[should_panic(expected = "must have the same shape")]
    fn panics_on_channels_that_would_broadcast() {
        let device = Device::flex();
        let loss = SimKdLossConfig::new().init().unwrap();
        loss.forward(Tensor::zeros([2, 3, 2, 2], &device), Tensor::zeros([2, 1, 4, 4], &device));
    }
}
