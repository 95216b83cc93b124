use super::UNSCALED;
use crate::{
    JsdLossConfig, KdForm, KdLossConfig, ReverseKlLossConfig, SkewKlLossConfig, SkewReverseKlLossConfig, TvdLossConfig,
};

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl KdLossConfig {
    /// DistiLLM's `forward_kl`: the cross-entropy with the teacher's probabilities, divided by the labelled tokens (the
    /// mask). It has no temperature: 1 here, and no square of it at any other. torchtune's is the same code.
    ///
    /// DistiLLM's `symmetric_kl(lam=lambda)` is two terms: this one with weight `1 - lambda`, and
    /// [`ReverseKlLossConfig::distillm`] with weight `lambda`, 0.9 by default.
    pub fn distillm() -> Self {
        Self::new().with_temperature(1.0).with_form(KdForm::CrossEntropy).with_convention(UNSCALED)
    }
}

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl ReverseKlLossConfig {
    /// DistiLLM's `reverse_kl`: true reverse KL, divided by the labelled tokens (the mask). It has no temperature: 1
    /// here, and no square of it at any other. Classes whose logit is infinite are left out of its sum, here they
    /// count.
    pub fn distillm() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl JsdLossConfig {
    /// DistiLLM's `js_distance(lam=lambda)`, whose `lambda` (0.9 by default) weighs the *student* in the mixture and
    /// the divergence from it: [`JsdLossConfig::beta`] is `1 - lambda`. Divided by the labelled tokens (the mask). It
    /// has no temperature: 1 here, and no square of it at any other.
    ///
    /// At the end points its value is 0, here it is the limit, a KL divergence.
    pub fn distillm(lambda: f64) -> Self {
        Self::new().with_beta(1.0 - lambda).with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl TvdLossConfig {
    /// DistiLLM's `tv_distance`: divided by the labelled tokens (the mask). It has no temperature: 1 here, and no
    /// square of it at any other.
    pub fn distillm() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl SkewKlLossConfig {
    /// DistiLLM's `skewed_forward_kl`: the cross-entropy of the teacher's probabilities with the mixture, divided by the
    /// labelled tokens (the mask). Its `lam` weighs the teacher and is [`SkewKlLossConfig::alpha`], 0.1 by default
    /// there too. It has no temperature: 1 here, and no square of it at any other.
    ///
    /// Classes whose logit is infinite on either side are left out of its sum; here they count: one that the student
    /// excludes costs `-ln alpha` and more for the teacher's probability there.
    pub fn distillm() -> Self {
        Self::new().with_temperature(1.0).with_form(KdForm::CrossEntropy).with_convention(UNSCALED)
    }
}

/// As DistiLLM's code computes it (jongwooko/distillm, `distillm/losses.py` at d47e77ff).
impl SkewReverseKlLossConfig {
    /// DistiLLM's `skewed_reverse_kl`: a true divergence, divided by the labelled tokens (the mask). Its `lam` weighs
    /// the student and is [`SkewReverseKlLossConfig::alpha`], 0.1 by default there too. It has no temperature: 1 here,
    /// and no square of it at any other.
    ///
    /// Classes whose logit is infinite on either side are left out of its sum; here they count: one that the teacher
    /// excludes costs `-ln alpha` for the student's probability there.
    pub fn distillm() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}
