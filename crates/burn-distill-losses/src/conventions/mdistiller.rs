use crate::KdLossConfig;

/// As mdistiller computes it (`mdistiller/distillers/KD.py` at a08d46f1).
impl KdLossConfig {
    /// mdistiller's `kd_loss`: this library's own convention at temperature 4, mdistiller's default. It knows no mask.
    /// Its weights (0.9, and 0.1 for the labels) are those of the terms.
    pub fn mdistiller() -> Self {
        Self::new().with_temperature(4.0)
    }
}
