//! Divergences between rows of log-probabilities, in nats.

use burn::tensor::Tensor;

use crate::floor::{FLOOR, log_add_exp};

/// `KL(P || Q)` of each row: log-probabilities `[rows, width]` in, `[rows]` out.
pub(crate) fn kl(log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
    let p = log_p.clone().exp();
    (p * (log_p - log_q)).sum_dim(1).squeeze_dim(1)
}

/// `KL(student || teacher)` of each row. Where the teacher's probability is exactly 0 it counts as the smallest
/// normal f32 (1.2e-38), so that the divergence stays finite.
pub(crate) fn reverse_kl(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let zero = teacher.clone().lower_elem(FLOOR / 2.0);
    kl(student, teacher.mask_fill(zero, f64::from(f32::MIN_POSITIVE).ln()))
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
    let mixture = log_add_exp(student.clone().add_scalar((1.0 - beta).ln()), teacher.clone().add_scalar(beta.ln()));
    kl(teacher, mixture.clone()).mul_scalar(beta) + kl(student, mixture).mul_scalar(1.0 - beta)
}
