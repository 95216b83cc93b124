use super::UNSCALED;
use crate::{Convention, Denominator, JsdLossConfig, KdLossConfig, ReverseKlLossConfig};

/// What `generalized_jsd_loss` divides by when it is given no labels: PyTorch's `batchmean` over three dimensions.
const WITHOUT_LABELS: Convention = Convention { denominator: Denominator::Batch, ..UNSCALED };

/// As TRL's `GKDTrainer.generalized_jsd_loss` computes it (`trl/experimental/gkd/gkd_trainer.py` at 35def3ee, v1.9.0).
impl KdLossConfig {
    /// TRL's forward KL, `generalized_jsd_loss(labels=.., beta=0)`: without temperature squared, divided by the tokens
    /// with a label (the mask). Temperature 1, as the function's default; `GKDConfig` has 0.9.
    ///
    /// With `num_items_in_batch` TRL divides by the labelled tokens of all accumulated batches: that is
    /// [`Reduction::Sum`](crate::Reduction::Sum), divided by the caller.
    pub fn trl() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }

    /// TRL's forward KL without labels, `generalized_jsd_loss(beta=0)`: as [`KdLossConfig::trl`], but divided by the
    /// first dimension alone, so that a sequence's tokens are summed.
    pub fn trl_without_labels() -> Self {
        Self::trl().with_convention(WITHOUT_LABELS)
    }
}

/// As TRL's `GKDTrainer.generalized_jsd_loss` computes it (`trl/experimental/gkd/gkd_trainer.py` at 35def3ee, v1.9.0).
impl ReverseKlLossConfig {
    /// TRL's reverse KL, `generalized_jsd_loss(labels=.., beta=1)`: without temperature squared, divided by the tokens
    /// with a label (the mask). Temperature 1, as the function's default; `GKDConfig` has 0.9. Where the teacher
    /// excludes a class TRL's value is infinite; here see [`ReverseKlLossConfig::excluded`].
    pub fn trl() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }

    /// TRL's reverse KL without labels, `generalized_jsd_loss(beta=1)`: as [`ReverseKlLossConfig::trl`], but divided
    /// by the first dimension alone, so that a sequence's tokens are summed.
    pub fn trl_without_labels() -> Self {
        Self::trl().with_convention(WITHOUT_LABELS)
    }
}

/// As TRL's `GKDTrainer.generalized_jsd_loss` computes it (`trl/experimental/gkd/gkd_trainer.py` at 35def3ee, v1.9.0).
impl JsdLossConfig {
    /// TRL's generalised Jensen-Shannon divergence, `generalized_jsd_loss(labels=.., beta=beta)`: without temperature
    /// squared, divided by the tokens with a label (the mask). `beta` weighs the teacher in the mixture, as here.
    /// Temperature 1, as the function's default; `GKDConfig` has beta 0.5 and temperature 0.9.
    pub fn trl(beta: f64) -> Self {
        Self::new().with_beta(beta).with_temperature(1.0).with_convention(UNSCALED)
    }

    /// TRL's divergence without labels: as [`JsdLossConfig::trl`], but divided by the first dimension alone, so that a
    /// sequence's tokens are summed.
    pub fn trl_without_labels(beta: f64) -> Self {
        Self::trl(beta).with_convention(WITHOUT_LABELS)
    }
}
