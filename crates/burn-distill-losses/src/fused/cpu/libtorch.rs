//! The memory of `libtorch` on the CPU.

use std::{mem::MaybeUninit, slice};

use burn::backend::{
    LibTorch, TensorMetadata,
    ops::{FloatTensorOps, IntTensorOps},
    tensor::FloatTensor,
};
use burn::tensor::{DType, FloatDType, IntDType, TensorData};
use half::{bf16, f16};

use super::{dense, inputs::Inputs, memory, rows::Rows, sparse::Teacher};
use crate::fused::{
    backend::{DenseKernel, KnownGradient, SparseKernel, broadcast_rows},
    spec::{Spec, TopK},
};

type Tensor = FloatTensor<LibTorch>;

impl DenseKernel for LibTorch {
    fn dense_values(student: Tensor, teacher: Tensor, weights: Tensor, targets: Tensor, spec: Spec) -> Tensor {
        let (student, teacher) = (float_rows(student), float_rows(teacher));
        let inputs = inputs(&spec, &student, weights, targets);
        float_tensor(dense::values(&inputs, &rows(&student), &rows(&teacher)), &student)
    }

    fn dense_gradient(
        student: Tensor,
        teacher: Tensor,
        weights: Tensor,
        targets: Tensor,
        spec: Spec,
    ) -> (Tensor, Tensor) {
        let (student, mut teacher) = (float_rows(student), float_rows(teacher));
        let inputs = inputs(&spec, &student, weights, targets);
        let own = rows(&student);
        let ours = teacher.can_mut() && teacher.dtype() == DType::F32 && teacher.shape() == student.shape();
        let (values, gradient) = match student.dtype() {
            DType::F16 => {
                fresh(&student, |slots: &mut [f16]| dense::half_gradient(&inputs, &own, &rows(&teacher), slots))
            }
            DType::BF16 => {
                fresh(&student, |slots: &mut [bf16]| dense::half_gradient(&inputs, &own, &rows(&teacher), slots))
            }
            // Nobody else holds the teacher's logits: the gradient goes over them, and nothing is allocated.
            _ if ours => (dense::gradient_over(&inputs, &own, elements_mut(&mut teacher)), teacher),
            _ => {
                fresh(&student, |slots: &mut [MaybeUninit<f32>]| dense::gradient(&inputs, &own, &rows(&teacher), slots))
            }
        };
        (float_tensor(values, &student), gradient)
    }
}

impl SparseKernel for LibTorch {
    fn sparse(
        student: Tensor,
        indices: Tensor,
        log_probs: Tensor,
        tail: Tensor,
        weights: Tensor,
        targets: Tensor,
        spec: Spec,
        top_k: TopK,
        gradient: bool,
    ) -> (Tensor, Tensor) {
        let student = float_rows(student);
        let (log_probs, tail) = (float_rows(log_probs), float_rows(tail));
        let inputs = inputs(&spec, &student, weights, targets);
        let teacher = Teacher { indices: class_ids(indices), log_probs: rows(&log_probs), tail: rows(&tail), top_k };
        let own = rows(&student);
        if !gradient {
            return (float_tensor(teacher.values(&inputs, &own), &student), float_tensor(Vec::new(), &student));
        }
        let (values, gradient) = match student.dtype() {
            DType::F16 => fresh(&student, |slots: &mut [f16]| teacher.half_gradient(&inputs, &own, slots)),
            DType::BF16 => fresh(&student, |slots: &mut [bf16]| teacher.half_gradient(&inputs, &own, slots)),
            _ => fresh(&student, |slots: &mut [MaybeUninit<f32>]| teacher.gradient(&inputs, &own, slots)),
        };
        (float_tensor(values, &student), gradient)
    }
}

impl KnownGradient for LibTorch {
    fn scale_rows(gradient: Tensor, by: Tensor) -> Tensor {
        // A factor of 1, as that of a loss by itself, is not worth a pass over the gradient.
        let on_cpu = gradient.device() == burn::backend::libtorch::LibTorchDevice::Cpu;
        if on_cpu && by.dtype() == DType::F32 && floats(&by).iter().all(|by| *by == 1.0) {
            return gradient;
        }
        broadcast_rows::<Self>(gradient, by)
    }
}

fn inputs<'a>(spec: &'a Spec, student: &Tensor, weights: Tensor, targets: Tensor) -> Inputs<'a> {
    Inputs::new(spec, student.shape().dims(), floats(&weights), || class_ids(targets))
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    elements::<f32>(&Tensor::new(tensor.tensor.contiguous())).to_vec()
}

fn class_ids(tensor: Tensor) -> Vec<i64> {
    let tensor = LibTorch::int_cast(tensor, IntDType::I64);
    elements::<i64>(&Tensor::new(tensor.tensor.contiguous())).to_vec()
}

/// A vector beside `student`.
fn float_tensor(values: Vec<f32>, student: &Tensor) -> Tensor {
    let length = values.len();
    LibTorch::float_from_data(TensorData::new(values, [length]), &student.device())
}

/// `tensor` in f32 or half precision, contiguous.
fn float_rows(tensor: Tensor) -> Tensor {
    let tensor = match tensor.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => tensor,
        _ => LibTorch::float_cast(tensor, FloatDType::F32),
    };
    if tensor.tensor.is_contiguous() { tensor } else { Tensor::new(tensor.tensor.contiguous()) }
}

/// The rows of what [`float_rows`] gave.
fn rows(tensor: &Tensor) -> Rows<'_> {
    let width = tensor.shape()[1];
    match tensor.dtype() {
        DType::F16 => Rows::F16(elements(tensor), width),
        DType::BF16 => Rows::BF16(elements(tensor), width),
        _ => Rows::F32(elements(tensor), width),
    }
}

/// A tensor like `student` of which `fill` writes every element, beside what it gives back.
fn fresh<T, R>(student: &Tensor, fill: impl FnOnce(&mut [T]) -> R) -> (R, Tensor) {
    let mut tensor = Tensor::new(student.tensor.empty_like());
    let slots = elements_mut(&mut tensor);
    memory::prefer_huge_pages(slots);
    let result = fill(slots);
    (result, tensor)
}

/// The elements of a contiguous tensor on the CPU.
#[expect(unsafe_code, reason = "PyTorch hands out its memory as a pointer")]
fn elements<T>(tensor: &Tensor) -> &[T] {
    let count = count::<T>(tensor);
    if count == 0 {
        return &[];
    }
    // SAFETY: `count` has looked at the place, the layout and the size of the elements; the tensor lives as long as
    // the slice, and PyTorch's operations on the CPU are done when they return.
    unsafe { slice::from_raw_parts(tensor.tensor.data_ptr().cast(), count) }
}

/// [`elements`] of a tensor that nobody else holds. `T` takes any bits.
#[expect(unsafe_code, reason = "PyTorch hands out its memory as a pointer")]
fn elements_mut<T>(tensor: &mut Tensor) -> &mut [T] {
    assert!(tensor.can_mut(), "somebody else holds this tensor");
    let count = count::<T>(tensor);
    if count == 0 {
        return &mut [];
    }
    // SAFETY: as in `elements`, and no other handle of this memory exists.
    unsafe { slice::from_raw_parts_mut(tensor.tensor.data_ptr().cast(), count) }
}

fn count<T>(tensor: &Tensor) -> usize {
    assert_eq!(tensor.device(), burn::backend::libtorch::LibTorchDevice::Cpu, "memory of the CPU");
    assert!(tensor.tensor.is_contiguous(), "contiguous memory");
    assert_eq!(tensor.dtype().size(), size_of::<T>(), "elements of {:?}", tensor.dtype());
    tensor.tensor.numel()
}
