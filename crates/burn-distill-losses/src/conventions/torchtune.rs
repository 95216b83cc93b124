use super::UNSCALED;
use crate::{KdForm, KdLossConfig, ReverseKlLossConfig};

/// As torchtune computes it (`torchtune/modules/loss/kd_losses.py` at bd2a0fc7).
impl KdLossConfig {
    /// torchtune's `ForwardKLLoss`: in spite of its name the cross-entropy with the teacher's probabilities, which is
    /// larger by the teacher's entropy and never 0; divided by the labelled tokens (the mask). It has no temperature:
    /// 1 here, and no square of it at any other.
    ///
    /// A student's logit of `-inf` is left out of its sum; here it makes the loss very large if the teacher gives it
    /// probability. `kd_ratio` is the weight of the term.
    ///
    /// torchtune's `SymmetricKLLoss` is two terms: this one with weight `sym_kd_ratio` (0.5 by default), and
    /// [`ReverseKlLossConfig::torchtune`] with weight `1 - sym_kd_ratio`.
    pub fn torchtune() -> Self {
        Self::new().with_temperature(1.0).with_form(KdForm::CrossEntropy).with_convention(UNSCALED)
    }
}

/// As torchtune computes it (`torchtune/modules/loss/kd_losses.py` at bd2a0fc7).
impl ReverseKlLossConfig {
    /// torchtune's `ReverseKLLoss`: true reverse KL, divided by the labelled tokens (the mask). It has no temperature:
    /// 1 here, and no square of it at any other.
    ///
    /// Classes whose logit is infinite on either side are left out of its sum, so that a student pays nothing for
    /// probability where the teacher has none; here they count, see [`ReverseKlLossConfig::excluded`].
    pub fn torchtune() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}
