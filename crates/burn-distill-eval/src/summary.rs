use std::fmt;

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// The same experiment over several seeds: mean, spread, and how far the mean is to be trusted.
///
/// ```
/// use burn_distill_eval::{Summary, paired_difference};
///
/// let accuracy = Summary::of(&[0.70, 0.72, 0.71])?;
/// assert_eq!(format!("{:.3}", accuracy.scaled(100.0)), "71.000 ± 2.484"); // 4.303 * 1 / √3
///
/// // The same three seeds with labels alone: pairing removes what the seeds have in common.
/// let gain = paired_difference(&[0.70, 0.72, 0.71], &[0.69, 0.712, 0.699])?;
/// assert_eq!(format!("{:+.2} points", gain.scaled(100.0)), "+0.97 ± 0.38 points");
/// assert!(gain.excludes_zero());
/// # Ok::<(), burn_distill_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divided by n - 1); `None` of a single value.
    pub standard_deviation: Option<f64>,
    /// Half the width of the 95 % confidence interval of the mean, by Student's t; `None` of a single value.
    pub half_width: Option<f64>,
}

impl Summary {
    /// Summary of one value per seed.
    ///
    /// # Errors
    /// If there are no values, or one is NaN or infinite.
    pub fn of(values: &[f64]) -> Result<Self, EvalError> {
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(EvalError::NotFinite { field: "values", index, value });
        }
        let n = values.len();
        if n == 0 {
            return Err(EvalError::Empty { field: "values" });
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        let half_width = standard_deviation.map(|deviation| student_t_975(n - 1) * deviation / (n as f64).sqrt());
        Ok(Self { n, mean, standard_deviation, half_width })
    }

    /// The summary of every value times `factor`, for example 100 for percentage points.
    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            n: self.n,
            mean: self.mean * factor,
            standard_deviation: self.standard_deviation.map(|deviation| deviation * factor.abs()),
            half_width: self.half_width.map(|half_width| half_width * factor.abs()),
        }
    }

    /// Whether the 95 % interval lies wholly on one side of zero; never of a single value. Of a difference: whether
    /// it is significant at the 5 % level (two-sided).
    pub fn excludes_zero(&self) -> bool {
        self.half_width.is_some_and(|half_width| self.mean.abs() > half_width)
    }
}

/// `mean ± half-width`, with the precision and the sign flag of the formatter (two decimals by default).
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        match f.sign_plus() {
            true => write!(f, "{:+.precision$}", self.mean)?,
            false => write!(f, "{:.precision$}", self.mean)?,
        }
        match self.half_width {
            Some(half_width) => write!(f, " ± {half_width:.precision$}"),
            None => write!(f, " (one seed)"),
        }
    }
}

/// Summary of `student - baseline` seed by seed. Both hold the same seeds in the same order.
///
/// # Errors
/// If the numbers of values differ, are 0, or a difference is NaN or infinite.
pub fn paired_difference(student: &[f64], baseline: &[f64]) -> Result<Summary, EvalError> {
    if student.len() != baseline.len() {
        return Err(EvalError::Unpaired { student: student.len(), baseline: baseline.len() });
    }
    let differences: Vec<f64> = student.iter().zip(baseline).map(|(student, baseline)| student - baseline).collect();
    Summary::of(&differences)
}

/// The 97.5 % quantile of Student's t distribution.
///
/// A table up to 30 degrees of freedom; above, the expansion around the normal quantile of Abramowitz and Stegun,
/// *Handbook of Mathematical Functions*, 26.7.5, which is good to six decimals there.
fn student_t_975(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139, 2.200985,
        2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963, 2.079614, 2.073873,
        2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
    ];
    if let Some(quantile) = degrees.checked_sub(1).and_then(|index| TABLE.get(index)) {
        return *quantile;
    }
    let z: f64 = 1.959963984540054;
    let nu = degrees as f64;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / nu + second / nu.powi(2) + third / nu.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-5, "{value} is not {expected}");
    }

    #[test]
    fn three_seeds_by_hand() {
        let summary = Summary::of(&[1.0, 2.0, 6.0]).unwrap();
        close(summary.mean, 3.0);
        close(summary.standard_deviation.unwrap(), 7f64.sqrt()); // (4 + 1 + 9) / 2
        close(summary.half_width.unwrap(), 4.302653 * (7f64 / 3.0).sqrt());
        assert!(!summary.excludes_zero());
    }

    #[test]
    fn quantiles_meet_published_ones() {
        for (degrees, expected) in [(1, 12.7062), (2, 4.30265), (10, 2.22814), (30, 2.04227), (31, 2.03951)] {
            close(student_t_975(degrees), expected);
        }
        for (degrees, expected) in [(40, 2.02108), (60, 2.00030), (120, 1.97993), (10_000, 1.96020)] {
            close(student_t_975(degrees), expected);
        }
    }

    #[test]
    fn one_seed_has_no_interval() {
        let summary = Summary::of(&[0.5]).unwrap();
        assert_eq!((summary.n, summary.standard_deviation, summary.half_width), (1, None, None));
        assert!(!summary.excludes_zero());
        assert_eq!(summary.to_string(), "0.50 (one seed)");
    }

    #[test]
    fn pairing_finds_a_gain_that_spread_hides() {
        let baseline = [0.60, 0.70, 0.80];
        let student = [0.61, 0.712, 0.809];
        let gain = paired_difference(&student, &baseline).unwrap();
        close(gain.mean, (0.01 + 0.012 + 0.009) / 3.0);
        assert!(gain.excludes_zero());
        let (student, baseline) = (Summary::of(&student).unwrap(), Summary::of(&baseline).unwrap());
        assert!(student.mean - student.half_width.unwrap() < baseline.mean);
    }

    #[test]
    fn equal_gains_are_certain_and_equal_runs_are_no_gain() {
        assert!(paired_difference(&[2.0, 3.0], &[1.0, 2.0]).unwrap().excludes_zero());
        assert!(!paired_difference(&[1.0, 2.0], &[1.0, 2.0]).unwrap().excludes_zero());
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let message = |result: Result<Summary, EvalError>| result.unwrap_err().to_string();
        assert_eq!(message(Summary::of(&[])), "`values` must hold at least one value, got none");
        assert_eq!(message(Summary::of(&[1.0, f64::NAN])), "`values` must be finite, got NaN at index 1");
        let expected = "`student` and `baseline` must have one value per seed each, got 2 and 1";
        assert_eq!(message(paired_difference(&[1.0, 2.0], &[1.0])), expected);
    }

    #[test]
    fn scaling_by_a_negative_keeps_widths_positive() {
        let summary = Summary::of(&[1.0, 3.0]).unwrap().scaled(-10.0);
        close(summary.mean, -20.0);
        close(summary.standard_deviation.unwrap(), 200f64.sqrt());
        assert!(summary.half_width.unwrap() > 0.0);
    }
}
