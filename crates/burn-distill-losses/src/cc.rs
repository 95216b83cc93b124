use burn::{config::Config, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Mask, Reduction, norm::l2_normalize, precision::features, sp::flatten_samples};

/// What the correlation of two samples is, in [`CcLoss`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum CorrelationKernel {
    /// The Gaussian radial basis function of the samples' directions, by its Taylor series: the paper's choice.
    Gaussian {
        /// Inverse width, in (0, inf).
        gamma: f64,
        /// The last power of the series, in [1, inf).
        order: usize,
    },
    /// The inner product.
    Bilinear,
    /// Neither a kernel nor a congruence: what RepDistiller computes under this name, see [`CcLoss`].
    Neighbours,
}

impl Default for CorrelationKernel {
    fn default() -> Self {
        Self::Gaussian { gamma: 0.4, order: 2 }
    }
}

/// Configuration of [`CcLoss`].
#[derive(Config, Debug)]
pub struct CcLossConfig {
    /// The correlation of two samples; the Gaussian with γ 0.4 and order 2 by default, as in the paper.
    #[config(default = "CorrelationKernel::default()")]
    pub kernel: CorrelationKernel,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl CcLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `gamma` is not in (0, inf) or `order` is 0.
    pub fn init(&self) -> Result<CcLoss, ConfigError> {
        if let CorrelationKernel::Gaussian { gamma, order } = self.kernel {
            ConfigError::check_positive("gamma", gamma)?;
            ConfigError::check_count("order", order)?;
        }
        Ok(CcLoss { kernel: self.kernel, reduction: self.reduction })
    }
}

/// Correlation congruence (CC, CCKD): samples are as correlated for the student as for the teacher.
///
/// ```text
/// loss = 1 / batch² · Σ_ij ( φ(s_i, s_j) - φ(t_i, t_j) )²
/// Gaussian:  φ(x, y) = exp(-2γ) Σ_{p = 0..order} (2γ x·y)^p / p!,   x and y of length 1; ≈ exp(-γ |x - y|²)
/// Bilinear:  φ(x, y) = x·y
/// ```
///
/// **Scale**: mean over the batch² pairs, as in the paper. A sample's value is the mean over its row; their
/// mean is the loss. torchdistill has the square root of the sum over batch² instead, and leaves it to the user that
/// the series needs vectors of length 1. With a kernel, widths and layouts may differ.
///
/// `Neighbours` is RepDistiller's `Correlation`, behind all of its published numbers: `mean over i of Σ_c |s_ic - t_ic|
/// |s_(i+1)c - t_(i+1)c|` for samples that follow each other in the batch. It compares samples, not correlations, needs
/// equal shapes (RepDistiller projects both sides to 128 features) and depends on the order of the batch. Its last
/// sample is 0, the others carry batch / (batch - 1); a batch of one is 0.
///
/// # Shapes
/// - `student`: `[batch, ..]`; `teacher`: the same batch and rank, any other sizes (with `Neighbours` the same);
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; with the Gaussian 0 for a sample whose features are all zero.
///
/// # Errors
/// [`CcLossConfig::init`] if `gamma` is not in (0, inf) or `order` is 0.
///
/// # Panics
/// `forward` if the batches differ; with `Neighbours` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{CcLossConfig, CorrelationKernel};
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0], [2.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
/// // Inner products (1, 2, 2, 4) against (1, 0, 0, 1): (0 + 4 + 4 + 9) / 4.
/// let loss = CcLossConfig::new().with_kernel(CorrelationKernel::Bilinear).init()?;
/// assert!((loss.forward(student, teacher).into_scalar::<f64>() - 4.25).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Peng et al., *Correlation Congruence for Knowledge Distillation*, 2019, arXiv 1904.01802, sections 3.2 and 3.3.
/// - Reference code: torchdistill `losses/mid_level.py` at 3e4373c4 (`CCKDLoss`); RepDistiller `distiller_zoo/CC.py` at
///   b84f547c (`Neighbours`).
#[derive(Debug, Clone)]
pub struct CcLoss {
    kernel: CorrelationKernel,
    reduction: Reduction,
}

impl CcLoss {
    /// The loss of each sample, `[batch]`: the mean over its correlations.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (student, teacher) = features(student, teacher);
        let (student, teacher) = (flatten_samples(student), flatten_samples(teacher));
        let difference = match self.kernel {
            CorrelationKernel::Gaussian { gamma, order } => {
                gaussian(student, gamma, order) - gaussian(teacher, gamma, order)
            }
            CorrelationKernel::Bilinear => inner_products(student) - inner_products(teacher),
            CorrelationKernel::Neighbours => return neighbours(student, teacher),
        };
        difference.square().mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

fn inner_products(samples: Tensor<2>) -> Tensor<2> {
    samples.clone().matmul(samples.transpose())
}

/// The series by Horner's rule, with the coefficients `exp(-2γ) (2γ)^p / p!`.
fn gaussian(samples: Tensor<2>, gamma: f64, order: usize) -> Tensor<2> {
    let mut logarithm = -2.0 * gamma;
    let mut coefficients = vec![logarithm.exp()];
    for power in 1..=order {
        logarithm += (2.0 * gamma / power as f64).ln();
        coefficients.push(logarithm.exp());
    }
    let cosines = inner_products(l2_normalize(samples, 1));
    let last = cosines.zeros_like();
    coefficients.into_iter().rev().fold(last, |sum, coefficient| sum * cosines.clone() + coefficient)
}

fn neighbours(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let (dims, teacher_dims) = (student.dims(), teacher.dims());
    assert_eq!(dims, teacher_dims, "`student` and `teacher` must have the same shape for `Neighbours`");
    let [batch, _] = dims;
    let distance = (student - teacher).abs();
    let alone = distance.clone().narrow(0, 0, 1).sum_dim(1).squeeze_dim::<1>(1).mul_scalar(0.0);
    if batch == 1 {
        return alone;
    }
    let pairs = distance.clone().narrow(0, 0, batch - 1) * distance.narrow(0, 1, batch - 1);
    let scale = batch as f64 / (batch - 1) as f64;
    Tensor::cat(vec![pairs.sum_dim(1).squeeze_dim::<1>(1).mul_scalar(scale), alone], 0)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn rejects_what_is_no_gaussian() {
        let init = |gamma, order| {
            let kernel = CorrelationKernel::Gaussian { gamma, order };
            CcLossConfig::new().with_kernel(kernel).init().unwrap_err().to_string()
        };
        assert_eq!(init(0.0, 2), "`gamma` must be in (0, inf), got 0");
        assert_eq!(init(0.4, 0), "`order` must be in [1, inf), got 0");
    }

    #[test]
    fn a_long_series_is_the_gaussian() {
        let device = Device::flex();
        device.seed(2);
        let samples = Tensor::<2>::random([4, 3], Distribution::Default, &device);
        let unit = l2_normalize(samples.clone(), 1);
        let (starts, ends): (Tensor<3>, Tensor<3>) = (unit.clone().unsqueeze_dim(0), unit.unsqueeze_dim(1));
        let edges = starts.expand([4, 4, 3]) - ends.expand([4, 4, 3]);
        let exact = edges.square().sum_dim(2).squeeze_dim::<2>(2).mul_scalar(-0.7).exp().into_data();
        let series = gaussian(samples, 0.7, 30).into_data();
        for (series, exact) in series.iter::<f32>().zip(exact.iter::<f32>()) {
            assert_relative_eq!(series, exact, max_relative = 1e-5);
        }
    }

    #[test]
    fn a_batch_of_one_has_no_neighbour() {
        let device = Device::flex();
        let loss = CcLossConfig::new().with_kernel(CorrelationKernel::Neighbours).init().unwrap();
        let value = loss.forward(Tensor::<2>::ones([1, 3], &device), Tensor::zeros([1, 3], &device));
        assert_eq!(value.into_scalar::<f32>(), 0.0);
    }

    #[test]
    #[should_panic(expected = "the same shape for `Neighbours`")]
    fn neighbours_need_one_width() {
        let device = Device::flex();
        let loss = CcLossConfig::new().with_kernel(CorrelationKernel::Neighbours).init().unwrap();
        loss.forward(Tensor::<2>::zeros([2, 3], &device), Tensor::<2>::zeros([2, 1], &device));
    }
}
