//! An embedding of every training sample.

use std::collections::BTreeMap;

use burn::{
    module::{Module, RunningState},
    tensor::{DType, Device, Distribution, IndexingUpdateOp, Int, Tensor, TensorData},
};

use crate::{learned::in_type, norm::l2_normalize};

/// A row of length 1 for each sample; saved and restored like the running statistics of a batch normalisation.
#[derive(Module, Debug)]
pub(crate) struct Memory {
    rows: RunningState<Tensor<2>>,
}

impl Memory {
    /// Random rows, of length 1 on average, as the authors of CRD begin.
    pub(crate) fn new(samples: usize, width: usize, device: &Device) -> Self {
        let bound = (3.0 / width as f64).sqrt();
        Self { rows: RunningState::new(Tensor::random([samples, width], Distribution::Uniform(-bound, bound), device)) }
    }

    /// How many samples it has a row for.
    pub(crate) fn samples(&self) -> usize {
        self.rows.value().dims()[0]
    }

    /// The rows of these samples, `[batch, width]`.
    ///
    /// # Panics
    /// If there is none for one of them.
    pub(crate) fn of(&self, samples: &[usize], dtype: DType) -> Tensor<2> {
        let rows = self.rows.value_sync();
        let size = rows.dims()[0];
        if let Some(sample) = samples.iter().find(|sample| **sample >= size) {
            panic!("`samples` must be below {size}, the number of samples of the configuration, got {sample}");
        }
        let indices = indices(samples, &rows.device());
        in_type(rows.select(0, indices), dtype)
    }

    /// The products of each anchor `[batch, width]` with the rows of its `negatives` `[batch, count]`.
    pub(crate) fn products(&self, anchor: Tensor<2>, negatives: Tensor<2, Int>) -> Tensor<2> {
        let rows = in_type(self.rows.value_sync(), anchor.dtype());
        let ([batch, width], [_, count], [size, _]) = (anchor.dims(), negatives.dims(), rows.dims());
        // The products with every row take less memory than a copy of the drawn rows, unless the drawn ones are few.
        if size <= count * width {
            anchor.matmul(rows.transpose()).gather(1, negatives)
        } else {
            let drawn = rows.select(0, negatives.reshape([batch * count])).reshape([batch, count, width]);
            drawn.matmul(anchor.unsqueeze_dim(2)).squeeze_dim(2)
        }
    }

    /// Moves the rows of the samples towards their embeddings, `momentum · row + (1 - momentum) · embedding`, and makes them
    /// of length 1 again. Of a sample that is twice among them the last one counts.
    pub(crate) fn remember(&self, samples: &[usize], embeddings: Tensor<2>, momentum: f64) {
        let before = self.rows.value_sync();
        let (device, dtype) = (before.device(), before.dtype());
        let last: BTreeMap<_, _> = samples.iter().enumerate().map(|(place, sample)| (*sample, place)).collect();
        let (samples, places): (Vec<_>, Vec<_>) = last.into_iter().unzip();
        let embeddings = embeddings.detach().select(0, indices(&places, &device));
        let moved = self.of(&samples, embeddings.dtype()).mul_scalar(momentum) + embeddings.mul_scalar(1.0 - momentum);
        let moved = in_type(l2_normalize(moved, 1), dtype);
        let after = before.select_assign(0, indices(&samples, &device), moved, IndexingUpdateOp::Assign);
        self.rows.update(after.detach());
    }
}

fn indices(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
    let count = indices.len();
    Tensor::from_data(TensorData::new(indices, [count]), device)
}
