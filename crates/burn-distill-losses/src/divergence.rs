//! Divergences between rows of log-probabilities, in nats.

use burn::tensor::{Int, Tensor};

use crate::floor::{FLOOR, log_add_exp, log_softmax};

/// `KL(P || Q)` of each row: log-probabilities `[rows, width]` in, `[rows]` out.
pub(crate) fn kl(log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
    kl_from((log_p.clone().exp(), log_p), log_q)
}

/// [`kl`] of which P's probabilities are known too. The side with a gradient stands first in the difference: the
/// gradient of the second would be a negated copy.
pub(crate) fn kl_from((p, log_p): (Tensor<2>, Tensor<2>), log_q: Tensor<2>) -> Tensor<1> {
    (p * (log_q - log_p)).sum_dim(1).squeeze_dim::<1>(1).neg()
}

/// `- sum p ln q` of each row.
pub(crate) fn cross_entropy(p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
    (p * log_q).sum_dim(1).squeeze_dim::<1>(1).neg()
}

/// Minus the log-probability of the targets `[rows, 1]` under `logits`, `[rows]`.
pub(crate) fn target_cross_entropy(logits: Tensor<2>, targets: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits, 1.0).gather(1, targets).squeeze_dim::<1>(1).neg()
}

/// The probability that counts for a teacher's of exactly 0: the smallest normal f32.
pub(crate) const EXCLUDED: f64 = f32::MIN_POSITIVE as f64;

/// `KL(student || teacher)` of each row. Where the teacher's probability is exactly 0 it counts as the smallest
/// normal f32 (1.2e-38), so that the divergence stays finite.
pub(crate) fn reverse_kl(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    reverse_kl_excluding(student, teacher, EXCLUDED)
}

/// [`reverse_kl`] in which a teacher's probability of exactly 0 counts as `excluded`.
pub(crate) fn reverse_kl_excluding(student: Tensor<2>, teacher: Tensor<2>, excluded: f64) -> Tensor<1> {
    let zero = teacher.clone().lower_elem(FLOOR / 2.0);
    let teacher = teacher.mask_fill(zero, excluded.ln());
    (student.clone().exp() * (student - teacher)).sum_dim(1).squeeze_dim(1)
}

/// Log-probabilities of `weight * teacher + (1 - weight) * student`, weight in [0, 1).
pub(crate) fn mixture(student: Tensor<2>, teacher: Tensor<2>, weight: f64) -> Tensor<2> {
    if weight == 0.0 {
        return student;
    }
    log_add_exp(student.add_scalar((1.0 - weight).ln()), teacher.add_scalar(weight.ln()))
}

/// Generalised Jensen-Shannon divergence with `M = (1 - beta) * student + beta * teacher`; at its end points the
/// forward and the reverse KL.
pub(crate) fn jensen_shannon(student: Tensor<2>, teacher: Tensor<2>, beta: f64) -> Tensor<1> {
    if beta == 0.0 {
        return kl(teacher, student);
    }
    if beta == 1.0 {
        return reverse_kl(student, teacher);
    }
    let mixture = mixture(student.clone(), teacher.clone(), beta);
    kl(teacher, mixture.clone()).mul_scalar(beta) + kl(student, mixture).mul_scalar(1.0 - beta)
}
