//! The memory of `flex`.

use burn::backend::{
    Flex, TensorMetadata,
    flex::FlexTensor,
    ops::{FloatTensorOps, IntTensorOps},
};
use burn::tensor::{DType, FloatDType, IntDType, Shape, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{
    dense,
    inputs::{Inputs, PARALLEL},
    memory,
    rows::{Half, Rows},
    sparse::Teacher,
};
use crate::fused::{
    backend::{DenseKernel, KnownGradient, SparseKernel, broadcast_rows},
    spec::{Spec, TopK},
};

impl DenseKernel for Flex {
    fn dense_values(
        student: FlexTensor,
        teacher: FlexTensor,
        weights: FlexTensor,
        targets: FlexTensor,
        spec: Spec,
    ) -> FlexTensor {
        let (student, teacher) = (float_rows(student), float_rows(teacher));
        let inputs = inputs(&spec, &student, weights, targets);
        float_tensor(dense::values(&inputs, &rows(&student), &rows(&teacher)), [inputs.rows])
    }

    fn dense_gradient(
        student: FlexTensor,
        teacher: FlexTensor,
        weights: FlexTensor,
        targets: FlexTensor,
        spec: Spec,
    ) -> (FlexTensor, FlexTensor) {
        let (student, mut teacher) = (float_rows(student), float_rows(teacher));
        let shape = student.shape();
        let inputs = inputs(&spec, &student, weights, targets);
        let (own, length) = (rows(&student), shape.num_elements());
        let (values, gradient) = match student.dtype() {
            DType::F16 => {
                halves(length, shape, |slots: &mut [f16]| dense::half_gradient(&inputs, &own, &rows(&teacher), slots))
            }
            DType::BF16 => {
                halves(length, shape, |slots: &mut [bf16]| dense::half_gradient(&inputs, &own, &rows(&teacher), slots))
            }
            // Nobody else holds the teacher's logits: the gradient goes over them, and nothing is allocated.
            _ if teacher.shape() == shape && is_ours(&teacher) => {
                let gradient = teacher.try_storage_mut::<f32>().expect("`is_ours` says that it is unique and f32");
                (dense::gradient_over(&inputs, &own, gradient), teacher)
            }
            _ => {
                let fill = |slots: &mut [_]| dense::gradient(&inputs, &own, &rows(&teacher), slots);
                let (values, gradient) = filled(length, fill);
                (values, float_tensor(gradient, shape))
            }
        };
        (float_tensor(values, [inputs.rows]), gradient)
    }
}

impl SparseKernel for Flex {
    fn sparse(
        student: FlexTensor,
        indices: FlexTensor,
        log_probs: FlexTensor,
        tail: FlexTensor,
        weights: FlexTensor,
        targets: FlexTensor,
        spec: Spec,
        top_k: TopK,
        gradient: bool,
    ) -> (FlexTensor, FlexTensor) {
        let student = float_rows(student);
        let (log_probs, tail) = (float_rows(log_probs), float_rows(tail));
        let inputs = inputs(&spec, &student, weights, targets);
        let teacher = Teacher { indices: class_ids(indices), log_probs: rows(&log_probs), tail: rows(&tail), top_k };
        let (own, shape) = (rows(&student), student.shape());
        if !gradient {
            return (float_tensor(teacher.values(&inputs, &own), [inputs.rows]), float_tensor(Vec::new(), [0]));
        }
        let length = shape.num_elements();
        let (values, gradient) = match student.dtype() {
            DType::F16 => halves(length, shape, |slots: &mut [f16]| teacher.half_gradient(&inputs, &own, slots)),
            DType::BF16 => halves(length, shape, |slots: &mut [bf16]| teacher.half_gradient(&inputs, &own, slots)),
            _ => {
                let (values, gradient) = filled(length, |slots| teacher.gradient(&inputs, &own, slots));
                (values, float_tensor(gradient, shape))
            }
        };
        (float_tensor(values, [inputs.rows]), gradient)
    }
}

impl KnownGradient for Flex {
    fn scale_rows(mut gradient: FlexTensor, by: FlexTensor) -> FlexTensor {
        let by = contiguous(by);
        let factors = match by.dtype() {
            DType::F32 => by.as_slice::<f32>().expect("it was made contiguous").to_vec(),
            _ => by.clone().into_data().iter::<f32>().collect(),
        };
        if factors.iter().all(|by| *by == 1.0) {
            return gradient;
        }
        let rows = gradient.shape()[0].max(1);
        let width = (gradient.shape().num_elements() / rows).max(1);
        let factor = |row: usize| if factors.len() == 1 { factors[0] } else { factors[row] };
        match gradient.dtype() {
            DType::F32 if gradient.is_contiguous() && gradient.layout().start_offset() == 0 => {
                let scale = |(row, values): (usize, &mut [f32])| values.iter_mut().for_each(|x| *x *= factor(row));
                let values = gradient.storage_mut::<f32>();
                if values.len() < PARALLEL {
                    values.chunks_mut(width).enumerate().for_each(scale);
                } else {
                    values.par_chunks_mut(width).enumerate().for_each(scale);
                }
                gradient
            }
            _ => broadcast_rows::<Flex>(gradient, by),
        }
    }
}

/// A vector of `length` elements, each of which `fill` writes, beside what it gives back.
#[expect(unsafe_code, reason = "zeroing memory that is overwritten next would cost a third of the kernel's time")]
fn filled<T>(length: usize, fill: impl FnOnce(&mut [std::mem::MaybeUninit<f32>]) -> T) -> (T, Vec<f32>) {
    let mut elements = Vec::with_capacity(length);
    let slots = &mut elements.spare_capacity_mut()[..length];
    memory::prefer_huge_pages(slots);
    let result = fill(slots);
    // SAFETY: the capacity is at least `length`, and the kernels put a value into every element of every row (a panic on
    // the way leaves the length at 0).
    unsafe { elements.set_len(length) };
    (result, elements)
}

fn halves<H: Half, T>(length: usize, shape: Shape, fill: impl FnOnce(&mut [H]) -> T) -> (T, FlexTensor) {
    let mut elements = vec![H::default(); length];
    (fill(&mut elements), FlexTensor::from_data(TensorData::new(elements, shape)))
}

fn float_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

fn inputs<'a>(spec: &'a Spec, student: &FlexTensor, weights: FlexTensor, targets: FlexTensor) -> Inputs<'a> {
    let weights = contiguous(weights);
    let weights = weights.as_slice::<f32>().expect("weights are made in f32").to_vec();
    Inputs::new(spec, student.shape().dims(), weights, || class_ids(targets))
}

/// The rows of what [`float_rows`] gave.
fn rows(tensor: &FlexTensor) -> Rows<'_> {
    const CONTIGUOUS: &str = "`float_rows` makes it contiguous";
    let width = tensor.shape()[1];
    match tensor.dtype() {
        DType::F16 => Rows::F16(tensor.as_slice().expect(CONTIGUOUS), width),
        DType::BF16 => Rows::BF16(tensor.as_slice().expect(CONTIGUOUS), width),
        _ => Rows::F32(tensor.as_slice().expect(CONTIGUOUS), width),
    }
}

/// `tensor` in f32 or half precision, contiguous.
fn float_rows(tensor: FlexTensor) -> FlexTensor {
    match tensor.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => contiguous(tensor),
        _ => contiguous(Flex::float_cast(tensor, FloatDType::F32)),
    }
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

/// Whether an f32 tensor owns all of its memory, and nobody else does.
fn is_ours(tensor: &FlexTensor) -> bool {
    let bytes = tensor.shape().num_elements() * size_of::<f32>();
    let whole = tensor.layout().start_offset() == 0 && tensor.bytes().len() == bytes;
    tensor.dtype() == DType::F32 && whole && tensor.is_unique()
}

/// Integers as they stand, in rows if there are any.
fn class_ids(tensor: FlexTensor) -> Vec<i64> {
    let tensor = contiguous(Flex::int_cast(tensor, IntDType::I64));
    tensor.as_slice::<i64>().expect("it was cast and made contiguous").to_vec()
}
