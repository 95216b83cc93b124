/// The number at the fraction `t` in [0, 1] of the way between two finite numbers.
///
/// As C++20's `std::lerp`: exact at both ends, monotone in `t`, never outside the two numbers, and without overflow
/// where their difference has one.
pub(crate) fn lerp(from: f64, to: f64, t: f64) -> f64 {
    if (from <= 0.0 && to >= 0.0) || (from >= 0.0 && to <= 0.0) {
        return t * to + (1.0 - t) * from;
    }
    if t >= 1.0 {
        return to;
    }
    let value = from + t * (to - from);
    // Rounding may not carry the value past `to`.
    if from < to { value.min(to) } else { value.max(to) }
}

/// Half a cosine between two numbers: flat at both ends, halfway at `t` = 1/2.
pub(crate) fn half_cosine(from: f64, to: f64, t: f64) -> f64 {
    lerp(to, from, 0.5 * (1.0 + (std::f64::consts::PI * t).cos()))
}

/// The fraction of `steps` that has passed at `step`, at most 1.
pub(crate) fn progress(step: usize, steps: usize) -> f64 {
    if step >= steps { 1.0 } else { step as f64 / steps as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lerp_is_exact_at_its_ends_and_bounded_between() {
        for (from, to) in [(0.2, 0.9), (1.1, 0.1), (-3.0, 5.0), (0.0, 2.0), (-1.0, -0.9), (f64::MAX, -f64::MAX)] {
            assert_eq!(lerp(from, to, 0.0), from);
            assert_eq!(lerp(from, to, 1.0), to);
            for i in 1..1000 {
                let value = lerp(from, to, i as f64 / 1000.0);
                assert!(value >= f64::min(from, to) && value <= f64::max(from, to), "{value} of {from}, {to}");
            }
        }
        assert_eq!(lerp(f64::MAX, -f64::MAX, 0.5), 0.0);
    }

    #[test]
    fn half_cosine_is_exact_at_its_ends() {
        assert_eq!(half_cosine(0.3, 0.1, 0.0), 0.3);
        assert_eq!(half_cosine(0.3, 0.1, 1.0), 0.1);
        assert!((half_cosine(3.0, 1.0, 0.5) - 2.0).abs() < 1e-15);
    }

    #[test]
    fn progress_reaches_one_and_stays() {
        assert_eq!([0, 1, 4, 5].map(|step| progress(step, 4)), [0.0, 0.25, 1.0, 1.0]);
        assert_eq!(progress(usize::MAX, 1), 1.0);
    }
}
