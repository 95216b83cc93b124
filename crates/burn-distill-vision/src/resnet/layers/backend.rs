//! Convolution, batch norm and ReLU as operations of a backend.

use burn::backend::{
    Autodiff, AutodiffBackend, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::ops::ConvOptions;

#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "libtorch"), Autodiff)]
pub(crate) trait LayerKernel: Backend {
    /// `x` `[batch, channels, height, width]` normalised by its own statistics, then times `gamma` plus `beta`
    /// `[channels]`; the mean and the biased variance of each channel; and the four tensors that `train_backward` takes.
    #[allow(clippy::type_complexity, reason = "a backend extension gives tensors one by one")]
    fn train(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let result = Self::batch_norm_train(x.clone(), gamma.clone(), beta, epsilon);
        let (mean, variance) = (result.mean, result.variance);
        (result.output, mean.clone(), variance.clone(), x, gamma, mean, variance)
    }

    /// Gradients of `train` to `x`, `gamma` and `beta`.
    fn train_backward(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        fourth: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, gamma, mean, variance) = (first, second, third, fourth);
        let result = Self::batch_norm_train_backward(x, gamma, mean, variance, epsilon, gradient);
        (result.x_grad, result.gamma_grad, result.beta_grad)
    }

    /// `x` normalised by given statistics.
    fn inference(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        Self::batch_norm(x, gamma, beta, mean, variance, epsilon)
    }

    /// The convolution of `x` `[batch, channels, height, width]` with `weight`, and what its backward pass needs: input,
    /// weight and output.
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let output = Self::conv2d(x.clone(), weight.clone(), None, ConvOptions::new(stride, padding, [1, 1], 1));
        (output.clone(), x, weight, output)
    }

    /// Gradients of `convolve` to `x` and `weight`: those that are wanted, and anything for the others.
    #[allow(clippy::too_many_arguments, reason = "a backend extension takes tensors one by one")]
    fn convolve_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        output: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
        wanted: [bool; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (output, wanted);
        let options = ConvOptions::new(stride, padding, [1, 1], 1);
        let of_x = Self::conv2d_x_backward(x.clone(), weight.clone(), gradient.clone(), options.clone());
        (of_x, Self::conv2d_weight_backward(x, weight, gradient, options))
    }

    /// `max(x, 0)`
    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu(x)
    }

    /// Gradient of `rectify` to its input.
    fn rectify_backward(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu_backward(output, gradient)
    }
}

#[derive(Debug)]
struct TrainBackward;

impl<B: LayerKernel> Backward<B, 3> for TrainBackward {
    /// What `train` kept, and epsilon.
    type State = ([FloatTensor<B>; 4], f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let ([first, second, third, fourth], epsilon) = ops.state;
        let (of_x, of_gamma, of_beta) = B::train_backward(first, second, third, fourth, gradient, epsilon);
        for (node, gradient) in ops.parents.into_iter().zip([of_x, of_gamma, of_beta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct RectifyBackward;

impl<B: LayerKernel> Backward<B, 1> for RectifyBackward {
    /// Output.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::rectify_backward(ops.state, gradient));
        }
    }
}

#[derive(Debug)]
struct ConvolveBackward;

impl<B: LayerKernel> Backward<B, 2> for ConvolveBackward {
    /// Input, weight, output, stride, padding.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, [usize; 2], [usize; 2]);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, output, stride, padding) = ops.state;
        let wanted = [0, 1].map(|parent| ops.parents[parent].is_some());
        let (of_x, of_weight) = B::convolve_backward(x, weight, output, gradient, stride, padding, wanted);
        for (node, gradient) in ops.parents.into_iter().zip([of_x, of_weight]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LayerKernel, C: CheckpointStrategy> LayerKernel for Autodiff<B, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let ((x_inner, x_node), (weight_inner, weight_node)) = (x.clone().into_parts(), weight.clone().into_parts());
        let output = match ConvolveBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (output, x, weight, kept) = B::convolve(x_inner, weight_inner, stride, padding);
                prep.finish((x, weight, kept, stride, padding), output)
            }
            OpsKind::UnTracked(prep) => {
                let options = ConvOptions::new(stride, padding, [1, 1], 1);
                prep.finish(B::conv2d(x_inner, weight_inner, None, options))
            }
        };
        (output.clone(), x, weight, output)
    }

    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::rectify(x);
        match RectifyBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn train(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let ((x, x_node), (gamma, gamma_node), (beta, beta_node)) =
            (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let (output, mean, variance, first, second, third, fourth) = B::train(x, gamma, beta, epsilon);
        let kept = [first, second, third, fourth];
        let [first, second, third, fourth] = kept.clone().map(Self::from_inner);
        let output = match TrainBackward.prepare::<C>([x_node, gamma_node, beta_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((kept, epsilon), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, Self::from_inner(mean), Self::from_inner(variance), first, second, third, fourth)
    }
}
