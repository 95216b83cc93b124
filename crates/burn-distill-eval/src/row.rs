//! One row of logits at a time, in f64.

/// The first class of the largest logit; `None` for a row that holds a NaN or nothing.
pub(crate) fn argmax(row: &[f32]) -> Option<usize> {
    let mut best = None;
    for (class, &logit) in row.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|best: usize| logit > row[best]) {
            best = Some(class);
        }
    }
    best
}

/// How many classes stand before `target`: those with a larger logit, and of equal ones those with a smaller id (so
/// that the class of rank 0 is the [`argmax`]). `None` for a row that holds a NaN.
pub(crate) fn rank(row: &[f32], target: usize) -> Option<usize> {
    let own = row[target];
    let mut ahead = 0;
    for (class, &logit) in row.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        ahead += usize::from(logit > own || (logit == own && class < target));
    }
    Some(ahead)
}

/// The log-probabilities of one row: `x_c - ln Σ_j exp(x_j)`. NaN throughout where softmax is undefined (a NaN, a
/// logit of +inf, or -inf everywhere).
#[derive(Clone, Copy)]
pub(crate) struct LogSoftmax<'a> {
    row: &'a [f32],
    log_normalizer: f64,
    max: f64,
}

impl<'a> LogSoftmax<'a> {
    pub(crate) fn new(row: &'a [f32]) -> Self {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = row.iter().map(|&logit| (logit as f64 - max).exp()).sum();
        Self { row, log_normalizer: max + sum.ln(), max }
    }

    pub(crate) fn at(&self, class: usize) -> f64 {
        self.row[class] as f64 - self.log_normalizer
    }

    /// Probability of the most likely class.
    pub(crate) fn confidence(&self) -> f64 {
        (self.max - self.log_normalizer).exp()
    }

    /// KL(teacher || student) in nats. A class the teacher rules out adds nothing; one that only the student rules
    /// out makes it infinite.
    pub(crate) fn kl_to(&self, teacher: &LogSoftmax) -> f64 {
        let divergence: f64 = (0..self.row.len())
            .map(|class| {
                let teacher_log_prob = teacher.at(class);
                let prob = teacher_log_prob.exp();
                if prob == 0.0 { 0.0 } else { prob * (teacher_log_prob - self.at(class)) }
            })
            .sum();
        // Rounding can leave a sum of cancelling terms just below zero; NaN stays NaN.
        if divergence < 0.0 { 0.0 } else { divergence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn ties_go_to_the_smaller_class() {
        let row = [1.0, 2.0, 2.0, 0.0];
        assert_eq!(argmax(&row), Some(1));
        assert_eq!([0, 1, 2, 3].map(|class| rank(&row, class)), [Some(2), Some(0), Some(1), Some(3)]);
    }

    #[test]
    fn a_nan_anywhere_leaves_no_prediction() {
        assert_eq!(argmax(&[5.0, f32::NAN]), None);
        assert_eq!(rank(&[5.0, f32::NAN], 0), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn infinities_are_ordered() {
        assert_eq!(argmax(&[-INF, 3.0, INF]), Some(2));
        assert_eq!(argmax(&[-INF, -INF]), Some(0));
        assert_eq!(rank(&[-INF, 3.0], 0), Some(1));
    }

    #[test]
    fn probabilities_of_excluded_and_extreme_logits() {
        let masked = [-INF, 3f32.ln(), 0.0];
        let log_probs = LogSoftmax::new(&masked);
        assert_eq!(log_probs.at(0), f64::NEG_INFINITY);
        assert!((log_probs.at(1).exp() - 0.75).abs() < 1e-7);
        assert!((log_probs.confidence() - 0.75).abs() < 1e-7);
        let huge = [1e4, -1e4];
        assert_eq!(LogSoftmax::new(&huge).at(1), -2e4);
        for undefined in [[f32::NAN, 0.0], [INF, 0.0], [-INF, -INF]] {
            assert!(LogSoftmax::new(&undefined).confidence().is_nan(), "{undefined:?}");
        }
    }

    #[test]
    fn divergence_of_excluded_classes() {
        let kl = |student: [f32; 3], teacher: [f32; 3]| LogSoftmax::new(&student).kl_to(&LogSoftmax::new(&teacher));
        // Both rule class 0 out; teacher (3/4, 1/4) against student (1/2, 1/2): ln 2 - H(1/4).
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((kl([-INF, 0.0, 0.0], [-INF, 3f32.ln(), 0.0]) - expected).abs() < 1e-7);
        assert_eq!(kl([-INF, 0.0, 0.0], [0.0, 0.0, 0.0]), f64::INFINITY);
        assert!(kl([f32::NAN, 0.0, 0.0], [0.0, 0.0, 0.0]).is_nan());
        assert!(kl([0.0, 0.0, 0.0], [f32::NAN, 0.0, 0.0]).is_nan());
    }
}
