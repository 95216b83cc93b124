use std::time::{Duration, Instant};

use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// How a latency is measured.
#[derive(Config, Debug, Copy, PartialEq)]
pub struct LatencyConfig {
    /// Samples that one run processes, at least 1.
    pub batch_size: usize,
    /// Timed runs, at least 1.
    #[config(default = 30)]
    pub runs: usize,
    /// Runs before them that are not timed: kernels are compiled and tuned, caches filled.
    #[config(default = 5)]
    pub warm_up: usize,
}

impl LatencyConfig {
    fn validate(&self) -> Result<(), EvalError> {
        for (field, value) in [("batch_size", self.batch_size), ("runs", self.runs)] {
            if value == 0 {
                return Err(EvalError::OutOfRange { field, range: "[1, inf)", value: 0.0 });
            }
        }
        Ok(())
    }
}

/// Time of one forward pass over a batch: the median, and the range that holds the middle 80 % of the runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median, in milliseconds per batch.
    pub median_ms: f64,
    /// 10th percentile, in milliseconds per batch.
    pub p10_ms: f64,
    /// 90th percentile, in milliseconds per batch.
    pub p90_ms: f64,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Number of timed runs.
    pub runs: usize,
}

impl Latency {
    /// Percentiles of measured times (linear between neighbours, as numpy's default).
    ///
    /// # Errors
    /// If there are no times, or `batch_size` is 0.
    pub fn of(times: &[Duration], batch_size: usize) -> Result<Self, EvalError> {
        LatencyConfig::new(batch_size).with_runs(times.len()).validate()?;
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let percentile = |share: f64| {
            let position = share * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
            low + (high - low) * position.fract()
        };
        Ok(Self {
            median_ms: percentile(0.5),
            p10_ms: percentile(0.1),
            p90_ms: percentile(0.9),
            batch_size,
            runs: times.len(),
        })
    }

    /// Samples per second at the median.
    pub fn throughput(&self) -> f64 {
        self.batch_size as f64 / (self.median_ms / 1e3)
    }

    /// Whether the middle 80 % of both overlap: the difference is then not clear of the noise.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.p10_ms <= other.p90_ms && other.p10_ms <= self.p90_ms
    }
}

/// Times `run`, which must wait until the device is done: let it end with `device.sync()` or read its output.
///
/// ```
/// use burn::{nn::LinearConfig, tensor::{Device, Tensor}};
/// use burn_distill_eval::{LatencyConfig, measure_latency};
///
/// let device = Device::flex();
/// let (model, batch) = (LinearConfig::new(64, 64).init(&device), Tensor::<2>::ones([8, 64], &device));
/// let latency = measure_latency(&LatencyConfig::new(8).with_runs(3), || {
///     let _ = model.forward(batch.clone()).into_data();
/// })?;
/// assert!(latency.p10_ms <= latency.median_ms && latency.median_ms <= latency.p90_ms);
/// # Ok::<(), burn_distill_eval::EvalError>(())
/// ```
///
/// # Errors
/// If `batch_size` or `runs` is 0.
pub fn measure_latency(config: &LatencyConfig, mut run: impl FnMut()) -> Result<Latency, EvalError> {
    config.validate()?;
    (0..config.warm_up).for_each(|_| run());
    let times: Vec<_> = (0..config.runs).map(|_| time(&mut run)).collect();
    Latency::of(&times, config.batch_size)
}

/// Times student and teacher in turns, so that a machine that slows down for a while slows both; returns
/// `(student, teacher)`. Each of the two goes first in every other round. Both must wait for the device, as in
/// [`measure_latency`].
///
/// # Errors
/// If `batch_size` or `runs` is 0.
pub fn compare_latency(
    config: &LatencyConfig,
    mut student: impl FnMut(),
    mut teacher: impl FnMut(),
) -> Result<(Latency, Latency), EvalError> {
    config.validate()?;
    for _ in 0..config.warm_up {
        student();
        teacher();
    }
    let (mut student_times, mut teacher_times) = (Vec::new(), Vec::new());
    for round in 0..config.runs {
        if round % 2 == 0 {
            student_times.push(time(&mut student));
            teacher_times.push(time(&mut teacher));
        } else {
            teacher_times.push(time(&mut teacher));
            student_times.push(time(&mut student));
        }
    }
    Ok((Latency::of(&student_times, config.batch_size)?, Latency::of(&teacher_times, config.batch_size)?))
}

fn time(run: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn percentiles_by_hand() {
        let times: Vec<_> = [40, 10, 30, 20, 50].map(Duration::from_millis).into();
        let latency = Latency::of(&times, 8).unwrap();
        for (value, expected) in [(latency.median_ms, 30.0), (latency.p10_ms, 14.0), (latency.p90_ms, 46.0)] {
            assert!((value - expected).abs() < 1e-9, "{value} {expected}");
        }
        assert!((latency.throughput() - 8.0 / 0.03).abs() < 1e-6);
    }

    #[test]
    fn warm_up_is_run_but_not_timed() {
        let mut calls = 0;
        let latency = measure_latency(&LatencyConfig::new(1).with_runs(4).with_warm_up(3), || calls += 1).unwrap();
        assert_eq!((calls, latency.runs), (7, 4));
    }

    #[test]
    fn student_and_teacher_take_turns() {
        let order = RefCell::new(String::new());
        let config = LatencyConfig::new(1).with_runs(3).with_warm_up(1);
        let (student, teacher) =
            compare_latency(&config, || order.borrow_mut().push('s'), || order.borrow_mut().push('t')).unwrap();
        assert_eq!(order.into_inner(), "ststtsst");
        assert_eq!((student.runs, teacher.runs), (3, 3));
    }

    #[test]
    fn no_runs_and_no_samples_are_rejected() {
        let error = measure_latency(&LatencyConfig::new(1).with_runs(0), || {}).unwrap_err();
        assert_eq!(error.to_string(), "`runs` must be in [1, inf), got 0");
        let error = compare_latency(&LatencyConfig::new(0), || {}, || {}).unwrap_err();
        assert_eq!(error.to_string(), "`batch_size` must be in [1, inf), got 0");
    }

    #[test]
    fn overlap_is_symmetric() {
        let latency = |p10_ms, p90_ms| Latency { median_ms: 0.0, p10_ms, p90_ms, batch_size: 1, runs: 1 };
        let (fast, slow, wide) = (latency(1.0, 2.0), latency(3.0, 4.0), latency(1.5, 3.5));
        assert!(!fast.overlaps(&slow) && !slow.overlaps(&fast));
        assert!(fast.overlaps(&wide) && wide.overlaps(&fast) && wide.overlaps(&slow));
    }
}
