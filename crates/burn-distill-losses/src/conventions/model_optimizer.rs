use super::UNSCALED;
use crate::{Convention, Denominator, KdLossConfig, ReverseKlLossConfig};

/// As NVIDIA Model-Optimizer computes it (`modelopt/torch/distill/` at a2fbac7b).
impl KdLossConfig {
    /// Model-Optimizer's `LogitsDistillationLoss` (`losses.py`) with its default `reduction="mean"`: times temperature
    /// squared, divided by rows *and classes*, so that the loss of a vocabulary of 100,000 is 100,000 times smaller
    /// than here. Temperature 1 by default. It knows no mask.
    ///
    /// Its trainer for language models asks for `reduction="none"` and averages over labelled tokens
    /// (`plugins/huggingface.py`): that is [`KdLossConfig::new`] at temperature 1.
    pub fn model_optimizer() -> Self {
        let convention = Convention { denominator: Denominator::Entries, ..Convention::default() };
        Self::new().with_temperature(1.0).with_convention(convention)
    }

    /// Model-Optimizer's `LogitsKLLoss` for Megatron (`plugins/megatron.py`): true KL, without temperature squared.
    /// Temperature 1 by default. It gives one value per token; Megatron averages over those of its loss mask.
    ///
    /// `TopKLogitsKLLoss` is the same with a sparse teacher whose tail is renormalised
    /// ([`Tail::Renormalise`](crate::Tail::Renormalise)).
    pub fn model_optimizer_megatron() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}

/// As NVIDIA Model-Optimizer computes it (`modelopt/torch/distill/plugins/megatron.py` at a2fbac7b).
impl ReverseKlLossConfig {
    /// Model-Optimizer's `LogitsKLLoss` for Megatron with `reverse=True`, see
    /// [`KdLossConfig::model_optimizer_megatron`].
    pub fn model_optimizer_megatron() -> Self {
        Self::new().with_temperature(1.0).with_convention(UNSCALED)
    }
}
