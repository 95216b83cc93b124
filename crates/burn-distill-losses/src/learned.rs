//! Learned layers in the type that the loss is computed in, whatever their own.

use burn::{
    nn::{
        Linear, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{DType, Device, Tensor, module, ops::ConvOptions},
};

/// A parameter in the type of what it meets; its gradient comes back in its own.
pub(crate) fn in_type<const D: usize>(parameter: Tensor<D>, dtype: DType) -> Tensor<D> {
    if parameter.dtype() == dtype { parameter } else { parameter.cast(dtype) }
}

/// The layer's output, `[rows, outputs]`.
pub(crate) fn linear(layer: &Linear, input: Tensor<2>) -> Tensor<2> {
    let dtype = input.dtype();
    let bias = layer.bias.as_ref().map(|bias| in_type(bias.val(), dtype));
    module::linear(input, in_type(layer.weight.val(), dtype), bias)
}

/// A convolution with an odd `kernel` that keeps height and width, with fresh weights (Burn's default, which is
/// PyTorch's).
pub(crate) fn conv_layer(channels: [usize; 2], kernel: usize, bias: bool, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new(channels, [kernel, kernel]).with_padding(PaddingConfig2d::Same);
    config.with_bias(bias).init(device)
}

/// The output of a [`conv_layer`], `[batch, channels, height, width]`.
pub(crate) fn conv(layer: &Conv2d, input: Tensor<4>) -> Tensor<4> {
    let dtype = input.dtype();
    let bias = layer.bias.as_ref().map(|bias| in_type(bias.val(), dtype));
    let options = ConvOptions::new([1, 1], layer.kernel_size.map(|side| side / 2), [1, 1], 1);
    module::conv2d(input, in_type(layer.weight.val(), dtype), bias, options)
}
