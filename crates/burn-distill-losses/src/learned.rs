//! Learned layers in the type that the loss is computed in, whatever their own.

use burn::{
    nn::Linear,
    tensor::{DType, Tensor, module},
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
