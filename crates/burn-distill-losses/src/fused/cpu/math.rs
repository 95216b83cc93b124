//! Exponential and logarithm in f32, written so that LLVM vectorises loops over them.
//!
//! `FMA` picks `mul_add` where the instruction exists and a product and a sum elsewhere, since `mul_add` without the
//! instruction is a call.

#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` for `x <= 0` with a relative error below 5e-7; 0 below -87, where the result is hardly a normal number.
///
/// With `NEAR` the caller knows that `x >= -87`, which saves the comparisons.
///
/// Range reduction to `[-ln 2 / 2, ln 2 / 2]` as in Cephes' `expf`, and there the polynomial of degree 5 whose largest
/// relative error is the smallest (7.5e-8), but with 1 as its constant, so that `exp(0)` is 1.
#[inline(always)]
pub(super) fn exp<const FMA: bool, const NEAR: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let tiny = !NEAR && x < -87.0;
    let x = if tiny { -87.0 } else { x };
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 8.297_647e-3;
    p = fma::<FMA>(p, r, 4.191_543e-2);
    p = fma::<FMA>(p, r, 1.666_757_4e-1);
    p = fma::<FMA>(p, r, 4.999_889_4e-1);
    p = fma::<FMA>(p, r, 9.999_997e-1);
    p = fma::<FMA>(p, r, 1.0);
    let power = ((shifted.to_bits() as i32) << 23).wrapping_add(0x3f80_0000);
    let y = p * f32::from_bits(power as u32);
    if tiny { 0.0 } else { y }
}

/// `ln(x)` for `x >= 0` with an error below 2e-7 relative, or 2e-7 near 1; `ln` of the smallest normal number below it. Of
/// no meaning for what is not a number.
///
/// Range reduction as in Cephes' `logf`, and there `m - m² / 2 + m³ P(m)` with the polynomial of degree 6 whose largest
/// relative error is the smallest (3e-8).
#[inline(always)]
pub(super) fn ln<const FMA: bool>(x: f32) -> f32 {
    let x = if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x };
    let bits = x.to_bits() as i32;
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2))
    let e = bits.wrapping_sub(0x3f35_04f3) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32) - 1.0;
    let mut p = 8.700_418_5e-2;
    p = fma::<FMA>(p, m, -1.426_748_5e-1);
    p = fma::<FMA>(p, m, 1.491_477e-1);
    p = fma::<FMA>(p, m, -1.657_758_5e-1);
    p = fma::<FMA>(p, m, 1.996_305_1e-1);
    p = fma::<FMA>(p, m, -2.500_133_8e-1);
    p = fma::<FMA>(p, m, 3.333_391e-1);
    p = fma::<FMA>(p, m, -0.5);
    let y = fma::<FMA>(m * m, p, m);
    fma::<FMA>(e as f32, std::f32::consts::LN_2, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(from: f32, to: f32, of: impl Fn(f32) -> (f64, f64)) -> f64 {
        let steps = 2_000_003;
        (0..=steps)
            .map(|i| of(from + (to - from) * (i as f32 / steps as f32)))
            .map(|(got, expected)| (got - expected).abs() / expected.abs().max(1e-300))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponential_is_accurate_over_its_whole_range() {
        let exact = |x: f32| f64::from(x).exp();
        assert!(worst(-87.0, 0.0, |x| (exp::<false, false>(x).into(), exact(x))) < 5e-7);
        assert!(worst(-1.0, 0.0, |x| (exp::<true, true>(x).into(), exact(x))) < 5e-7);
        assert_eq!(exp::<false, false>(0.0), 1.0);
        for x in [-88.0, -1e4, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp::<false, false>(x), 0.0);
            assert_eq!(exp::<true, false>(x), 0.0);
        }
        assert!(exp::<false, false>(f32::NAN).is_nan() && exp::<true, false>(f32::NAN).is_nan());
    }

    #[test]
    fn logarithm_is_accurate_over_its_whole_range() {
        let exact = |x: f32| f64::from(x).ln();
        assert!(worst(1e-6, 0.4, |x| (ln::<false>(x).into(), exact(x))) < 2e-7);
        assert!(worst(1.5, 3e4, |x| (ln::<true>(x).into(), exact(x))) < 2e-7);
        let near_one = worst(0.4, 1.5, |x| (1.0 + f64::from(ln::<false>(x)), 1.0 + exact(x)));
        assert!(near_one < 1e-6, "{near_one}");
        for exponent in -126..=127 {
            let x = 1.37 * 2f32.powi(exponent);
            assert!((f64::from(ln::<true>(x)) / exact(x) - 1.0).abs() < 2e-7, "{x}");
        }
        assert_eq!(ln::<false>(1.0), 0.0);
        assert_eq!(ln::<false>(0.0), ln::<false>(f32::MIN_POSITIVE));
    }
}
