//! Losses on logits in one pass over memory, where the backend has a kernel for them.
//!
//! Composed from tensor operations a loss on logits reads and writes a matrix of the student's size a dozen times. A
//! kernel reads student and teacher once and writes the gradient once: values and gradient are computed together, and
//! the backward pass scales what is there. Everything else takes the composed form, which is also what the kernels are
//! tested against.

#[cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")
)]
#[cfg_attr(
    not(feature = "cpu"),
    allow(unused_variables, reason = "without a backend that has the sparse kernel there is nothing to call")
)]
mod backend;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(all(feature = "fusion", feature = "cube"))]
mod meta;
#[cfg_attr(feature = "libtorch", allow(deprecated, reason = "as above"))]
mod path;
mod spec;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

pub use path::KernelPath;
pub(crate) use spec::{Divergence, Spec};

use self::{
    backend::{DenseKernel, KnownGradient},
    path::Backend,
};
use crate::{Mask, SparseLogits, Tail, TeacherLogits};
use backend::SparseKernel;
use spec::TopK;

/// A loss on logits for which the backend of its inputs has a kernel.
pub(crate) struct Fused {
    backend: Backend,
    spec: Spec,
}

impl Fused {
    /// The weighted values of the rows, `[rows]` in f32, as a node of the student's graph.
    ///
    /// `weights` is `[rows]` or `[1]`, a weight of 0 for rows that do not count. `targets` is `[rows]` where the
    /// [`Spec`] needs them.
    pub(crate) fn rows<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: TeacherLogits,
        weights: Tensor<1>,
        targets: Option<Tensor<1, Int>>,
    ) -> Tensor<1> {
        let dims = student_logits.dims();
        let student = student_logits.reshape([dims[..D - 1].iter().product(), dims[D - 1]]);
        if student.is_tracked() {
            let (values, gradient) =
                self.gradient(student.clone().without_autodiff(), teacher_logits, weights, targets);
            return with_gradient(values, student, gradient);
        }
        let (student, targets) = (student.without_autodiff(), placeholder(targets, &weights));
        match teacher_logits {
            TeacherLogits::Dense(teacher) => Tensor::from_dispatch(Dispatch::dense_values(
                student.into_dispatch(),
                teacher.without_autodiff().into_dispatch(),
                weights.into_dispatch(),
                targets.into_dispatch(),
                self.spec,
            )),
            TeacherLogits::Sparse(teacher) => self.sparse(student, &teacher, weights, targets, false).0,
        }
    }

    /// Weighted values `[rows]` in f32, and the gradient of their sum, of the student's shape and type. No graph.
    pub(crate) fn gradient(
        &self,
        student: Tensor<2>,
        teacher_logits: TeacherLogits,
        weights: Tensor<1>,
        targets: Option<Tensor<1, Int>>,
    ) -> (Tensor<1>, Tensor<2>) {
        let targets = placeholder(targets, &weights);
        match teacher_logits {
            TeacherLogits::Dense(teacher) => {
                let (values, gradient) = Dispatch::dense_gradient(
                    student.into_dispatch(),
                    teacher.without_autodiff().into_dispatch(),
                    weights.into_dispatch(),
                    targets.into_dispatch(),
                    self.spec,
                );
                (Tensor::from_dispatch(values), Tensor::from_dispatch(gradient))
            }
            TeacherLogits::Sparse(teacher) => self.sparse(student, &teacher, weights, targets, true),
        }
    }

    fn sparse(
        &self,
        student: Tensor<2>,
        teacher: &SparseLogits,
        weights: Tensor<1>,
        targets: Tensor<1, Int>,
        gradient: bool,
    ) -> (Tensor<1>, Tensor<2>) {
        debug_assert!(self.backend == Backend::Cpu, "only the CPU has a kernel for sparse teachers");
        let whole = teacher.k() == teacher.vocabulary() || teacher.tail() == Tail::Zero;
        let tail = match teacher.tail() {
            Tail::Bucket | Tail::Drop if !whole => teacher.tail_log_probs(),
            _ => Tensor::zeros([teacher.rows(), 1], &weights.device()),
        };
        let (values, gradient) = Dispatch::sparse(
            student.into_dispatch(),
            teacher.indices().clone().into_dispatch(),
            teacher.log_probs().clone().into_dispatch(),
            tail.into_dispatch(),
            weights.into_dispatch(),
            targets.into_dispatch(),
            self.spec,
            TopK { temperature: teacher.temperature(), tail: teacher.tail(), whole },
            gradient,
        );
        // Without a gradient there is an empty tensor in its place, of one dimension.
        (Tensor::from_dispatch(values), Tensor::from_dispatch(gradient))
    }
}

/// `values` whose gradient to `input` is known.
pub(crate) fn with_gradient<const D: usize>(values: Tensor<1>, input: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::with_gradient(
        values.into_dispatch(),
        input.into_dispatch(),
        gradient.into_dispatch(),
    ))
}

fn placeholder(targets: Option<Tensor<1, Int>>, weights: &Tensor<1>) -> Tensor<1, Int> {
    targets.unwrap_or_else(|| Tensor::zeros([1], &weights.device()))
}

/// The weight of each row: 1, or 0 where the mask leaves it out; `[1]` without a mask.
pub(crate) fn row_weights(mask: &Mask, student_device: &burn::tensor::Device) -> Tensor<1> {
    let device = student_device.clone().without_autodiff();
    match mask.rows() {
        Some(rows) => rows.clone().float().cast(burn::tensor::DType::F32),
        None => Tensor::ones([1], (&device, burn::tensor::DType::F32)),
    }
}
