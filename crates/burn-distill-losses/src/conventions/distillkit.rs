use crate::{JsdLossConfig, KdLossConfig, TvdLossConfig};

/// As DistillKit computes it (`distillkit/lossfuncs/kl.py` at a61c2e7d).
impl KdLossConfig {
    /// DistillKit's `kl`: this library's own convention. It asks for a temperature.
    ///
    /// Against a [sparse](crate::SparseLogits) teacher its `missing_probability_handling: zero`, the default, is
    /// [`Tail::Zero`](crate::Tail::Zero). `symmetric_uniform` is [`Tail::Bucket`](crate::Tail::Bucket) at the
    /// temperature of the teacher's log-probabilities; at another one DistillKit tempers the teacher's tail as one
    /// class, but the student's class by class, and the loss of a student equal to its teacher is not 0. That is not
    /// copied.
    pub fn distillkit(temperature: f64) -> Self {
        Self::new().with_temperature(temperature)
    }
}

/// As DistillKit computes it (`distillkit/lossfuncs/jsd.py` at a61c2e7d).
impl JsdLossConfig {
    /// DistillKit's `jsd`: this library's own convention, with both sides weighed by 1/2. It asks for a temperature.
    /// For the tail of a sparse teacher see [`KdLossConfig::distillkit`].
    pub fn distillkit(temperature: f64) -> Self {
        Self::new().with_beta(0.5).with_temperature(temperature)
    }
}

/// As DistillKit computes it (`distillkit/lossfuncs/tvd.py` at a61c2e7d).
impl TvdLossConfig {
    /// DistillKit's `tvd`: this library's own convention, temperature squared included. It asks for a temperature.
    /// For the tail of a sparse teacher see [`KdLossConfig::distillkit`].
    pub fn distillkit(temperature: f64) -> Self {
        Self::new().with_temperature(temperature)
    }
}
