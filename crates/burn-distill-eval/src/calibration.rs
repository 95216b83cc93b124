use crate::Mean;

const BINS: usize = 15;

/// How often the model is right among predictions of about the same confidence.
///
/// ```text
/// ECE = Σ_m (n_m / n) |accuracy_m - confidence_m|
/// ```
///
/// over 15 bins of equal width; bin `m` of 0..15 holds confidences in (m / 15, (m + 1) / 15]. Bins add up over
/// batches exactly as one large batch would fill them.
///
/// ```
/// use burn_distill_eval::CalibrationBins;
///
/// let mut bins = CalibrationBins::default();
/// bins.add(0.9, true);
/// bins.add(0.9, false);
/// assert!((bins.expected_calibration_error().unwrap() - 0.4).abs() < 1e-12); // |1/2 - 0.9|
/// ```
///
/// # References
/// Guo et al., *On Calibration of Modern Neural Networks*, 2017, arXiv 1706.04599, equation 3; 15 bins as in its
/// experiments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CalibrationBins([CalibrationBin; BINS]);

/// One interval of confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CalibrationBin {
    /// Confidence of the predictions of this bin.
    pub confidence: Mean,
    /// Number of them that were right.
    pub correct: usize,
}

impl CalibrationBin {
    /// Share of right predictions; `None` of an empty bin.
    pub fn accuracy(&self) -> Option<f64> {
        Mean { sum: self.correct as f64, count: self.confidence.count }.value()
    }
}

impl CalibrationBins {
    /// Adds one prediction. A confidence that is not a number makes the calibration error NaN: a model without
    /// probabilities is not calibrated.
    pub fn add(&mut self, confidence: f64, correct: bool) {
        let bin = if confidence.is_nan() { BINS } else { (confidence * BINS as f64).ceil() as usize };
        let bin = &mut self.0[bin.clamp(1, BINS) - 1];
        bin.confidence.add(confidence);
        bin.correct += usize::from(correct);
    }

    /// Adds the predictions of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bin, other) in self.0.iter_mut().zip(&other.0) {
            bin.confidence.merge(&other.confidence);
            bin.correct += other.correct;
        }
    }

    /// The bins, by rising confidence: the data of a reliability diagram.
    pub fn bins(&self) -> &[CalibrationBin] {
        &self.0
    }

    /// Expected calibration error in [0, 1]; `None` of no predictions.
    pub fn expected_calibration_error(&self) -> Option<f64> {
        let count = self.0.iter().map(|bin| bin.confidence.count).sum();
        let sum = self.0.iter().map(|bin| (bin.correct as f64 - bin.confidence.sum).abs()).sum();
        Mean { sum, count }.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_predictions_by_hand() {
        let mut bins = CalibrationBins::default();
        for (confidence, correct) in [(0.95, true), (0.97, false), (0.55, true), (0.52, true)] {
            bins.add(confidence, correct);
        }
        // Bin 14: |1 - 1.92| = 0.92. Bin 8 (0.533, 0.6]: |1 - 0.55| = 0.45. Bin 7: |1 - 0.52| = 0.48.
        assert!((bins.expected_calibration_error().unwrap() - 1.85 / 4.0).abs() < 1e-12);
        assert_eq!(bins.bins()[14].accuracy(), Some(0.5));
        assert_eq!(bins.bins()[7].confidence.count, 1);
        assert_eq!(bins.bins()[0].accuracy(), None);
    }

    #[test]
    fn edges_belong_to_the_lower_bin() {
        let mut bins = CalibrationBins::default();
        for confidence in [0.0, 0.2, 1.0] {
            bins.add(confidence, true);
        }
        let filled: Vec<_> = (0..15).filter(|&bin| bins.bins()[bin].confidence.count > 0).collect();
        assert_eq!(filled, [0, 2, 14]);
    }

    #[test]
    fn an_undefined_confidence_shows() {
        let mut bins = CalibrationBins::default();
        assert_eq!(bins.expected_calibration_error(), None);
        bins.add(0.5, true);
        bins.add(f64::NAN, false);
        assert!(bins.expected_calibration_error().unwrap().is_nan());
    }
}
