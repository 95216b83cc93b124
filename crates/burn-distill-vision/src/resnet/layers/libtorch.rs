//! Layers on `libtorch`: PyTorch's own operations, which Burn's backend does not call, and on the CPU our backward of batch
//! norm.

use std::slice;

use burn::backend::{LibTorch, TensorMetadata, libtorch::LibTorchDevice, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, TensorData};

use super::{backend::LayerKernel, cpu::Planes};

type Tensor = FloatTensor<LibTorch>;

impl LayerKernel for LibTorch {
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
        // The backward of PyTorch's operation is not reachable from here.
        let (x, mut gradient) = (contiguous(x), contiguous(gradient));
        if x.device() != LibTorchDevice::Cpu {
            return composed_backward(&x, &gamma, &mean, &variance, &gradient, epsilon);
        }
        let [gamma, mean, variance] = [gamma, mean, variance].map(contiguous);
        let planes = Planes::new(x.shape().dims());
        let statistics = [memory(&mean), memory(&variance)];
        let gradients = planes.backward(memory(&x), memory(&gradient), memory(&gamma), statistics, epsilon);
        if gradient.can_mut() {
            gradients.replace(memory(&x), memory_mut(&mut gradient));
        } else {
            let mut output = Tensor::new(gradient.tensor.empty_like());
            gradients.write(memory(&x), memory(&gradient), memory_mut(&mut output));
            gradient = output;
        }
        let vector = |values: Vec<f32>| {
            let length = values.len();
            LibTorch::float_from_data(TensorData::new(values, [length]), &LibTorchDevice::Cpu)
        };
        (gradient, vector(gradients.of_gamma), vector(gradients.of_beta))
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

/// On a GPU: the backward pass in six operations over the input.
fn composed_backward(
    x: &Tensor,
    gamma: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    gradient: &Tensor,
    epsilon: f64,
) -> (Tensor, Tensor, Tensor) {
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
    let (line, ..) = centred.native_batch_norm(Some(&of_x), Some(&constant), Some(&zero), Some(&one), false, 0.0, 0.0);
    let of_x = line.addcmul(g, &scale.reshape([1, size[1], 1, 1]));
    (Tensor::new(of_x), Tensor::new(of_gamma), Tensor::new(sum))
}

fn contiguous(tensor: Tensor) -> Tensor {
    if tensor.tensor.is_contiguous() { tensor } else { Tensor::new(tensor.tensor.contiguous()) }
}

/// The elements of a contiguous tensor of f32 on the CPU.
#[expect(unsafe_code, reason = "PyTorch hands out its memory as a pointer")]
fn memory(tensor: &Tensor) -> &[f32] {
    let elements = elements(tensor);
    if elements == 0 {
        return &[];
    }
    // SAFETY: `elements` has looked at the place, the layout and the type; the tensor lives as long as the slice, and
    // PyTorch's operations on the CPU are done when they return.
    unsafe { slice::from_raw_parts(tensor.tensor.data_ptr().cast(), elements) }
}

/// [`memory`] of a tensor that nobody else holds.
#[expect(unsafe_code, reason = "PyTorch hands out its memory as a pointer")]
fn memory_mut(tensor: &mut Tensor) -> &mut [f32] {
    assert!(tensor.can_mut(), "somebody else holds this tensor");
    let elements = elements(tensor);
    if elements == 0 {
        return &mut [];
    }
    // SAFETY: as in `memory`, and no other handle of this memory exists.
    unsafe { slice::from_raw_parts_mut(tensor.tensor.data_ptr().cast(), elements) }
}

fn elements(tensor: &Tensor) -> usize {
    assert_eq!(tensor.device(), LibTorchDevice::Cpu, "memory of the CPU");
    assert!(tensor.tensor.is_contiguous() && tensor.dtype() == DType::F32, "contiguous memory of f32");
    tensor.tensor.numel()
}
