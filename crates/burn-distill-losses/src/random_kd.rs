use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction, SampledLogits, VocabularyPolicy, align::flatten_rows, floor::log_softmax,
    precision::constant,
};

/// Configuration of [`RandomKdLoss`].
#[derive(Config, Debug)]
pub struct RandomKdLossConfig {
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the student has more classes than the teacher that was drawn from.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl RandomKdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<RandomKdLoss, ConfigError> {
        Ok(RandomKdLoss { reduction: self.reduction, vocabulary: self.vocabulary })
    }
}

/// Random-sampling knowledge distillation: the divergence from a teacher of whom only drawn classes are known; in
/// expectation over the draws, value and gradient are those of [`KdLoss`](crate::KdLoss) with the whole teacher.
///
/// ```text
/// c_j, w_j: draws and weights of a row, see SampledLogits;  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  Σ_j w_j (ln p(c_j) - ln q(c_j))
/// ```
///
/// T is the temperature at which the classes were drawn; at another one the draws would not be unbiased, so the loss has no
/// temperature of its own. The student's softmax is over its whole vocabulary.
///
/// **Scale**: an unbiased estimate of the true KL in nats, times temperature squared, averaged over unmasked rows. A row's
/// value may be negative, as an estimate may; it is 0 for whatever draws when the student is the teacher, though the
/// gradient is then 0 only in expectation. The paper's loss is the KL from the drawn frequencies, which differs by their
/// entropy: the same gradient.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: [`SampledLogits`] of the same rows;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `T · ((Σ_j w_j) q - Σ_j w_j onehot(c_j)) / rows`.
///
/// # Panics
/// `forward` if the rows differ; if the student has other classes than the teacher and the policy is
/// [`VocabularyPolicy::Error`]; if it has fewer under any policy (draw from the teacher's first columns then).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::{RandomKdLossConfig, SampledLogits};
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// // Two draws from (3/4, 1/4), both of class 0.
/// let indices = Tensor::<2, Int>::from_ints([[0, 0]], &device);
/// let log_probs = Tensor::<2>::from_floats([[0.75, 0.75]], &device).log();
/// let weights = Tensor::<2>::from_floats([[0.5, 0.5]], &device);
/// let teacher = SampledLogits::new(indices, log_probs, weights, 2, 1.0)?;
/// // ln 0.75 - ln 0.5.
/// let value = RandomKdLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.405465).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::LossError>(())
/// ```
///
/// # References
/// - Anshumann et al., *Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs*, 2025, arXiv 2503.16870.
/// - Reference code: announced, not published (akhilkedia/RandomSamplingKD at 9d0f3816 holds the poster). The tests
///   enumerate all draws of small vocabularies and compare the expectation with the dense loss.
#[derive(Debug, Clone)]
pub struct RandomKdLoss {
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
}

impl RandomKdLoss {
    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: SampledLogits,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
        let [rows, from] = student.dims();
        let (teacher_rows, drawn_from) = (teacher_logits.rows(), teacher_logits.vocabulary());
        assert_eq!(rows, teacher_rows, "`student_logits` have {rows} rows and `teacher_logits` {teacher_rows}");
        assert!(
            from >= drawn_from || self.vocabulary == VocabularyPolicy::Error,
            "the draws are from {drawn_from} classes and `student_logits` have {from}; draw from the first {from}"
        );
        let classes = self.vocabulary.classes(from, drawn_from);
        let student = if classes < from { student.narrow(1, 0, classes) } else { student };
        let part = |tensor: &Tensor<2>| mask.fill_rows(constant(tensor.clone(), student.dtype()), 0.0);
        let (teacher, weights) = (part(teacher_logits.log_probs()), part(teacher_logits.weights()));
        let indices = mask.fill_rows(teacher_logits.indices().clone(), 0);
        let temperature = teacher_logits.temperature();
        let student = log_softmax(student, temperature).gather(1, indices);
        let estimate = (weights * (student - teacher)).sum_dim(1).squeeze_dim::<1>(1).neg();
        mask.zero(estimate.mul_scalar(temperature.powi(2)))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: SampledLogits,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student_logits, teacher_logits, mask.clone()), &mask)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device, Int};

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    const TEACHER: [f32; 3] = [1.5, -0.5, 0.25];

    fn student(device: &Device) -> Tensor<2> {
        Tensor::<2>::from_floats([[-0.25, 0.75, 1.0]], device).require_grad()
    }

    /// Value and gradient.
    fn run(loss: Tensor<1>, student: &Tensor<2>) -> [f64; 4] {
        let gradient = student.grad(&loss.backward()).unwrap().into_data_as::<f64>().try_to_vec::<f64>().unwrap();
        [loss.into_scalar::<f64>(), gradient[0], gradient[1], gradient[2]]
    }

    #[test]
    fn expectation_over_all_draws_is_the_dense_loss_in_value_and_gradient() {
        let device = Device::flex().autodiff();
        for (temperature, power) in [(1.0, 1.0), (2.0, 1.0), (1.0, 0.5), (2.0, 0.0), (0.5, 1.5)] {
            let scaled = TEACHER.map(|logit| (f64::from(logit) / temperature).exp());
            let probs = scaled.map(|value| value / scaled.iter().sum::<f64>());
            let powers = probs.map(|p| p.powf(power));
            let proposal = powers.map(|value| value / powers.iter().sum::<f64>());
            // Two draws of three classes: nine outcomes.
            let mut expectation = [0.0; 4];
            for (first, second) in (0..9).map(|outcome| (outcome / 3, outcome % 3)) {
                let drawn = [first, second];
                let row = |of: &dyn Fn(usize) -> f64| {
                    Tensor::<2>::from_floats([drawn.map(|class| of(class) as f32)], &device)
                };
                let teacher = SampledLogits::new(
                    Tensor::<2, Int>::from_ints([drawn.map(|class| class as i32)], &device),
                    row(&|class| probs[class].ln()),
                    row(&|class| probs[class] / (2.0 * proposal[class])),
                    3,
                    temperature,
                );
                let student = student(&device);
                let loss = RandomKdLossConfig::new().init().unwrap();
                let result = run(loss.forward(student.clone(), teacher.unwrap(), None), &student);
                let chance = proposal[first] * proposal[second];
                expectation.iter_mut().zip(result).for_each(|(sum, value)| *sum += chance * value);
            }
            let student = student(&device);
            let dense = KdLossConfig::new().with_temperature(temperature).init().unwrap();
            let teacher = Tensor::<2>::from_floats([TEACHER], &device);
            let expected = run(dense.forward(student.clone(), teacher, None), &student);
            for (got, expected) in expectation.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-5, "T {temperature}, power {power}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn many_draws_near_the_dense_loss_where_a_top_k_stays_away() {
        let device = Device::flex().autodiff();
        let teacher = Tensor::<2>::from_floats([TEACHER], &device);
        let dense = KdLossConfig::new().with_temperature(1.0).init().unwrap();
        let student = student(&device);
        let expected = run(dense.forward(student.clone(), teacher.clone(), None), &student);
        let distance = |got: [f64; 4]| {
            got.iter().zip(expected).fold(0.0, |far: f64, (got, expected)| far.max((got - expected).abs()))
        };
        let loss = RandomKdLossConfig::new().init().unwrap();
        let sampled = SampledLogits::draw(teacher.clone(), 20_000, 1.0, 0.5, 5).unwrap();
        assert!(distance(run(loss.forward(student.clone(), sampled, None), &student)) < 0.02);
        let top = SparseLogits::from_dense(teacher, 2, Tail::Renormalise).unwrap();
        assert!(distance(run(dense.forward(student.clone(), top, None), &student)) > 0.1);
    }

    #[test]
    fn zero_for_any_draws_when_the_student_is_the_teacher() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_floats([[1.5, -0.5, 0.25], [0.0, 4.0, -3.0]], &device);
        let loss = RandomKdLossConfig::new().init().unwrap();
        for seed in 0..10 {
            let sampled = SampledLogits::draw(teacher.clone(), 3, 2.0, 0.7, seed).unwrap();
            let rows = loss.forward_no_reduction(teacher.clone(), sampled, None);
            assert!(rows.into_data().iter::<f32>().all(|row| row.abs() < 1e-5));
        }
    }

    #[test]
    fn masked_rows_and_padded_classes_take_no_part() {
        let device = Device::flex().autodiff();
        let wide =
            Tensor::<2>::from_floats([[-0.25, 0.75, 1.0, 9.0], [f32::NAN, 0.0, 0.0, 0.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([TEACHER, TEACHER], &device);
        let sampled = SampledLogits::draw(teacher, 4, 1.0, 1.0, 2).unwrap();
        let mask = Tensor::<1, Bool>::from_bool([true, false], &device);
        let loss = RandomKdLossConfig::new().with_vocabulary(VocabularyPolicy::Truncate).init().unwrap();
        let value = loss.forward(wide.clone(), sampled.clone(), mask);
        let gradient = wide.grad(&value.backward()).unwrap().into_data_as::<f64>().try_to_vec::<f64>().unwrap();
        let student = student(&device);
        let first = |tensor: &Tensor<2>| tensor.clone().narrow(0, 0, 1);
        let indices = sampled.indices().clone().narrow(0, 0, 1);
        let alone = SampledLogits::new(indices, first(sampled.log_probs()), first(sampled.weights()), 3, 1.0).unwrap();
        let exact = RandomKdLossConfig::new().init().unwrap();
        let expected = run(exact.forward(student.clone(), alone, None), &student);
        assert!((value.into_scalar::<f64>() - expected[0]).abs() < 1e-6);
        for (got, expected) in gradient.iter().zip(expected[1..].iter().chain(&[0.0; 5])) {
            assert!((got - expected).abs() < 1e-6);
        }
    }

    #[test]
    #[should_panic(expected = "draw from the first 2")]
    fn a_student_with_fewer_classes_is_refused() {
        let device = Device::flex();
        let sampled = SampledLogits::draw(Tensor::<2>::zeros([1, 3], &device), 4, 1.0, 1.0, 2).unwrap();
        let loss = RandomKdLossConfig::new().with_vocabulary(VocabularyPolicy::MaskPadding).init().unwrap();
        loss.forward(Tensor::<2>::zeros([1, 2], &device), sampled, None);
    }
}
