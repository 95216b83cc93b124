use burn::{
    config::Config,
    tensor::{Int, Tensor, activation},
};

use crate::{
    ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy,
    align::{Aligned, align, flatten_targets},
    divergence::kl_from,
    error::expect_temperature,
    floor::FLOOR,
};

/// Configuration of [`MultiTeacherKdLoss`].
#[derive(Config, Debug)]
pub struct MultiTeacherKdLossConfig {
    /// Temperature that softens the distributions that are compared, in (0, inf); the weights are taken at 1.
    #[config(default = 4.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl MultiTeacherKdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<MultiTeacherKdLoss, ConfigError> {
        let Self { temperature, reduction, vocabulary } = *self;
        Ok(MultiTeacherKdLoss { temperature: ConfigError::check_temperature(temperature)?, reduction, vocabulary })
    }
}

/// KD from several teachers: for each sample, those that know its label count more (CA-MKD).
///
/// ```text
/// p^k = softmax(teacher_logits^k / T),  q = softmax(student_logits / T),  t = target
/// CE^k = -ln softmax(teacher_logits^k)_t
/// w^k = (1 - softmax over teachers of CE^k) / (teachers - 1)
/// loss = T² · mean over rows of  Σ_k w^k KL(p^k || q)
/// ```
///
/// The weights of a row sum to 1, so with teachers that are one and the same this is [`KdLoss`](crate::KdLoss). With two
/// teachers a row's weights are in proportion to the probabilities that they give the label; with more, none gets more
/// than `1 / (teachers - 1)`, and mostly it is the wrong ones that are left out.
///
/// Weights that are the same for every sample need no loss of their own: a KD term per teacher, or one on the mean of
/// the teachers.
///
/// **Scale**: true KL in nats, always times temperature squared, averaged over unmasked rows. Against a
/// [sparse](crate::SparseLogits) teacher that does not list the target, the tail bucket takes its place; without a bucket
/// that teacher is taken to be wrong.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: two or more, each of the same rows, dense or sparse;
/// - `targets`: class ids of any rank, one per row;
/// - `mask`: a boolean per row, true = counts; rows without a label must not;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only.
///
/// # Errors
/// [`MultiTeacherKdLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` with fewer than two teachers, if the rows differ, or if the numbers of classes differ and the policy is
/// [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::MultiTeacherKdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let right = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device); // (3/4, 1/4)
/// let wrong = Tensor::<2>::from_floats([[0.0, 3f32.ln()]], &device); // (1/4, 3/4)
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// let loss = MultiTeacherKdLossConfig::new().with_temperature(1.0).init()?;
/// let value = |a: &Tensor<2>, b: &Tensor<2>| {
///     loss.forward(student.clone(), [a.clone(), b.clone()], targets.clone(), None).into_scalar::<f64>()
/// };
/// // Weights 3/4 and 1/4, and both are as far from (1/2, 1/2): 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812.
/// assert!((value(&right, &wrong) - 0.130812).abs() < 1e-6);
/// // One that knows nothing gives the label 1/2, takes 2/5 of the weight, and is no distance away.
/// assert!((value(&right, &student) - 0.6 * 0.130812).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zhang, Chen, Wang, *Confidence-Aware Multi-Teacher Knowledge Distillation*, 2022, arXiv 2201.00007, equations 3 to
///   5: the term on logits. Their term on features has the same weights and a connector per teacher.
/// - Reference code: CA-MKD `helper/loops.py` at c2f39a9f (`ensemble_method == 'CAMKD'`) divides once more, by the number
///   of teachers, although the weights sum to 1; the paper and this do not.
#[derive(Debug, Clone)]
pub struct MultiTeacherKdLoss {
    temperature: f64,
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
}

impl MultiTeacherKdLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize, const E: usize, T: Into<TeacherLogits>>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl IntoIterator<Item = T>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let of_teacher = |teacher: T| {
            let aligned = align(student_logits.clone(), teacher.into(), &mask, self.vocabulary);
            let targets = flatten_targets(targets.clone(), aligned.student.dims()[0], &mask);
            let error = cross_entropy(&aligned, targets);
            (self.divergence(aligned).unsqueeze_dim::<2>(1), error)
        };
        let (divergences, errors): (Vec<_>, Vec<_>) = teacher_logits.into_iter().map(of_teacher).unzip();
        let teachers = errors.len();
        assert!(teachers >= 2, "`teacher_logits` must hold two teachers or more, got {teachers}");
        let blame = activation::softmax(Tensor::cat(errors, 1), 1);
        let weights = blame.neg().add_scalar(1.0).div_scalar((teachers - 1) as f64);
        let rows = (Tensor::cat(divergences, 1) * weights).sum_dim(1).squeeze_dim::<1>(1);
        mask.zero(rows.mul_scalar(self.temperature.powi(2)))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize, const E: usize, T: Into<TeacherLogits>>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl IntoIterator<Item = T>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let rows = self.forward_no_reduction(student_logits, teacher_logits, targets, mask.clone());
        self.reduction.apply(rows, &mask)
    }

    /// `KL(p || q)` of each row.
    fn divergence(&self, aligned: Aligned) -> Tensor<1> {
        let (student, teacher) = aligned.with_teacher_probs(self.temperature);
        kl_from(teacher, student)
    }
}

/// Of the teacher with the targets, `[rows, 1]`; very large where it gives them no probability.
fn cross_entropy(aligned: &Aligned, targets: Tensor<2, Int>) -> Tensor<2> {
    let others = aligned.target_columns(targets).bool_not();
    aligned.teacher_log_probs(1.0).mask_fill(others, FLOOR).max_dim(1).neg()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    fn loss() -> MultiTeacherKdLoss {
        MultiTeacherKdLossConfig::new().with_temperature(2.0).init().unwrap()
    }

    fn logits(rows: [[f32; 3]; 2]) -> Tensor<2> {
        Tensor::from_floats(rows, &Device::flex())
    }

    fn student() -> Tensor<2> {
        logits([[0.5, -1.0, 0.0], [0.0, 2.0, -0.5]])
    }

    fn teacher() -> Tensor<2> {
        logits([[3.0, -2.0, 1.0], [1.0, 0.0, 4.0]])
    }

    fn targets() -> Tensor<1, Int> {
        Tensor::from_ints([0, 2], &Device::flex())
    }

    fn value(teachers: Vec<TeacherLogits>) -> f64 {
        loss().forward(student(), teachers, targets(), None).into_scalar::<f64>()
    }

    #[test]
    fn teachers_that_agree_are_one_teacher() {
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let expected = kd.forward(student(), teacher(), None).into_scalar::<f64>();
        for count in 2..5 {
            assert_relative_eq!(value(vec![teacher().into(); count]), expected, max_relative = 1e-6);
        }
        assert_eq!(value(vec![student().into(); 3]).abs(), 0.0);
    }

    #[test]
    fn a_teacher_that_is_sure_of_another_class_is_not_heard() {
        let wrong = logits([[-60.0, 60.0, 0.0], [60.0, 0.0, -60.0]]);
        let expected = value(vec![teacher().into(); 2]);
        assert_relative_eq!(value(vec![wrong.into(), teacher().into()]), expected, max_relative = 1e-6);
        // Its list of two classes holds the target of neither row.
        let indices = Tensor::<2, Int>::from_ints([[1, 2], [0, 1]], &Device::flex());
        let log_probs = Tensor::<2>::from_floats([[-0.1, -2.5], [-0.3, -1.4]], &Device::flex());
        let sparse = SparseLogits::new(indices, log_probs, 3, 1.0, Tail::Renormalise).unwrap();
        assert_relative_eq!(value(vec![sparse.into(), teacher().into()]), expected, max_relative = 1e-6);
    }

    #[test]
    fn every_tail_is_kd_weighed_by_the_probability_of_the_label() {
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let device = Device::flex();
        let rows = |rows: [f32; 4]| Tensor::<2>::from_floats([rows], &device);
        let (student, dense) = (rows([0.5, -1.0, 0.0, 0.3]), rows([0.4, 0.3, 0.2, 0.1]).log());
        let probs = [0.5, 0.25, 0.15, 0.1];
        for k in [1, 2] {
            let listed: f64 = probs[..k].iter().sum();
            // The largest is always listed, the smallest never; the dense one gives them 0.4 and 0.1.
            for (target, of_dense) in [(0, 0.4), (3, 0.1)] {
                for (tail, of_sparse) in [
                    (Tail::Bucket, if target == 0 { probs[0] } else { 1.0 - listed }),
                    (Tail::Drop, if target == 0 { probs[0] } else { 0.0 }),
                    (Tail::Renormalise, if target == 0 { probs[0] / listed } else { 0.0 }),
                    (Tail::Zero, if target == 0 { probs[0] / listed } else { 0.0 }),
                ] {
                    let sparse = SparseLogits::from_dense(rows(probs.map(|p| p as f32)).log(), k, tail).unwrap();
                    let of_kd =
                        |teacher: TeacherLogits| kd.forward(student.clone(), teacher, None).into_scalar::<f64>();
                    let teachers: [TeacherLogits; 2] = [dense.clone().into(), sparse.into()];
                    let [from_dense, from_sparse] = teachers.clone().map(of_kd);
                    let expected = (of_dense * from_dense + of_sparse * from_sparse) / (of_dense + of_sparse);
                    let targets = Tensor::<1, Int>::from_ints([target], &device);
                    let value = loss().forward(student.clone(), teachers, targets, None).into_scalar::<f64>();
                    assert_relative_eq!(value, expected, max_relative = 1e-5);
                }
            }
        }
    }

    #[test]
    fn tokens_are_rows_and_unlabelled_ones_do_not_count() {
        let twice = |rows: Tensor<2>| Tensor::stack::<3>(vec![rows.clone(), rows], 0);
        let ids = Tensor::<2, Int>::from_ints([[0, -100], [-100, 2]], &Device::flex());
        let mask = ids.clone().greater_equal_elem(0);
        let teachers = [teacher(), logits([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])];
        let tokens = loss().forward(twice(student()), teachers.clone().map(twice), ids, mask);
        let expected = loss().forward(student(), teachers, targets(), None).into_scalar::<f64>();
        assert_relative_eq!(tokens.into_scalar::<f64>(), expected, max_relative = 1e-6);
    }

    #[test]
    #[should_panic(expected = "two teachers or more, got 1")]
    fn one_teacher_cannot_be_weighed() {
        value(vec![teacher().into()]);
    }

    #[test]
    fn rejects_temperatures_out_of_range() {
        let error = MultiTeacherKdLossConfig::new().with_temperature(0.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`temperature` must be in (0, inf), got 0");
    }
}
