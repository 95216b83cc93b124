use super::UNSCALED;
use crate::{KdForm, KdLossConfig};

/// As TextBrewer computes it (`src/textbrewer/losses.py` at 2c105fa6).
impl KdLossConfig {
    /// TextBrewer's `kd_ce_loss`: the cross-entropy with the teacher's tempered probabilities, without temperature
    /// squared, averaged over rows. Temperature 4, as `DistillationConfig`; the function's own default is 1.
    ///
    /// Tokens are left out by selecting them beforehand (`logits_mask` of the adaptor): that is the mask. Its weight
    /// (`kd_loss_weight`, 1) is the term's.
    pub fn textbrewer() -> Self {
        Self::new().with_temperature(4.0).with_form(KdForm::CrossEntropy).with_convention(UNSCALED)
    }
}
