use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Mask, Reduction, SparseLogits, TeacherLogits, VocabularyPolicy};

/// How a divergence on logits is scaled: with temperature squared or not, and divided by what.
///
/// The default is this library's: times temperature squared, divided by the unmasked rows. Configurations made by
/// `new()` have it; those named after another library, as [`KdLossConfig::trl`](crate::KdLossConfig::trl), have that
/// library's.
///
/// ```
/// use burn_distill_losses::{Convention, Denominator, KdLossConfig, TemperatureScale};
///
/// assert_eq!(KdLossConfig::new().convention, Convention::default());
/// let trl = Convention { temperature_scale: TemperatureScale::One, ..Convention::default() };
/// assert_eq!(KdLossConfig::trl().convention, trl);
/// assert_eq!(KdLossConfig::trl_without_labels().convention, Convention { denominator: Denominator::Batch, ..trl });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convention {
    /// What each row's divergence is multiplied by.
    pub temperature_scale: TemperatureScale,
    /// What [`Reduction::Mean`] divides the sum of the rows by.
    pub denominator: Denominator,
}

/// What each row's divergence is multiplied by; `forward_no_reduction` has it too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemperatureScale {
    /// Temperature squared, so that the gradient keeps its size when the temperature changes.
    #[default]
    Squared,
    /// 1: the gradient shrinks with temperature squared.
    One,
}

/// What [`Reduction::Mean`] divides the sum of the unmasked rows by in `forward`. `forward_no_reduction` and
/// [`Reduction::Sum`] divide by nothing, under every convention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denominator {
    /// The number of unmasked rows (samples, or tokens with a label).
    #[default]
    Rows,
    /// The first dimension of `student_logits`, masked or not: for `[batch, tokens, classes]` the loss is summed over
    /// the tokens.
    Batch,
    /// The number of terms in the sum over rows and classes: unmasked rows times classes, or the entries that a sparse
    /// teacher lists in unmasked rows.
    Entries,
}

/// The number that [`Reduction::Mean`] divides by.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, for the length of a reduction")]
pub(crate) enum Divisor {
    /// So many for each unmasked row.
    EachRow(f64),
    Number(f64),
    Counted(Tensor<1>),
}

impl Denominator {
    /// What the sum of the rows is divided by, given the student's shape.
    pub(crate) fn divisor(
        self,
        student: &[usize],
        teacher: &TeacherLogits,
        mask: &Mask,
        policy: VocabularyPolicy,
    ) -> Divisor {
        match (self, teacher) {
            (Denominator::Rows, _) => Divisor::EachRow(1.0),
            (Denominator::Batch, _) => Divisor::Number(student[0] as f64),
            (Denominator::Entries, TeacherLogits::Dense(teacher)) => {
                Divisor::EachRow(policy.classes(student[student.len() - 1], teacher.dims()[1]) as f64)
            }
            (Denominator::Entries, TeacherLogits::Sparse(teacher)) => {
                let classes = policy.classes(student[student.len() - 1], teacher.vocabulary());
                Divisor::Counted(listed(teacher, classes, mask))
            }
        }
    }
}

/// The entries below `classes` that unmasked rows list, `[1]`.
fn listed(teacher: &SparseLogits, classes: usize, mask: &Mask) -> Tensor<1> {
    let padding = teacher.log_probs().clone().equal_scalar(f64::NEG_INFINITY);
    let unlisted = padding.bool_or(teacher.indices().clone().greater_equal_elem(classes as i64));
    mask.fill_rows(unlisted, true).bool_not().float().sum()
}

impl Divisor {
    /// Reduces `values` of shape `[rows]`, in which masked-out rows are 0 already, to shape `[1]`.
    pub(crate) fn reduce(self, values: Tensor<1>, reduction: Reduction, mask: &Mask) -> Tensor<1> {
        match (reduction, self) {
            (Reduction::Mean, Divisor::EachRow(times)) => reduction.apply(values, mask).div_scalar(times),
            (Reduction::Mean, Divisor::Number(number)) => values.sum().div_scalar(number.max(1.0)),
            (Reduction::Mean, Divisor::Counted(count)) => {
                let count = count.cast(values.dtype()).clamp_min(1.0);
                values.sum() / count
            }
            (Reduction::Sum, _) => reduction.apply(values, mask),
        }
    }
}

impl Divisor {
    /// The row weights `[rows]` or `[1]` of ones and zeros, divided so that the sum of weighted values is what
    /// [`Divisor::reduce`] gives.
    pub(crate) fn weights(self, weights: Tensor<1>, rows: usize, reduction: Reduction, mask: &Mask) -> Tensor<1> {
        match (reduction, self) {
            (Reduction::Mean, Divisor::EachRow(times)) => match mask.rows() {
                Some(_) => {
                    let count = weights.clone().sum().clamp_min(1.0).mul_scalar(times);
                    weights / count
                }
                None => weights.div_scalar(times * rows.max(1) as f64),
            },
            (Reduction::Mean, Divisor::Number(number)) => weights.div_scalar(number.max(1.0)),
            (Reduction::Mean, Divisor::Counted(count)) => weights / count.cast(burn::tensor::DType::F32).clamp_min(1.0),
            (Reduction::Sum, _) => weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Bool, Device, Int};

    use super::*;
    use crate::{KdLossConfig, Tail};

    fn reduced(denominator: Denominator, teacher: impl Into<TeacherLogits>) -> (f64, f64) {
        let device = Device::flex();
        let student = Tensor::<3>::from_floats([[[0.5, 0.0, 1.0, -1.0], [1.0, 2.0, 0.0, 0.5], [0.0; 4]]], &device);
        let mask = Tensor::<2, Bool>::from_bool([[true, true, false]], &device);
        let convention = Convention { denominator, ..Convention::default() };
        let loss = KdLossConfig::new().with_convention(convention).init().unwrap();
        let teacher = teacher.into();
        let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), mask.clone());
        (rows.sum().into_scalar(), loss.forward(student, teacher, mask).into_scalar())
    }

    #[test]
    fn each_denominator_by_hand() {
        let device = Device::flex();
        let dense = Tensor::<3>::from_floats([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [9.0; 4]]], &device);
        for (denominator, by) in [(Denominator::Rows, 2.0), (Denominator::Batch, 1.0), (Denominator::Entries, 8.0)] {
            let (sum, value) = reduced(denominator, dense.clone());
            assert_relative_eq!(value, sum / by, max_relative = 1e-6);
        }
        // The first row is padded to two, the last is masked out: 1 + 2 entries.
        let indices = Tensor::<2, Int>::from_ints([[1, 1], [0, 2], [3, 1]], &device);
        let log_probs = Tensor::<2>::from_floats([[0.6, 0.0], [0.5, 0.3], [0.5, 0.3]], &device).log();
        for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
            let sparse = SparseLogits::new(indices.clone(), log_probs.clone(), 4, 1.0, tail).unwrap();
            let (sum, value) = reduced(Denominator::Entries, sparse);
            assert_relative_eq!(value, sum / 3.0, max_relative = 1e-6);
        }
    }
}
