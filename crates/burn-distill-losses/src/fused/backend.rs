//! The operations that backends have kernels for, and the one that gives a computed gradient to Burn's autodiff.

use burn::backend::{
    Autodiff, Backend, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::Shape;

use super::spec::{Spec, TopK};

/// Rows of dense logits.
///
/// `student` is `[rows, classes]`, `teacher` `[rows, its classes]`. `weights` is `[rows]`, or `[1]` for all; a row of
/// weight 0 is not read. `targets` is `[rows]`, or anything of one element where the [`Spec`] needs none.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    LibTorch: cfg(feature = "libtorch"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(all(feature = "fusion", feature = "cube"))
)]
pub(crate) trait DenseKernel: Backend {
    /// Weighted values, `[rows]`.
    #[fusion(meta = |student, _, _, _, _| super::meta::values(student))]
    fn dense_values(
        student: FloatTensor<Self>,
        teacher: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        targets: IntTensor<Self>,
        spec: Spec,
    ) -> FloatTensor<Self>;

    /// Weighted values `[rows]`, and the gradient of their sum to the student, of its shape and type.
    #[fusion(meta = |student, _, _, _, _| (super::meta::values(student), student.clone()))]
    fn dense_gradient(
        student: FloatTensor<Self>,
        teacher: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        targets: IntTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Rows of a teacher's top k: class ids and log-probabilities `[rows, k]`, and the log-probability of the rest, `[rows]`.
#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "libtorch"))]
pub(crate) trait SparseKernel: Backend {
    /// Weighted values `[rows]`, and with `gradient` that of their sum to the student (else an empty tensor).
    #[allow(clippy::too_many_arguments, reason = "a backend extension takes tensors one by one")]
    fn sparse(
        student: FloatTensor<Self>,
        indices: IntTensor<Self>,
        log_probs: FloatTensor<Self>,
        tail: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        targets: IntTensor<Self>,
        spec: Spec,
        top_k: TopK,
        gradient: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Makes values that were computed with their gradient part of the graph.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    LibTorch: cfg(feature = "libtorch"),
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub(crate) trait KnownGradient: Backend {
    /// `values`, `[n]`, of which `gradient` (of `input`'s shape, `[n, ..]`) is the derivative to `input` row by row; or
    /// `[1]` with the derivative of that one value.
    fn with_gradient(
        values: FloatTensor<Self>,
        input: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (input, gradient);
        values
    }

    /// Each row of `gradient` times its element of `by`, `[n]` or `[1]`.
    fn scale_rows(gradient: FloatTensor<Self>, by: FloatTensor<Self>) -> FloatTensor<Self> {
        broadcast_rows::<Self>(gradient, by)
    }
}

/// [`KnownGradient::scale_rows`] in tensor operations.
pub(super) fn broadcast_rows<B: Backend>(gradient: FloatTensor<B>, by: FloatTensor<B>) -> FloatTensor<B> {
    let mut shape = vec![1; gradient.shape().num_dims()];
    shape[0] = by.shape()[0];
    let by = B::float_reshape(by, Shape::from(shape));
    let by = if by.dtype() == gradient.dtype() { by } else { B::float_cast(by, gradient.dtype().into()) };
    B::float_mul(gradient, by)
}

#[cfg(feature = "cube")]
impl KnownGradient for burn::backend::Cube {}

#[derive(Debug)]
struct ScaleKnown;

impl<B: KnownGradient> Backward<B, 1> for ScaleKnown {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let by = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::scale_rows(ops.state, by));
        }
    }
}

impl<B: KnownGradient, C: CheckpointStrategy> KnownGradient for Autodiff<B, C> {
    fn with_gradient(
        values: FloatTensor<Self>,
        input: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (_, node) = input.into_parts();
        match ScaleKnown.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient.into_primitive(), values.into_primitive()),
            OpsKind::UnTracked(prep) => prep.finish(values.into_primitive()),
        }
    }
}
