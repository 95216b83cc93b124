//! The labels' cross-entropy beside a divergence.

use super::{
    lanes::{BLOCK, FLOOR, floored, largest},
    row::{Factors, Row, grow},
    softmax::{Softmax, shifted_exponentials},
};
use crate::fused::spec::Spec;

/// Adds `hard` times the cross-entropy of the target to a row; at temperature 1 from the exponentials that are there.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what the row knows")]
pub(super) fn add_hard<const FMA: bool>(
    spec: &Spec,
    student: &[f32],
    target: Option<usize>,
    weight: f64,
    at_one: Option<&Softmax>,
    hard: &mut Vec<f32>,
    references: &[[f32; 2]],
    factors: &mut [Factors],
    row: &mut Row,
) {
    let Some(target) = target.filter(|_| spec.hard != 0.0) else {
        return;
    };
    let scale = weight * spec.hard;
    let (max, sum) = match at_one {
        Some(softmax) => {
            for (block, reference) in factors.iter_mut().zip(references) {
                block.student += (scale * softmax.normalisers(*reference)[0]) as f32;
            }
            (softmax.reference[0], softmax.sum[0])
        }
        None => {
            grow(hard, student.len());
            row.with_hard = true;
            hard_exponentials::<FMA>(student, &mut hard[..student.len()], scale, factors)
        }
    };
    row.value += spec.hard * (sum.ln() + f64::from(max) - f64::from(floored(student[target])));
    let so_far = row.single.map_or(0.0, |(_, more)| more);
    row.single = Some((target, so_far - scale as f32));
}

#[inline(always)]
fn hard_exponentials<const FMA: bool>(
    student: &[f32],
    hard: &mut [f32],
    scale: f64,
    factors: &mut [Factors],
) -> (f32, f64) {
    let (mut max, mut sum) = (FLOOR, 0f64);
    for ((student, hard), factors) in student.chunks(BLOCK).zip(hard.chunks_mut(BLOCK)).zip(factors.iter_mut()) {
        let higher = max.max(largest(student));
        sum *= f64::from(max - higher).exp();
        max = higher;
        sum += shifted_exponentials::<FMA>(student, max, 1.0, hard);
        factors.hard = max;
    }
    for block in factors {
        block.hard = (f64::from(block.hard - max).exp() * scale / sum) as f32;
    }
    (max, sum)
}
