//! Layers in few passes over memory, and batch norm with PyTorch's running variance.
//!
//! In a ResNet for small images batch norm and ReLU read and write as much as all convolutions do. Burn composes batch
//! norm of tensor operations, a dozen passes forward and more backward; here it is one pass for the statistics and one for
//! the output, and twice the same backward: by hand on `flex`, by PyTorch's own operation on `libtorch`, and Burn's
//! elsewhere. The backward pass of Burn's ReLU makes a mask and fills it in; here it is one pass. On `libtorch` the backward
//! pass of a convolution is PyTorch's as well, which Burn makes of two more convolutions.

#[cfg_attr(
    not(any(feature = "flex", feature = "libtorch")),
    allow(unused_variables, reason = "without a backend that has kernels there is nothing to call")
)]
#[cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")
)]
mod backend;
#[cfg(feature = "flex")]
mod cpu;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "as above")]
mod libtorch;

use burn::backend::Dispatch;
#[cfg(any(feature = "flex", feature = "libtorch"))]
use burn::backend::DispatchDevice;
use burn::nn::{BatchNorm, PaddingConfig2d, conv::Conv2d};
use burn::tensor::{Device, Tensor, activation, module::batch_norm_train};

use backend::LayerKernel;

/// Batch norm whose running variance follows PyTorch.
///
/// Where [`BatchNorm`] trains, it normalises by the biased variance, as PyTorch does, but averages that same variance
/// into `running_var`, where PyTorch averages the unbiased one: n / (n - 1) times as large for n values per channel
/// (1.6% for 64 values, 0.002% for 50,000).
pub(super) fn batch_norm(norm: &BatchNorm, x: Tensor<4>) -> Tensor<4> {
    let device = x.device();
    if !(device.is_autodiff() && norm.training.is_enabled()) {
        return inference(norm, x);
    }
    let [batch, _, height, width] = x.dims();
    let count = batch * height * width;
    let (output, mean, variance) = train(x, norm.gamma.val(), norm.beta.val(), norm.epsilon);
    let unbiased = count as f64 / count.saturating_sub(1).max(1) as f64;
    let average = |running: Tensor<1>, current: Tensor<1>, factor: f64| {
        let running = running.to_device(&device) * (1.0 - norm.momentum);
        (running + current.detach() * (norm.momentum * factor)).detach()
    };
    norm.running_mean.update(average(norm.running_mean.value_sync(), mean, 1.0));
    norm.running_var.update(average(norm.running_var.value_sync(), variance, unbiased));
    output
}

/// A convolution.
pub(super) fn convolve(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let device = x.device();
    let plain = conv.bias.is_none() && conv.dilation == [1, 1] && conv.groups == 1;
    match conv.padding {
        PaddingConfig2d::Explicit(top, left, bottom, right)
            if plain
                && (top, left) == (bottom, right)
                && device.is_autodiff()
                && !is_checkpointed(&device)
                && has_backward_of_convolution(&device) =>
        {
            let (x, weight) = (x.into_dispatch(), conv.weight.val().into_dispatch());
            Tensor::from_dispatch(Dispatch::convolve(x, weight, conv.stride, [top, left]).0)
        }
        _ => conv.forward(x),
    }
}

/// `max(x, 0)`
pub(super) fn relu(x: Tensor<4>) -> Tensor<4> {
    if is_checkpointed(&x.device()) || !has_kernel(&x) {
        return activation::relu(x);
    }
    Tensor::from_dispatch(Dispatch::rectify(x.into_dispatch()))
}

/// Output, mean and biased variance of the batch.
fn train(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    if !has_kernel(&x) {
        let result = batch_norm_train(x, gamma, beta, epsilon);
        return (result.output, result.mean, result.variance);
    }
    let (output, mean, variance, ..) =
        Dispatch::train(x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch(), epsilon);
    (Tensor::from_dispatch(output), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

fn inference(norm: &BatchNorm, x: Tensor<4>) -> Tensor<4> {
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    let device = x.device();
    // A frozen layer that a gradient goes through is Burn's to differentiate, and gradient checkpointing its to keep.
    let differentiated = x.is_tracked() || gamma.is_tracked() || beta.is_tracked();
    if differentiated || is_checkpointed(&device) || !has_kernel(&x) {
        return norm.forward(x);
    }
    let constant = |value: Tensor<1>| value.to_device(&device).without_autodiff().into_dispatch();
    let output = Tensor::from_dispatch(Dispatch::inference(
        x.without_autodiff().into_dispatch(),
        constant(gamma),
        constant(beta),
        constant(norm.running_mean.value()),
        constant(norm.running_var.value()),
        norm.epsilon,
    ));
    if device.is_autodiff() { output.autodiff() } else { output }
}

/// Whether activations are to be computed again in the backward pass.
fn is_checkpointed(device: &Device) -> bool {
    device.is_autodiff() && *device != device.clone().without_autodiff().autodiff()
}

fn has_backward_of_convolution(device: &Device) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "libtorch")]
        DispatchDevice::LibTorch(_) => true,
        #[allow(unreachable_patterns, reason = "which backends there are is decided by features")]
        _ => false,
    }
}

#[cfg(any(feature = "flex", feature = "libtorch"))]
fn has_kernel(x: &Tensor<4>) -> bool {
    let device = x.device().without_autodiff();
    let backend = match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "libtorch")]
        DispatchDevice::LibTorch(_) => true,
        #[allow(unreachable_patterns, reason = "which backends there are is decided by features")]
        _ => false,
    };
    backend && x.dtype() == burn::tensor::DType::F32
}

#[cfg(not(any(feature = "flex", feature = "libtorch")))]
fn has_kernel(_: &Tensor<4>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{BatchNormConfig, conv::Conv2dConfig};
    use burn::tensor::{Device, Distribution};

    use super::*;

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    fn assert_close(what: &str, got: Vec<f64>, expected: Vec<f64>) {
        let largest = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
        assert_eq!(got.len(), expected.len(), "{what}");
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 1e-5 * largest, "{what}, {i}: {got} instead of {expected}");
        }
    }

    /// A layer with weights of its own, and an input with another mean and scale per channel.
    fn layer(shape: [usize; 4], device: &Device) -> (BatchNorm, Tensor<4>) {
        let random = |shape| Tensor::<1>::random(shape, Distribution::Uniform(0.5, 2.0), device);
        let mut norm = BatchNormConfig::new(shape[1]).init(device);
        norm.gamma = norm.gamma.map(|_| random([shape[1]]));
        norm.beta = norm.beta.map(|_| random([shape[1]]));
        norm.running_mean.update(random([shape[1]]).detach());
        norm.running_var.update(random([shape[1]]).detach());
        let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), device);
        let scale = random([shape[1]]).mul_scalar(3.0).reshape([1, shape[1], 1, 1]);
        (norm, x * scale.clone() + scale * 2.0)
    }

    #[test]
    fn training_agrees_with_burns_in_output_statistics_and_gradients() {
        let device = burn_distill_dev::device().autodiff();
        for shape in [[3, 5, 4, 7], [1, 2, 3, 1], [16, 8, 33, 2], [2, 1, 1, 1], [5, 3, 16, 16]] {
            let (norm, x) = layer(shape, &device);
            let upstream = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let run = |ours: bool| {
                let x = x.clone().detach().require_grad();
                let weights = [&norm.gamma, &norm.beta].map(|weight| weight.val().detach().require_grad());
                let [gamma, beta] = weights.clone();
                let (output, mean, variance) = match ours {
                    true => train(x.clone(), gamma, beta, norm.epsilon),
                    false => {
                        let theirs = batch_norm_train(x.clone(), gamma, beta, norm.epsilon);
                        (theirs.output, theirs.mean, theirs.variance)
                    }
                };
                let gradients = (output.clone() * upstream.clone()).sum().backward();
                let of_x = numbers(x.grad(&gradients).unwrap());
                let of_weights = weights.map(|weight| numbers(weight.grad(&gradients).unwrap()));
                let [of_gamma, of_beta] = of_weights;
                [numbers(output), numbers(mean), numbers(variance), of_x, of_gamma, of_beta]
            };
            let names = ["output", "mean", "variance", "gradient", "gradient of gamma", "gradient of beta"];
            for ((name, got), expected) in names.iter().zip(run(true)).zip(run(false)) {
                assert_close(&format!("{name} of {shape:?}"), got, expected);
            }
        }
    }

    #[test]
    fn inference_agrees_with_burns() {
        let device = burn_distill_dev::device();
        for shape in [[3, 5, 4, 7], [1, 1, 1, 1], [4, 16, 16, 16]] {
            let (norm, x) = layer(shape, &device);
            assert_close("output", numbers(inference(&norm, x.clone())), numbers(norm.forward(x.clone())));
            let strided = x.clone().swap_dims(2, 3);
            assert_close("strided", numbers(inference(&norm, strided.clone())), numbers(norm.forward(strided)));
        }
    }

    #[test]
    fn convolution_agrees_with_burns_in_output_and_gradients() {
        let device = burn_distill_dev::device().autodiff();
        for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0), (1, 1, 0)] {
            let padding = PaddingConfig2d::Explicit(padding, padding, padding, padding);
            let config = Conv2dConfig::new([3, 5], [kernel; 2]).with_stride([stride; 2]).with_padding(padding);
            let conv = config.with_bias(false).init(&device);
            let x = Tensor::<4>::random([4, 3, 9, 6], Distribution::Normal(0.0, 1.0), &device);
            // Both gradients, and each of them alone.
            for (of_x, of_weight) in [(true, true), (true, false), (false, true)] {
                let conv = if of_weight { conv.clone() } else { conv.clone().no_grad() };
                let run = |ours: bool| {
                    let x = if of_x { x.clone().detach().require_grad() } else { x.clone().detach() };
                    let output = if ours { convolve(&conv, x.clone()) } else { conv.forward(x.clone()) };
                    let gradients = (output.clone() * output.clone()).sum().backward();
                    let of = |gradient: Option<Tensor<4>>| gradient.map(numbers).unwrap_or_default();
                    [numbers(output), of(x.grad(&gradients)), of(conv.weight.val().grad(&gradients))]
                };
                let names = ["output", "gradient", "gradient of the weight"];
                for ((name, got), expected) in names.iter().zip(run(true)).zip(run(false)) {
                    assert_eq!(
                        got.is_empty(),
                        *name != "output" && !(if *name == "gradient" { of_x } else { of_weight })
                    );
                    assert_close(&format!("{name}, kernel {kernel}, stride {stride}"), got, expected);
                }
            }
        }
    }

    #[test]
    fn relu_agrees_with_burns_in_output_and_gradient() {
        let device = burn_distill_dev::device().autodiff();
        for shape in [[1, 1, 2, 3], [4, 16, 33, 17]] {
            let x = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            // Zero has no slope, and a gradient that somebody else holds stays.
            let x = (x.clone() * x.clone().greater_elem(-0.5).float()).detach().require_grad();
            let upstream = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let run = |of: fn(Tensor<4>) -> Tensor<4>| {
                let x = x.clone().detach().require_grad();
                let output = of(x.clone());
                let gradients = (output.clone() * upstream.clone()).sum().backward();
                (numbers(output), numbers(x.grad(&gradients).unwrap()))
            };
            let before = numbers(x.clone());
            assert_eq!(run(relu), run(activation::relu), "{shape:?}");
            assert_eq!(numbers(x), before);
            let plain = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device.clone().without_autodiff());
            assert_eq!(numbers(relu(plain.clone().swap_dims(1, 2))), numbers(activation::relu(plain.swap_dims(1, 2))));
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_no_precision() {
        let device = burn_distill_dev::device().autodiff();
        let norm = BatchNormConfig::new(1).init(&device);
        let values: Vec<f32> = (0..4096).map(|i| 1e4 + (i % 7) as f32).collect();
        let x = Tensor::<1>::from_floats(values.as_slice(), &device).reshape([4, 1, 32, 32]);
        let (_, mean, variance) = train(x, norm.gamma.val(), norm.beta.val(), norm.epsilon);
        let exact = values.iter().map(|x| f64::from(*x)).sum::<f64>() / 4096.0;
        let spread = values.iter().map(|x| (f64::from(*x) - exact).powi(2)).sum::<f64>() / 4096.0;
        assert!((numbers(mean)[0] - exact).abs() < 1e-3);
        assert!((numbers(variance)[0] / spread - 1.0).abs() < 1e-5);
    }
}
