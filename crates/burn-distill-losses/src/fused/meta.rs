//! What fusion must know of a kernel's outputs before it runs.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};

/// The values of the rows of `student`.
pub(crate) fn values(student: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::from([student.shape[0]]), DType::F32)
}
