//! DKD: the distribution over the other classes goes through the passes with the target left out, the rest is one
//! number a row.

use super::{
    lanes::{FLOOR, floored},
    row::Factors,
    softmax::Softmax,
};

/// DKD: the value, the target's gradient, and the factors of the other classes'.
#[expect(clippy::too_many_arguments, reason = "what the row knows")]
pub(super) fn decoupled(
    softmax: &Softmax,
    student: &[f32],
    teacher: &[f32],
    target: Option<usize>,
    inverse: f32,
    alpha: f64,
    beta: f64,
    scale: f64,
    factors: &mut [Factors],
) -> (f64, Option<(usize, f32)>) {
    let log_sum = softmax.log_sum();
    let others = [0, 1].map(|side| f64::from(softmax.max[side]) * f64::from(inverse) + log_sum[side]);
    // Is it the target or not: `ln p_t` and `ln (1 - p_t)` of both sides.
    let [own, its] = [(student, 0), (teacher, 1)].map(|(logits, side)| {
        let at_target = match target {
            Some(target) => f64::from(floored(floored(logits[target]) * inverse)),
            None => f64::from(FLOOR),
        };
        let odds = at_target - others[side];
        (-(-odds).max(0.0) - (-odds.abs()).exp().ln_1p(), -odds.max(0.0) - (-odds.abs()).exp().ln_1p())
    });
    let (p_target, p_others) = (its.0.exp(), its.1.exp());
    let difference = own.0.exp() - p_target;
    let term = |p: f64, log_p: f64, log_q: f64| if p == 0.0 { 0.0 } else { p * (log_p - log_q) };
    let of_target = term(p_target, its.0, own.0) + term(p_others, its.1, own.1);
    // A teacher that is sure of the target says nothing of the others.
    let beta = if softmax.max[1] < 0.5 * FLOOR { 0.0 } else { beta };
    let among_others = softmax.cross / softmax.sum[1] - log_sum[1] + log_sum[0];
    for block in factors.iter_mut() {
        block.student = (f64::from(block.student) * scale * (beta - alpha * difference) / softmax.sum[0]) as f32;
        block.other = (f64::from(block.other) * -scale * beta / softmax.sum[1]) as f32;
    }
    let value = alpha * of_target + if beta == 0.0 { 0.0 } else { beta * among_others };
    (value, target.map(|target| (target, (scale * alpha * difference) as f32)))
}
