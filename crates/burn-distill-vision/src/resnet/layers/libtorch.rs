//! Layers on `libtorch`: PyTorch's own operations, which Burn's backend does not call.
//!
//! PyTorch's backward passes of a convolution and of batch norm are one operation each, which cannot be called from here
//! by themselves. So the forward pass is recorded by PyTorch's autograd, and the backward pass asks that for gradients.
//! Threads of our own would disturb PyTorch's, which wait for work in a loop.

use burn::backend::{LibTorch, tensor::FloatTensor};

use super::backend::LayerKernel;

type Tensor = FloatTensor<LibTorch>;

impl LayerKernel for LibTorch {
    fn train(
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        epsilon: f64,
    ) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
        let [x, gamma, beta] = [x, gamma, beta].map(|tensor| recorded(&tensor));
        // With a momentum of 1 the running statistics become those of the batch, the variance the unbiased one.
        let [mean, variance] = [0, 1].map(|_| gamma.tensor.detach().zeros_like());
        let (output, ..) = x.tensor.native_batch_norm(
            Some(&gamma.tensor),
            Some(&beta.tensor),
            Some(&mean),
            Some(&variance),
            true,
            1.0,
            epsilon,
        );
        let size = output.size();
        let count = (size.iter().product::<i64>() / size[1].max(1)) as f64;
        let variance = if count > 1.0 { variance * ((count - 1.0) / count) } else { variance.zeros_like() };
        let output = Tensor::new(output);
        // PyTorch's graph keeps the running statistics and must find them as they are; Burn may write over its tensors.
        let mean = Tensor::new(mean.copy());
        (detached(&output), mean, Tensor::new(variance), x, gamma, beta, output)
    }

    fn train_backward(
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        output: Tensor,
        gradient: Tensor,
        _: f64,
    ) -> (Tensor, Tensor, Tensor) {
        let [of_x, of_gamma, of_beta] = backward(&output, &gradient, [&x, &gamma, &beta]);
        (of_x, of_gamma, of_beta)
    }

    fn convolve(
        x: Tensor,
        weight: Tensor,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> (Tensor, Tensor, Tensor, Tensor) {
        let (x, weight) = (recorded(&x), recorded(&weight));
        let [stride, padding] = [stride, padding].map(|pair| pair.map(|n| n as i64));
        let output = Tensor::new(x.tensor.conv2d(&weight.tensor, None::<tch::Tensor>, stride, padding, [1, 1], 1));
        (detached(&output), x, weight, output)
    }

    fn convolve_backward(
        x: Tensor,
        weight: Tensor,
        output: Tensor,
        gradient: Tensor,
        _: [usize; 2],
        _: [usize; 2],
        wanted: [bool; 2],
    ) -> (Tensor, Tensor) {
        match wanted {
            [true, true] => {
                let [of_x, of_weight] = backward(&output, &gradient, [&x, &weight]);
                (of_x, of_weight)
            }
            [true, false] => {
                let [of_x] = backward(&output, &gradient, [&x]);
                (of_x, weight)
            }
            _ => {
                let [of_weight] = backward(&output, &gradient, [&weight]);
                (x, of_weight)
            }
        }
    }

    fn rectify_backward(output: Tensor, gradient: Tensor) -> Tensor {
        Tensor::new(output.tensor.threshold_backward(&gradient.tensor, 0))
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

/// `tensor` as a leaf of PyTorch's graph.
fn recorded(tensor: &Tensor) -> Tensor {
    Tensor { tensor: tensor.tensor.detach().set_requires_grad(true), storage: tensor.storage.clone() }
}

/// `tensor` outside of PyTorch's graph.
fn detached(tensor: &Tensor) -> Tensor {
    Tensor { tensor: tensor.tensor.detach(), storage: tensor.storage.clone() }
}

/// The gradients of `Σ output gradient`: PyTorch's autograd starts from a number.
fn backward<const N: usize>(output: &Tensor, gradient: &Tensor, inputs: [&Tensor; N]) -> [Tensor; N] {
    let product = output.tensor.reshape([-1]).dot(&gradient.tensor.reshape([-1]));
    let gradients = tch::Tensor::run_backward(&[product], &inputs.map(|input| &input.tensor), false, false);
    let gradients: Vec<_> = gradients.into_iter().map(Tensor::new).collect();
    gradients.try_into().expect("a gradient for each input")
}
