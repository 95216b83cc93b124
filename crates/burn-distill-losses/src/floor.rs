//! Log-probabilities that stay finite, so that 0 times the logarithm of 0 is 0 in value and in gradient.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

/// The finite logit that stands for `-inf`: its exponential is 0 beside any other logit, and 0 times it is 0, where 0
/// times `-inf` would be NaN.
pub(crate) const FLOOR: f64 = -1e30;

/// Log-probabilities of `logits / temperature` over the last dimension; classes of probability 0 (logit `-inf`)
/// get a finite, very negative logarithm.
pub(crate) fn log_softmax(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    let logits = if temperature == 1.0 { logits } else { logits.div_scalar(temperature) };
    activation::log_softmax(logits.clamp_min(FLOOR), 1)
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
}
