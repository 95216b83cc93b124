use burn::{
    config::Config,
    tensor::{Bool, Tensor},
};

use crate::{ConfigError, Mask, Reduction, norm::l2_normalize, precision::features, sp::flatten_samples};

/// The smallest squared distance of two different samples, as in the authors' code.
const SMALLEST: f64 = 1e-12;

/// Configuration of [`RkdLoss`].
#[derive(Config, Debug)]
pub struct RkdLossConfig {
    /// Weight of the distances between pairs of samples, in [0, inf).
    #[config(default = 25.0)]
    pub distance_weight: f64,
    /// Weight of the angles between triples of samples, in [0, inf).
    #[config(default = 50.0)]
    pub angle_weight: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl RkdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If a weight is not in [0, inf).
    pub fn init(&self) -> Result<RkdLoss, ConfigError> {
        Ok(RkdLoss {
            distance_weight: ConfigError::check_weight("distance_weight", self.distance_weight)?,
            angle_weight: ConfigError::check_weight("angle_weight", self.angle_weight)?,
            reduction: self.reduction,
        })
    }
}

/// Relational knowledge distillation: the student keeps the distances between samples, relative to their mean, and the
/// angles that triples of samples form.
///
/// ```text
/// d_ij   = |x_i - x_j| / (mean of |x_i - x_j| over i ≠ j),   d_ii = 0
/// a_ijk  = cos of the angle at x_i between x_j and x_k (0 where two of them coincide)
/// loss   = distance_weight · mean_ij  huber(d_ij(student) - d_ij(teacher))
///        + angle_weight    · mean_ijk huber(a_ijk(student) - a_ijk(teacher))
/// huber(x) = x² / 2 if |x| < 1, else |x| - 1/2
/// ```
///
/// **Scale**: means over all batch² pairs and batch³ triples, the diagonal included, as in the authors' code. A
/// sample's value is the mean over the relations in which it is i; their mean is the loss. A batch of one has no
/// relation: 0. Memory grows with batch² · features (differences are taken directly, which is exact for close samples)
/// and batch³: meant for embeddings, not for large feature maps.
///
/// # Shapes
/// - `student`: `[batch, ..]`; `teacher`: the same batch and rank, any other sizes;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; coinciding samples get none from each other.
///
/// # Errors
/// [`RkdLossConfig::init`] if a weight is not in [0, inf).
///
/// # Panics
/// `forward` if the batches differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::RkdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0], [1.0], [3.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0], [1.0], [2.0]], &device);
/// let loss = RkdLossConfig::new().with_distance_weight(1.0).with_angle_weight(0.0).init()?;
/// // Distances (1, 3, 2) / 2 against (1, 2, 1) · 3/4: differences -1/4, 0, 1/4, each twice among 9 entries.
/// let value = loss.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 4.0 * 0.03125 / 9.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Park et al., *Relational Knowledge Distillation*, 2019, arXiv 1904.05068, equations 5 to 9.
/// - Reference code: lenscloth/RKD `metric/loss.py` at 0a6c3c0c; RepDistiller `distiller_zoo/RKD.py` at b84f547c has the
///   default weights 25 and 50.
#[derive(Debug, Clone)]
pub struct RkdLoss {
    distance_weight: f64,
    angle_weight: f64,
    reduction: Reduction,
}

impl RkdLoss {
    /// The loss of each sample, `[batch]`: the mean over the relations that start at it.
    pub fn forward_no_reduction<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (student, teacher) = features(student, teacher);
        let (student, teacher) = (edges(flatten_samples(student)), edges(flatten_samples(teacher)));
        let by_distance = huber(distances(student.clone()) - distances(teacher.clone())).mean_dim(1);
        let by_distance = by_distance.squeeze_dim::<1>(1).mul_scalar(self.distance_weight);
        if self.angle_weight == 0.0 {
            return by_distance;
        }
        let by_angle = huber(angles(student) - angles(teacher)).reshape([batch, batch * batch]).mean_dim(1);
        by_distance + by_angle.squeeze_dim::<1>(1).mul_scalar(self.angle_weight)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// `x_j - x_i` at `[i, j, :]`.
fn edges(samples: Tensor<2>) -> Tensor<3> {
    let [batch, width] = samples.dims();
    let ends: Tensor<3> = samples.clone().unsqueeze_dim(0);
    let starts: Tensor<3> = samples.unsqueeze_dim(1);
    ends.expand([batch, batch, width]) - starts.expand([batch, batch, width])
}

/// Distances `[batch, batch]` divided by their mean; 0 on the diagonal.
fn distances(edges: Tensor<3>) -> Tensor<2> {
    let batch = edges.dims()[0];
    // `diag_mask` is false on the diagonal.
    let diagonal = Tensor::<2, Bool>::diag_mask([batch, batch], 0, &edges.device()).without_autodiff().bool_not();
    let squares = edges.square().sum_dim(2).squeeze_dim::<2>(2);
    let distances = squares.clamp_min(SMALLEST).sqrt().mask_fill(diagonal, 0.0);
    let pairs = (batch * batch.saturating_sub(1)).max(1) as f64;
    let mean = distances.clone().sum().div_scalar(pairs);
    // Without pairs the sum is 0: any divisor leaves the distances at 0.
    let mean = if batch > 1 { mean } else { mean.add_scalar(1.0) };
    distances / mean.unsqueeze_dim(0)
}

/// Cosines `[batch, batch, batch]`: at `[i, j, k]` that of the angle at i between j and k.
fn angles(edges: Tensor<3>) -> Tensor<3> {
    let directions = l2_normalize(edges, 2);
    directions.clone().matmul(directions.transpose())
}

/// The smooth L1 function with threshold 1.
fn huber<const D: usize>(difference: Tensor<D>) -> Tensor<D> {
    let magnitude = difference.abs();
    let clamped = magnitude.clone().clamp_max(1.0);
    clamped.clone() * (magnitude - clamped.mul_scalar(0.5))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn huber_is_quadratic_then_linear() {
        let device = Device::flex();
        let values = huber(Tensor::<1>::from_floats([0.0, 0.5, -1.0, -3.0], &device));
        assert_eq!(values.into_data_as::<f32>().try_to_vec::<f32>().unwrap(), [0.0, 0.125, 0.5, 2.5]);
    }

    #[test]
    fn scale_shift_and_rotation_of_the_features_do_not_matter() {
        let device = Device::flex();
        device.seed(5);
        let teacher = Tensor::<2>::random([5, 4], Distribution::Default, &device);
        let student = teacher.clone().flip([1]).mul_scalar(-3.0).add_scalar(2.0);
        let value = RkdLossConfig::new().init().unwrap().forward(student, teacher).into_scalar::<f64>();
        assert!(value < 1e-8, "{value}");
    }
}
