//! Batch norm on `libtorch`: PyTorch's own operation, which Burn's backend does not call.

use burn::backend::{LibTorch, tensor::FloatTensor};

use super::backend::BatchNormKernel;

type Tensor = FloatTensor<LibTorch>;

impl BatchNormKernel for LibTorch {
    fn train(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: f64) -> (Tensor, Tensor, Tensor) {
        let (input, gamma, beta) = (&x.tensor, &gamma.tensor, &beta.tensor);
        // With a momentum of 1 the running statistics become those of the batch, the variance the unbiased one.
        let (mean, variance) = (gamma.zeros_like(), gamma.zeros_like());
        let (output, ..) =
            input.native_batch_norm(Some(gamma), Some(beta), Some(&mean), Some(&variance), true, 1.0, epsilon);
        let size = input.size();
        let count = (size.iter().product::<i64>() / size[1].max(1)) as f64;
        let variance = if count > 1.0 { variance * ((count - 1.0) / count) } else { gamma.zeros_like() };
        (Tensor::new(output), Tensor::new(mean), Tensor::new(variance))
    }

    fn train_backward(
        x: Tensor,
        gamma: Tensor,
        mean: Tensor,
        variance: Tensor,
        gradient: Tensor,
        epsilon: f64,
    ) -> (Tensor, Tensor, Tensor) {
        // The backward of PyTorch's operation is not reachable from here. This is the same in six passes.
        let (x, g) = (&x.tensor, &gradient.tensor);
        let size = x.size();
        let count = (size.iter().product::<i64>() / size[1].max(1)) as f64;
        let inverse = (&variance.tensor + epsilon).rsqrt();
        let over = [0i64, 2, 3].as_slice();
        let sum = g.sum_dim_intlist(over, false, None);
        let centred = x - mean.tensor.reshape([1, size[1], 1, 1]);
        let of_gamma = (g * &centred).sum_dim_intlist(over, false, None) * &inverse;
        let scale = &gamma.tensor * &inverse;
        let of_x = &scale * &inverse * &of_gamma * (-1.0 / count);
        let constant = &scale * &sum * (-1.0 / count);
        // The centred input times one number per channel plus another: batch norm with given statistics, in one pass.
        let (zero, one) = (mean.tensor.zeros_like(), mean.tensor.ones_like());
        let (line, ..) =
            centred.native_batch_norm(Some(&of_x), Some(&constant), Some(&zero), Some(&one), false, 0.0, 0.0);
        let scale = scale.reshape([1, size[1], 1, 1]);
        let of_x = line.addcmul(g, &scale);
        (Tensor::new(of_x), Tensor::new(of_gamma), Tensor::new(sum))
    }

    fn inference(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: f64) -> Tensor {
        let (output, ..) = x.tensor.native_batch_norm(
            Some(&gamma.tensor),
            Some(&beta.tensor),
            Some(&mean.tensor),
            Some(&variance.tensor),
            false,
            0.0,
            epsilon,
        );
        Tensor::new(output)
    }
}
