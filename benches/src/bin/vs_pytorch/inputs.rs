//! The inputs that both sides compute with: values from a counter, so that the results can be compared.
//! `benches/vs_pytorch/inputs.py` has the same rule.

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_distill_losses::{LossError, SparseLogits, Tail};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Classes that the sparse teacher lists of each row.
const SPARSE_CLASSES: usize = 64;

/// Values in [-width / 2, width / 2): 24 bits of a hash of the seed and the position.
fn uniform(seed: u32, count: usize, width: f32) -> Vec<f32> {
    let value = |position: usize| {
        let mut hash = (position as u32).wrapping_add(seed.wrapping_mul(0x9E37_79B9)).wrapping_mul(2_654_435_761);
        hash ^= hash >> 15;
        hash = hash.wrapping_mul(2_246_822_519);
        hash ^= hash >> 13;
        ((hash >> 8) as f32 / 16_777_216.0 - 0.5) * width
    };
    (0..count).into_par_iter().map(value).collect()
}

/// [`uniform`] as a tensor.
pub(crate) fn tensor<const D: usize>(seed: u32, shape: [usize; D], width: f32, device: &Device) -> Tensor<D> {
    let values = uniform(seed, shape.iter().product(), width);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A class id for each row.
pub(crate) fn targets(rows: usize, classes: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = (0..rows).map(|row| ((row * 7919) % classes) as i64).collect();
    Tensor::from_ints(ids.as_slice(), device)
}

/// Logits of student and teacher, class ids, and a teacher that lists 64 classes of each row.
#[derive(Clone)]
pub(crate) struct Logits {
    pub(crate) student: Tensor<2>,
    pub(crate) teacher: Tensor<2>,
    pub(crate) targets: Tensor<1, Int>,
    pub(crate) sparse: SparseLogits,
}

impl Logits {
    pub(crate) fn new(rows: usize, classes: usize, device: &Device) -> Result<Self, LossError> {
        Ok(Self {
            student: tensor(1, [rows, classes], 8.0, device),
            teacher: tensor(2, [rows, classes], 12.0, device),
            targets: targets(rows, classes, device),
            sparse: sparse(rows, classes, device)?,
        })
    }
}

/// Classes a stride apart, from another start in each row; nine tenths of the probability are theirs.
fn sparse(rows: usize, classes: usize, device: &Device) -> Result<SparseLogits, LossError> {
    let stride = (classes / SPARSE_CLASSES).max(1);
    let ids: Vec<i64> =
        (0..rows).flat_map(|row| (0..SPARSE_CLASSES).map(move |i| (i * stride + row % stride) as i64)).collect();
    let logits = uniform(3, rows * SPARSE_CLASSES, 12.0);
    let log_probs: Vec<f32> = logits
        .chunks(SPARSE_CLASSES)
        .flat_map(|row| {
            let log_sum = row.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
            row.iter().map(move |&logit| (f64::from(logit) - log_sum + 0.9f64.ln()) as f32)
        })
        .collect();
    SparseLogits::new(
        Tensor::<1, Int>::from_ints(ids.as_slice(), device).reshape([rows, SPARSE_CLASSES]),
        Tensor::from_data(TensorData::new(log_probs, [rows, SPARSE_CLASSES]), device),
        classes,
        1.0,
        Tail::Bucket,
    )
}

/// Hidden states `[tokens, hidden]` and output weights `[vocabulary, hidden]` of student and teacher.
#[derive(Clone)]
pub(crate) struct Linear {
    pub(crate) hidden: Tensor<2>,
    pub(crate) weight: Tensor<2>,
    pub(crate) teacher_hidden: Tensor<2>,
    pub(crate) teacher_weight: Tensor<2>,
}

impl Linear {
    pub(crate) fn new(tokens: usize, hidden: usize, vocabulary: usize, device: &Device) -> Self {
        Self {
            hidden: tensor(1, [tokens, hidden], 2.0, device),
            weight: tensor(2, [vocabulary, hidden], 0.5, device),
            teacher_hidden: tensor(3, [tokens, hidden], 2.0, device),
            teacher_weight: tensor(4, [vocabulary, hidden], 0.5, device),
        }
    }
}
