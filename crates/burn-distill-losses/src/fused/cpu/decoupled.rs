//! DKD: the distribution over the other classes goes through the passes with the target left out, the rest is one
//! number a row.

use super::{
    lanes::{FLOOR, floored},
    softmax::Softmax,
};

/// The value, and what gradients are multiplied by: the student's and the teacher's distribution over the other classes,
/// and the target's.
pub(super) struct Parts {
    pub(super) value: f64,
    pub(super) student: f64,
    pub(super) teacher: f64,
    pub(super) target: f64,
}

pub(super) fn decoupled(
    softmax: &Softmax,
    student: &[f32],
    teacher: &[f32],
    target: Option<usize>,
    inverse: f32,
    alpha: f64,
    beta: f64,
) -> Parts {
    let log_sum = softmax.log_sum();
    let others = [0, 1].map(|side| f64::from(softmax.reference[side]) * f64::from(inverse) + log_sum[side]);
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
    let beta = if softmax.reference[1] < 0.5 * FLOOR { 0.0 } else { beta };
    let among_others = softmax.cross / softmax.sum[1] - log_sum[1] + log_sum[0];
    Parts {
        value: alpha * of_target + if beta == 0.0 { 0.0 } else { beta * among_others },
        student: beta - alpha * difference,
        teacher: beta,
        target: alpha * difference,
    }
}
