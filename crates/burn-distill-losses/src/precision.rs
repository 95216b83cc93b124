//! Every loss is computed in f32 (or f64, if the student is): sums of exponentials in half precision would not agree
//! with any reference.

use burn::tensor::{DType, Tensor};

/// `tensor` in f32 if it is in half precision; its gradient comes back in half precision.
pub(crate) fn widen<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(DType::F32),
        _ => tensor,
    }
}

/// A teacher's tensor without its gradient, in the type of the student's.
pub(crate) fn constant<const D: usize>(teacher: Tensor<D>, dtype: DType) -> Tensor<D> {
    let teacher = teacher.without_autodiff();
    if teacher.dtype() == dtype { teacher } else { teacher.cast(dtype) }
}

/// Student's and teacher's features, ready to be compared.
pub(crate) fn features<const D: usize, const E: usize>(
    student: Tensor<D>,
    teacher: Tensor<E>,
) -> (Tensor<D>, Tensor<E>) {
    let student = widen(student);
    let teacher = constant(teacher, student.dtype());
    (student, teacher)
}
