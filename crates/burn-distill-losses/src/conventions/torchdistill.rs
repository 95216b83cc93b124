use super::UNSCALED;
use crate::KdLossConfig;

/// As torchdistill computes it (`torchdistill/losses/mid_level.py` at 3e4373c4).
impl KdLossConfig {
    /// The soft part of torchdistill's `KDLoss` with `alpha` other than 0 and with targets: this library's own
    /// convention. It asks for a temperature. `alpha` and `beta` are the weights of the terms.
    ///
    /// It takes the softmax over the second dimension, which are the tokens of `[batch, tokens, classes]`: meant for
    /// `[batch, classes]` alone. Here it is over the last.
    pub fn torchdistill(temperature: f64) -> Self {
        Self::new().with_temperature(temperature)
    }

    /// torchdistill's `KDLoss` where it is soft alone, with `alpha` 0 or without targets: then it leaves out
    /// temperature squared (and `beta`), so that a run without labels has another weight than one with them.
    pub fn torchdistill_without_targets(temperature: f64) -> Self {
        Self::new().with_temperature(temperature).with_convention(UNSCALED)
    }
}
