use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::{Latency, parameter_count, weight_bytes};

/// What one model costs and achieves. What was not measured is `None` and stays out of every comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelProfile {
    /// Name for people, for example `resnet8x4`.
    pub name: String,
    /// Parameters, without buffers ([`parameter_count`]).
    pub parameters: u64,
    /// Multiply-adds of one forward pass of one sample.
    pub multiply_adds: Option<u64>,
    /// Bytes of all weights and buffers ([`weight_bytes`]).
    pub weight_bytes: u64,
    /// Peak memory of inference in bytes ([`peak_memory`](crate::peak_memory)).
    pub peak_memory_bytes: Option<u64>,
    /// Time of one forward pass.
    pub latency: Option<Latency>,
    /// Accuracy (or pass@1) in [0, 1].
    pub accuracy: Option<f64>,
}

impl ModelProfile {
    /// A profile with the sizes of `module`; the rest is still to be measured.
    pub fn of<M: Module>(name: impl Into<String>, module: &M) -> Self {
        Self {
            name: name.into(),
            parameters: parameter_count(module),
            multiply_adds: None,
            weight_bytes: weight_bytes(module),
            peak_memory_bytes: None,
            latency: None,
            accuracy: None,
        }
    }
}
