//! Log-probabilities that stay finite, so that 0 times the logarithm of 0 is 0 in value and in gradient.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// The finite logit that stands for `-inf`: its exponential is 0 beside any other logit, and 0 times it is 0, where 0
/// times `-inf` would be NaN.
pub(crate) const FLOOR: f64 = -1e30;

/// Log-probabilities of `logits / temperature` over the last dimension; classes of probability 0 (logit `-inf`)
/// get a finite, very negative logarithm.
pub(crate) fn log_softmax(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    let shifted = shifted(logits, temperature);
    let log_sum = shifted.clone().exp().sum_dim(1).log();
    shifted - log_sum
}

/// [`log_softmax`] at a temperature of shape `[1]` that may have a gradient.
pub(crate) fn log_softmax_at(logits: Tensor<2>, temperature: Tensor<1>) -> Tensor<2> {
    let logits = logits.clamp_min(FLOOR);
    let max = finite_max(logits.clone());
    let shifted = ((logits - max) / temperature.unsqueeze_dim::<2>(0)).clamp_min(FLOOR);
    let log_sum = shifted.clone().exp().sum_dim(1).log();
    shifted - log_sum
}

/// Probabilities beside [`log_softmax`], from the same exponentials.
pub(crate) fn softmax(logits: Tensor<2>, temperature: f64) -> (Tensor<2>, Tensor<2>) {
    let shifted = shifted(logits, temperature);
    let exp = shifted.clone().exp();
    let sum = exp.clone().sum_dim(1);
    (exp / sum.clone(), shifted - sum.log())
}

/// `logits / temperature` minus its maximum; finite, and very negative for a logit of `-inf`.
fn shifted(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    // Only so small a temperature can make a quotient overflow: there the maximum comes off first.
    let logits = if temperature < 1e-6 { logits.clone() - finite_max(logits) } else { logits };
    let tempered = if temperature == 1.0 { logits } else { logits.div_scalar(temperature) };
    let tempered = tempered.clamp_min(FLOOR);
    let max = finite_max(tempered.clone());
    tempered - max
}

/// The largest of each row, `[rows, 1]`, without gradient; at least [`FLOOR`].
pub(crate) fn finite_max(x: Tensor<2>) -> Tensor<2> {
    x.without_autodiff().max_dim(1).clamp_min(FLOOR)
}

/// `log(sum(exp(x)))` over the last dimension, shape `[rows, 1]`.
pub(crate) fn log_sum_exp(x: Tensor<2>) -> Tensor<2> {
    let max = x.clone().without_autodiff().max_dim(1);
    (x - max.clone()).exp().sum_dim(1).log() + max
}

/// `log(exp(a) + exp(b))`, element by element.
pub(crate) fn log_add_exp(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let max = a.clone().without_autodiff().max_pair(b.clone().without_autodiff());
    ((a - max.clone()).exp() + (b - max.clone()).exp()).log() + max
}

/// Zeros of `shape` with `values` `[rows, k]` added at the columns `indices` `[rows, k]`.
pub(crate) fn add_at(shape: [usize; 2], indices: Tensor<2, Int>, values: Tensor<2>) -> Tensor<2> {
    let zeros = Tensor::zeros(shape, (&values.device(), values.dtype()));
    zeros.scatter(1, indices, values, IndexingUpdateOp::Add)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn log_add_exp_of_far_values() {
        let device = Device::flex();
        let a = Tensor::<2>::from_floats([[0.0, -2e4, -1e30, -1e30]], &device);
        let b = Tensor::<2>::from_floats([[0.0, -1.0, -1.0, -1e30]], &device);
        let sum = log_add_exp(a, b).into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert_relative_eq!(sum[0], 2f32.ln(), max_relative = 1e-6);
        assert_eq!(sum[1..], [-1.0, -1.0, -1e30]);
    }

    #[test]
    fn probability_zero_has_a_finite_logarithm() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[f32::NEG_INFINITY, 0.0, 0.0]], &device);
        let log_probs = log_softmax(logits, 0.5).into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(log_probs[0] < -1e29 && log_probs[0].is_finite());
        assert_relative_eq!(log_probs[1], -(2f32.ln()), max_relative = 1e-6);
    }

    #[test]
    fn no_temperature_overflows() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[1e4, -1e4, 1e4], [f32::NEG_INFINITY; 3]], &device);
        for temperature in [1e-37, 1e-8, 1.0, 1e18] {
            let (probs, log_probs) = softmax(logits.clone(), temperature);
            let probs = probs.into_data_as::<f32>().try_to_vec::<f32>().unwrap();
            let middle = if temperature > 1e4 { 1.0 / 3.0 } else { 0.0 };
            let side = (1.0 - middle) / 2.0;
            let expected = [side, middle, side, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
            probs.iter().zip(expected).for_each(|(got, expected)| assert_relative_eq!(*got, expected, epsilon = 1e-6));
            assert_eq!(log_probs.clone().into_data(), log_softmax(logits.clone(), temperature).into_data());
            assert!(log_probs.into_data().iter::<f32>().all(f32::is_finite));
        }
    }
}
