use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, norm::l2_normalize, precision::features, sp::flatten_samples};

/// Added to probabilities inside the logarithm, as in the authors' code.
const SMALLEST: f64 = 1e-7;

/// Configuration of [`PktLoss`].
#[derive(Config, Debug)]
pub struct PktLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl PktLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<PktLoss, ConfigError> {
        Ok(PktLoss { reduction: self.reduction })
    }
}

/// Probabilistic knowledge transfer (PKT): for each sample, the student keeps the teacher's distribution over which
/// sample of the batch is near, by the cosine.
///
/// ```text
/// k_ij = (1 + cos(x_i, x_j)) / 2,   p_ij = k_ij / Σ_j k_ij      (p of the teacher, q of the student)
/// loss = 1 / batch² · Σ_ij  p_ij ( ln(p_ij + ε) - ln(q_ij + ε) ),   ε = 1e-7
/// ```
///
/// **Scale**: the mean over all batch² pairs, a sample's pair with itself included, as in the code that RepDistiller and
/// torchdistill took from the authors; the paper sums, over pairs of different samples. So the value shrinks with the
/// batch, and RepDistiller weighs it by 30000. A sample's value is the mean over its row; their mean is the loss.
/// Width and layout of student and teacher may differ. Features that are all zero are equally near to everything.
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
/// use burn_distill_losses::PktLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0, 0.0], [2.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
/// // k: all 1 against 1 and 1/2, so q = (1/2, 1/2) and p = (2/3, 1/3), or (1/3, 2/3) in the second row.
/// let value = PktLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// let kl = 2.0 / 3.0 * (4f64 / 3.0).ln() + 1.0 / 3.0 * (2f64 / 3.0).ln();
/// assert!((value - kl / 2.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Passalis, Tefas, *Probabilistic Knowledge Transfer for Deep Representation Learning*, 2018, arXiv 1803.10837,
///   section 3 (cosine kernel).
/// - Reference code: RepDistiller `distiller_zoo/PKT.py` at b84f547c; torchdistill `losses/mid_level.py` at 3e4373c4
///   (`PKTLoss`), the same.
#[derive(Debug, Clone)]
pub struct PktLoss {
    reduction: Reduction,
}

impl PktLoss {
    /// The loss of each sample, `[batch]`: the mean over its row of pairs.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (student, teacher) = features(student, teacher);
        let (student, teacher) = (neighbours(student), neighbours(teacher));
        let logarithm = |probabilities: &Tensor<2>| probabilities.clone().add_scalar(SMALLEST).log();
        let difference = logarithm(&teacher) - logarithm(&student);
        (teacher * difference).mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// The probabilities `[batch, batch]` of each sample's neighbours.
fn neighbours<const D: usize>(features: Tensor<D>) -> Tensor<2> {
    let unit = l2_normalize(flatten_samples(features), 1);
    // Rounding takes the cosine of opposite samples below -1.
    let kernel = unit.clone().matmul(unit.transpose()).clamp_min(-1.0).add_scalar(1.0);
    let total = kernel.clone().sum_dim(1);
    kernel / total
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn length_of_the_features_and_rotation_do_not_matter() {
        let device = Device::flex();
        device.seed(3);
        let teacher = Tensor::<2>::random([5, 3], Distribution::Default, &device);
        let lengths = Tensor::<2>::from_floats([[0.1], [2.0], [7.0], [1.0], [30.0]], &device);
        let student = teacher.clone().flip([1]).mul_scalar(-1.0) * lengths;
        let value = PktLossConfig::new().init().unwrap().forward(student, teacher).into_scalar::<f64>();
        assert!(value.abs() < 1e-7, "{value}");
    }

    #[test]
    fn opposite_samples_are_finite() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[0.3, 0.7, -0.2], [-0.3, -0.7, 0.2]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], &device);
        let loss = PktLossConfig::new().init().unwrap().forward(student.clone(), teacher);
        // q = (1, 0) against p = (1/2, 1/2): 1/4 (ln(1/2) + ln(1/2) + ln(1e7)), bounded by ε.
        let gradient = student.grad(&loss.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
        let expected = (2.0 * 0.5f64.ln() + 1e7f64.ln()) / 4.0;
        let value = loss.into_scalar::<f64>();
        // A rounding of 1e-7 of the cosine moves the logarithm by as much as ln 2.
        assert!((value - expected).abs() < 0.2, "{value}, {expected}");
    }
}
