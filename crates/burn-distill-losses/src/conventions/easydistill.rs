use super::UNSCALED;
use crate::{KdLossConfig, ReverseKlLossConfig};

/// As EasyDistill 1.0 evidently means it (`easydistill/kd/train.py` at acbe49b5, branch `1.0`; version 2 has no loss on
/// logits), for a [sparse](crate::SparseLogits) teacher at temperature 1.
impl KdLossConfig {
    /// EasyDistill's `forward_kld`: the divergence from the stored top k, whose other probabilities are 0 without the
    /// stored ones being renormalised: a partial sum, [`Tail::Drop`](crate::Tail::Drop). It has no temperature.
    ///
    /// EasyDistill divides by the number of labelled tokens *twice*, so that the loss is smaller by that number and
    /// changes with the length of a batch. That is not copied: this is the mean over labelled tokens (the mask).
    pub fn easydistill() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As EasyDistill 1.0 evidently means it (`easydistill/kd/train.py` at acbe49b5, branch `1.0`; version 2 has no loss on
/// logits), for a [sparse](crate::SparseLogits) teacher at temperature 1.
impl ReverseKlLossConfig {
    /// EasyDistill's `reverse_kld`: true reverse KL, in which a class that the stored top k does not list counts with
    /// probability 1e-10 ([`Tail::Zero`](crate::Tail::Zero)). EasyDistill raises smaller stored probabilities to 1e-10
    /// too. It has no temperature. The double division of [`KdLossConfig::easydistill`] is not copied.
    pub fn easydistill() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED).with_excluded(1e-10)
    }
}
