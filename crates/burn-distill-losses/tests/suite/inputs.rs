//! Seeded inputs, and numbers out of tensors.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_distill_losses::Mask;

use crate::table::{Logits, Stage};

/// Pseudo-random numbers, near normal with standard deviation `scale`, a function of the seed alone.
pub(crate) fn numbers(seed: u64, count: usize, scale: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // Twelve uniforms have variance 1.
    (0..count).map(|_| scale * ((0..12).map(|_| uniform()).sum::<f64>() - 6.0)).collect()
}

pub(crate) fn tensor<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

pub(crate) fn random<const D: usize>(seed: u64, shape: [usize; D], scale: f64, device: &Device) -> Tensor<D> {
    tensor(&numbers(seed, shape.iter().product(), scale), shape, DType::F32, device)
}

pub(crate) fn ints<const D: usize>(values: &[i64], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

pub(crate) fn bools(values: &[bool], device: &Device) -> Tensor<1, Bool> {
    Tensor::from_bool(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// Class ids that go through all classes.
pub(crate) fn targets(rows: usize, classes: usize, device: &Device) -> Tensor<1, Int> {
    ints(&(0..rows).map(|row| ((row * 5 + 1) % classes) as i64).collect::<Vec<_>>(), [rows], device)
}

/// A dense teacher, everything counts.
pub(crate) fn logits<const D: usize>(student: Tensor<D>, teacher: Tensor<2>) -> Logits<D> {
    let [rows, classes] = teacher.dims();
    let targets = targets(rows, classes, &teacher.device());
    Logits { student, teacher: teacher.into(), targets, mask: Mask::from(None) }
}

pub(crate) fn stage(student: Tensor<4>, teacher: Tensor<4>) -> Stage {
    Stage { student, teacher }
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data_as::<f64>().try_to_vec::<f64>().unwrap()
}

pub(crate) fn number(tensor: Tensor<1>) -> f64 {
    assert_eq!(tensor.dims(), [1]);
    tensor.into_scalar::<f64>()
}

/// The gradient of `loss` with respect to `input`.
pub(crate) fn gradient<const D: usize>(loss: &Tensor<1>, input: &Tensor<D>) -> Vec<f64> {
    values(&input.grad(&loss.backward()).expect("a gradient"))
}

/// Fails unless the two agree to `relative` of the largest magnitude of `expected`, or to `absolute`.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f64], expected: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(
            error <= absolute.max(relative * scale),
            "{what}: element {index} is {got}, expected {expected} (error {error:.2e}, scale {scale:.2e})"
        );
    }
}
