//! Norms whose gradient at the zero vector is 0 instead of NaN.

use burn::tensor::Tensor;

/// Euclidean norm along `dim`, which is kept with size 1; value and gradient are 0 for a zero vector.
pub(crate) fn l2_norm<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let squares = x.square().sum_dim(dim);
    let zero = squares.clone().equal_scalar(0.0);
    squares.mask_fill(zero.clone(), 1.0).sqrt().mask_fill(zero, 0.0)
}

/// `x / |x|` along `dim`; a vector of length up to 1e-12 (zero in practice) becomes 0 with gradient 0.
pub(crate) fn l2_normalize<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let dims = x.dims();
    let norm = l2_norm(x.clone(), dim);
    let zero = norm.clone().lower_equal_elem(1e-12);
    x.mask_fill(zero.clone().expand(dims), 0.0) / norm.mask_fill(zero, 1.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn zero_vectors_have_zero_gradient() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_floats([[0.0, 0.0], [3.0, 4.0]], &device).require_grad();
        let sum = l2_norm(x.clone(), 1).sum() + l2_normalize(x.clone(), 1).narrow(1, 0, 1).sum();
        assert!((sum.clone().into_scalar::<f32>() - 5.6).abs() < 1e-6);
        let gradient = x.grad(&sum.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert_eq!(gradient[..2], [0.0, 0.0]);
        // d|x| = x / |x| = (0.6, 0.8); d(x0 / |x|) = (16, -12) / 125.
        assert!((gradient[2] - 0.6 - 0.128).abs() < 1e-6 && (gradient[3] - 0.8 + 0.096).abs() < 1e-6);
    }
}
