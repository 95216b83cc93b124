use super::UNSCALED;
use crate::{JsdLossConfig, KdLossConfig, ReverseKlLossConfig, TvdLossConfig};

/// As Liger-Kernel's `LigerFusedLinearJSDLoss` computes its soft part (`src/liger_kernel/chunked_loss/jsd_loss.py` and
/// `fused_linear_distillation.py` at ead96b61).
impl KdLossConfig {
    /// Liger-Kernel's JSD with `beta=0`: without temperature squared, divided by the tokens whose target is not
    /// `ignore_index` (the mask). Temperature 1 by default.
    ///
    /// Its hard part is a term of its own (un-tempered logits, divided by the same tokens), and `weight_soft_loss`
    /// (0.5) is that of the term. Where the teacher has more classes Liger-Kernel appends zeros to the student's
    /// tempered logits, which gives probability to classes that do not exist; here
    /// [`VocabularyPolicy`](crate::VocabularyPolicy) decides.
    pub fn liger() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As Liger-Kernel's `LigerFusedLinearJSDLoss` computes its soft part (`src/liger_kernel/chunked_loss/jsd_loss.py` and
/// `fused_linear_distillation.py` at ead96b61).
impl ReverseKlLossConfig {
    /// Liger-Kernel's JSD with `beta=1`: without temperature squared, divided by the tokens whose target is not
    /// `ignore_index` (the mask). Temperature 1 by default. See [`KdLossConfig::liger`] for what else it does.
    pub fn liger() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As Liger-Kernel's `LigerFusedLinearJSDLoss` computes its soft part (`src/liger_kernel/chunked_loss/jsd_loss.py` and
/// `fused_linear_distillation.py` at ead96b61).
impl JsdLossConfig {
    /// Liger-Kernel's JSD: without temperature squared, divided by the tokens whose target is not `ignore_index` (the
    /// mask). `beta` (0.5 by default) weighs the teacher in the mixture, as here. Temperature 1 by default. See
    /// [`KdLossConfig::liger`] for what else it does.
    pub fn liger(beta: f64) -> Self {
        Self::new().with_beta(beta).with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As Liger-Kernel's `LigerTVDLoss` computes it (`src/liger_kernel/ops/tvd.py` at ead96b61).
impl TvdLossConfig {
    /// Liger-Kernel's total variation distance with its default `batchmean`: on probabilities, so without a
    /// temperature of its own (1 here) or its square, divided by the rows whose label is not `ignore_index` (the
    /// mask). Where two probabilities are equal its gradient is -1/2, here 0.
    pub fn liger() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}
