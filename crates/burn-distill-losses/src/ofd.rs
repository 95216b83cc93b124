use burn::{
    config::Config,
    tensor::{Tensor, TensorData},
};

use crate::{
    ConfigError, Mask, Reduction,
    precision::{constant, features},
    sp::flatten_samples,
};

/// Where a channel is negative less often than this, its margin is -3 deviations, as in the authors' code.
const RARELY_NEGATIVE: f64 = 0.001;

/// Configuration of [`OfdLoss`].
#[derive(Config, Debug)]
pub struct OfdLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl OfdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<OfdLoss, ConfigError> {
        Ok(OfdLoss { reduction: self.reduction })
    }
}

/// The comprehensive overhaul of feature distillation (OFD): features before the ReLU, of which the teacher's negative
/// ones are cut at a margin and count only where the student is above.
///
/// ```text
/// target = max(teacher, margin of the channel)
/// loss = mean over samples of  Σ over elements of  0                     if student ≤ target ≤ 0
///                                                  (student - target)²   otherwise
/// margin = E[x | x < 0] of a normal x with the mean and deviation that the teacher's batch norm gives the channel
/// ```
///
/// Both sides are taken after batch norm and before the ReLU; [`margin`](Self::margin) is computed once, from that batch
/// norm of the teacher. The authors' connector is a 1x1 convolution and batch norm (`ConvConnector`).
///
/// **Scale**: the sum over the elements of a sample, as in the paper, so it grows with the size of the features; the
/// authors weigh it by 1/1000, and halve that for each shallower stage. Where a channel is negative with a probability
/// of less than 0.001, the authors' code takes -3 deviations as its margin instead of the expectation (about -0.3
/// deviations there); so does this.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[batch, channels, height, width]`; `margin`: `[channels]`;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if the shapes differ or `margin` has not one number per channel.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{OfdLoss, OfdLossConfig};
///
/// let device = Device::flex();
/// // The mean of a standard normal variable below zero.
/// let margin = OfdLoss::margin(Tensor::ones([1], &device), Tensor::zeros([1], &device));
/// assert!((margin.clone().into_scalar::<f64>() + (2.0 / std::f64::consts::PI).sqrt()).abs() < 1e-6);
///
/// let student = Tensor::<4>::from_floats([[[[3.0, -2.0, 0.5]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[1.0, -0.1, -9.0]]]], &device);
/// // 2² to the active 1; -2 is below -0.1 already; 1/2 should be at the margin.
/// let value = OfdLossConfig::new().init()?.forward(student, teacher, margin).into_scalar::<f64>();
/// assert!((value - (4.0 + 0.0 + (0.5 + 0.797_884_56f64).powi(2))).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Heo et al., *A Comprehensive Overhaul of Feature Distillation*, 2019, arXiv 1904.01866, section 3.
/// - Reference code: clovaai/overhaul-distillation `CIFAR-100/distiller.py` at 76344a84.
#[derive(Debug, Clone)]
pub struct OfdLoss {
    reduction: Reduction,
}

impl OfdLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>, margin: Tensor<1>) -> Tensor<1> {
        let (dims, teacher_dims) = (student.dims(), teacher.dims());
        assert_eq!(dims, teacher_dims, "`student` and `teacher` must have the same shape");
        let ([_, channels, ..], [margins]) = (dims, margin.dims());
        assert_eq!(channels, margins, "`margin` must have one number for each of {channels} channels, got {margins}");
        let (student, teacher) = features(student, teacher);
        let margin = constant(margin, student.dtype()).reshape([1, channels, 1, 1]);
        let target = teacher.max_pair(margin.expand(dims));
        let settled = student.clone().lower_equal(target.clone()).bool_and(target.clone().lower_equal_elem(0.0));
        let difference = (student - target).mask_fill(settled, 0.0);
        flatten_samples(difference.square()).sum_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>, margin: Tensor<1>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, margin), &Mask::from(None))
    }

    /// The margins `[channels]`, all at most 0, from `norm_weight` and `norm_bias` `[channels]`, the scale and shift of
    /// the teacher's batch norm (`gamma` and `beta` of Burn's).
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn margin(norm_weight: Tensor<1>, norm_bias: Tensor<1>) -> Tensor<1> {
        let ([channels], [shifts]) = (norm_weight.dims(), norm_bias.dims());
        assert_eq!(channels, shifts, "`norm_weight` has {channels} numbers and `norm_bias` {shifts}");
        let options = (&norm_weight.device(), norm_weight.dtype());
        let (deviation, mean) = (norm_weight.without_autodiff().into_data(), norm_bias.without_autodiff().into_data());
        let margins = deviation.iter::<f64>().zip(mean.iter::<f64>()).map(|(s, m)| mean_below_zero(m, s.abs()));
        let margins: Vec<f64> = margins.collect();
        Tensor::from_data(TensorData::new(margins, [channels]), options)
    }
}

/// The mean of a normal variable where it is negative.
fn mean_below_zero(mean: f64, deviation: f64) -> f64 {
    if deviation == 0.0 {
        return mean.min(0.0);
    }
    let standard = mean / deviation;
    let below = normal_cdf(-standard);
    if below <= RARELY_NEGATIVE {
        return -3.0 * deviation;
    }
    mean - deviation * normal_density(standard) / below
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The standard normal distribution function, by its series around 0: `1/2 + density(x) (x + x³/3 + x⁵/15 + ..)`.
fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    // The terms shrink once the odd number is above x² and are below 1e-17 of the sum after at most 150.
    for _ in 0..200 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + normal_density(x) * sum
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_distribution_function_is_the_tables() {
        for (x, expected) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.0, 0.158_655_253_931_457_05),
            (-3.0, 0.001_349_898_031_630_094_6),
            (2.5, 0.993_790_334_674_223_8),
            (7.9, 1.0),
            (-40.0, 0.0),
        ] {
            assert_relative_eq!(normal_cdf(x), expected, max_relative = 1e-12);
        }
    }

    #[test]
    fn margins_at_the_ends() {
        let device = Device::flex();
        let weight = Tensor::<1>::from_floats([0.0, 0.0, 1e-3, 2.0, 0.5], &device);
        let bias = Tensor::<1>::from_floats([-2.0, 3.0, -5.0, 20.0, 0.0], &device);
        let margin = OfdLoss::margin(weight, bias).into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        // Always -2; never negative; always near -5; so rarely that the authors take -3 deviations; half a normal.
        for (margin, expected) in margin.iter().zip([-2.0, 0.0, -5.0, -6.0, -0.398_942_3]) {
            assert_relative_eq!(*margin, expected, max_relative = 1e-6);
        }
    }

    #[test]
    fn more_negative_than_the_margin_is_as_good_as_the_margin() {
        let device = Device::flex();
        let map = |values: [f32; 3]| Tensor::<4>::from_floats([[[values]]], &device);
        let loss = OfdLossConfig::new().init().unwrap();
        let value = |student, teacher| {
            loss.forward(map(student), map(teacher), Tensor::from_floats([-0.5], &device)).into_scalar::<f32>()
        };
        assert_eq!(value([-0.5, -7.0, 2.0], [-3.0, -0.6, 2.0]), 0.0);
        assert_eq!(value([1.0, 0.0, 0.0], [-3.0, -9.0, 2.0]), 2.25 + 0.25 + 4.0);
    }

    #[test]
    #[should_panic(expected = "`margin` must have one number for each of 3 channels, got 1")]
    fn panics_on_a_margin_that_would_broadcast() {
        let device = Device::flex();
        let map = Tensor::<4>::zeros([2, 3, 2, 2], &device);
        OfdLossConfig::new().init().unwrap().forward(map.clone(), map, Tensor::zeros([1], &device));
    }
}
