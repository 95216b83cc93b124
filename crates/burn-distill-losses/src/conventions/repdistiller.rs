use crate::KdLossConfig;

/// As RepDistiller computes it (`distiller_zoo/KD.py` at b84f547c).
impl KdLossConfig {
    /// RepDistiller's `DistillKL`: this library's own convention at temperature 4, the default of its `--kd_T`. It
    /// knows no mask.
    pub fn repdistiller() -> Self {
        Self::new().with_temperature(4.0)
    }
}
