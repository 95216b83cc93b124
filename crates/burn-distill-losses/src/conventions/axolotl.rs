use super::UNSCALED;
use crate::{Convention, Denominator, JsdLossConfig, KdLossConfig, ReverseKlLossConfig};

/// As axolotl's KD plugin computes it (`src/axolotl/integrations/kd/` at 067b021c), for a
/// [sparse](crate::SparseLogits) teacher.
impl KdLossConfig {
    /// axolotl's trainer with `kd_beta: 0` (`kernels/liger.py`): times temperature squared, divided by the labelled
    /// tokens (the mask): this library's own convention. `kd_temperature` is 1 in its examples.
    ///
    /// Without `kd_normalize_topk`, the default, the teacher's top k is renormalised and the student's is not:
    /// [`Tail::Zero`](crate::Tail::Zero). With it both are: [`Tail::Renormalise`](crate::Tail::Renormalise).
    ///
    /// axolotl multiplies by temperature squared the value it reports, but not the gradient that it accumulates, which
    /// is 1/T² of this one. That is not copied: to train with its gradient set
    /// [`TemperatureScale::One`](crate::TemperatureScale::One).
    pub fn axolotl() -> Self {
        Self::new().with_temperature(1.0)
    }

    /// axolotl's function `loss` of `topk_logprob/forward_kl.py`: without temperature squared, divided by the valid
    /// entries of the top k, so that the loss is k times smaller than a mean over tokens. It wants the teacher's top k
    /// renormalised, which is [`Tail::Zero`](crate::Tail::Zero); with one that is not it is a partial sum,
    /// [`Tail::Drop`](crate::Tail::Drop). Temperature 1 by default. axolotl's trainer no longer calls it.
    pub fn axolotl_topk() -> Self {
        let convention = Convention { denominator: Denominator::Entries, ..UNSCALED };
        Self::new().with_temperature(1.0).with_convention(convention)
    }
}

/// As axolotl's KD plugin computes it (`src/axolotl/integrations/kd/kernels/liger.py` at 067b021c), for a
/// [sparse](crate::SparseLogits) teacher.
impl ReverseKlLossConfig {
    /// axolotl's trainer with `kd_beta: 1` and `kd_normalize_topk`, for [`Tail::Renormalise`](crate::Tail::Renormalise);
    /// scaled as [`KdLossConfig::axolotl`].
    ///
    /// Without `kd_normalize_topk` axolotl sums `q (ln q - ln p)` over the top k of a `q` that does not sum to 1 there:
    /// the student lowers it by giving probability to any other class. That is not copied.
    pub fn axolotl() -> Self {
        Self::new().with_temperature(1.0)
    }
}

/// As axolotl's KD plugin computes it (`src/axolotl/integrations/kd/kernels/liger.py` at 067b021c), for a
/// [sparse](crate::SparseLogits) teacher.
impl JsdLossConfig {
    /// axolotl's trainer with `kd_beta` between 0 and 1 and `kd_normalize_topk`, for
    /// [`Tail::Renormalise`](crate::Tail::Renormalise); `beta` weighs the teacher in the mixture, as here. Scaled as
    /// [`KdLossConfig::axolotl`]; for what is not copied see there and [`ReverseKlLossConfig::axolotl`].
    pub fn axolotl(beta: f64) -> Self {
        Self::new().with_beta(beta).with_temperature(1.0)
    }
}
