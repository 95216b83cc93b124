use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, norm::l2_normalize, precision::features};

/// Configuration of [`SpLoss`].
#[derive(Config, Debug)]
pub struct SpLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl SpLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<SpLoss, ConfigError> {
        Ok(SpLoss { reduction: self.reduction })
    }
}

/// Similarity-preserving distillation (SP): samples that are similar for the teacher are similar for the student.
///
/// ```text
/// F = features as [batch, everything else],   G(F) = rows of F Fᵀ, each divided by its length
/// loss = 1 / batch² · Σ_ij ( G(student)_ij - G(teacher)_ij )²
/// ```
///
/// **Scale**: mean over the batch² pairs, as in the paper. A sample's value is the mean over its row of the similarity
/// matrix; their mean is the loss. Width and layout of student and teacher may differ.
///
/// # Shapes
/// - `student`: `[batch, ..]`; `teacher`: the same batch and rank, any other sizes;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; 0 for a sample whose features are all zero.
///
/// # Panics
/// `forward` if the batches differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::SpLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[3.0, 4.0], [3.0, 4.0]], &device);
/// // Rows (1, 0) and (0, 1) against (1, 1) / √2: 2 - √2 for each, over the 2 elements of a row.
/// let value = SpLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (2.0 - 2f64.sqrt()) / 2.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Tung, Mori, *Similarity-Preserving Knowledge Distillation*, 2019, arXiv 1907.09682, equations 1 to 4.
/// - Reference code: RepDistiller `distiller_zoo/SP.py` at b84f547c.
#[derive(Debug, Clone)]
pub struct SpLoss {
    reduction: Reduction,
}

impl SpLoss {
    /// The loss of each sample, `[batch]`: the mean over its row of the similarity matrix.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (student, teacher) = features(student, teacher);
        let difference = similarity(student) - similarity(teacher);
        difference.square().mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// Similarities `[batch, batch]` of the samples, each row of length 1.
fn similarity<const D: usize>(features: Tensor<D>) -> Tensor<2> {
    let features = flatten_samples(features);
    l2_normalize(features.clone().matmul(features.transpose()), 1)
}

/// `[batch, ..]` as `[batch, everything else]`.
pub(crate) fn flatten_samples<const D: usize>(features: Tensor<D>) -> Tensor<2> {
    let dims = features.dims();
    features.reshape([dims[0], dims[1..].iter().product()])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn scale_and_rotation_of_the_features_do_not_matter() {
        let device = Device::flex();
        device.seed(3);
        let teacher = Tensor::<2>::random([5, 3], Distribution::Default, &device);
        let student = teacher.clone().flip([1]).mul_scalar(-2.5);
        let value = SpLossConfig::new().init().unwrap().forward(student, teacher).into_scalar::<f64>();
        assert!(value < 1e-12, "{value}");
    }
}
