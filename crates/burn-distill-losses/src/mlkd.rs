use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy,
    align::{Aligned, ByClass, align},
    divergence::kl,
};

/// Configuration of [`MlkdLoss`].
#[derive(Config, Debug)]
pub struct MlkdLossConfig {
    /// The temperatures at which both sides are compared, each in (0, inf), at least one.
    #[config(default = "vec![2.0, 3.0, 4.0, 5.0, 6.0]")]
    pub temperatures: Vec<f64>,
    /// Weight of the instances' part, in [0, inf).
    #[config(default = 1.0)]
    pub instance_weight: f64,
    /// Weight of the batch's part, in [0, inf).
    #[config(default = 1.0)]
    pub batch_weight: f64,
    /// Weight of the classes' part, in [0, inf).
    #[config(default = 1.0)]
    pub class_weight: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl MlkdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If there is no temperature, one of them is not in (0, inf), or a weight is not in [0, inf).
    pub fn init(&self) -> Result<MlkdLoss, ConfigError> {
        ConfigError::check_count("temperatures.len()", self.temperatures.len())?;
        for temperature in &self.temperatures {
            ConfigError::check_positive("temperatures", *temperature)?;
        }
        Ok(MlkdLoss {
            temperatures: self.temperatures.clone(),
            instance_weight: ConfigError::check_weight("instance_weight", self.instance_weight)?,
            batch_weight: ConfigError::check_weight("batch_weight", self.batch_weight)?,
            class_weight: ConfigError::check_weight("class_weight", self.class_weight)?,
            reduction: self.reduction,
            vocabulary: self.vocabulary,
        })
    }
}

/// Multi-level logit distillation: predictions of instances, similarities within the batch and between the classes, at
/// several temperatures.
///
/// ```text
/// P, Q = softmax of the teacher's and the student's logits / T, [rows, classes];  n rows that count, c classes
/// instance = mean over rows of  T² KL(P_i || Q_i)
/// batch    = |P Pᵀ - Q Qᵀ|² / n         class = |Pᵀ P - Qᵀ Q|² / c
/// loss = sum over temperatures of  w_i instance + w_b batch + w_c class
/// ```
///
/// **Scale**: summed, not averaged, over the temperatures. The instances' part is in nats, times temperature squared.
/// The other two are squared differences of probabilities and have no factor, as in the paper and the code; note that
/// `batch` and `class` grow with the rows of a batch. A row's value holds its own divergence, its row of the batch's
/// part and all of the classes' part, so that the mean over unmasked rows is the loss. Masked-out rows take no part.
///
/// # Where the authors' trainer departs
/// The three parts are those of its functions `kd_loss`, `bc_loss` and `cc_loss`. What it makes of them belongs to the
/// objective:
/// - it shows each image weakly and strongly augmented: two terms. Only the instances' part of the strong view counts;
///   its other two are computed and left out of the sum. The strong view's instances are taken at 4, 3 and 5, and at
///   2 and 6 the weak view stands in their place;
/// - it means to keep only the samples that the teacher is less sure of than of the median one, and only the classes
///   with less than the median probability. But its functions have averaged before the mask comes, so that the mask
///   multiplies the number by its own mean: each part of the weak view has weight one half, and every sample counts. To
///   choose samples in earnest, give a [`Mask`].
///
/// With weight w it comes to: on the weak view `0.5 w` times this loss, and `w` times its instances' part at 2 and 6
/// alone; on the strong view `w` times the instances' part at 3, 4 and 5.
///
/// As it has several temperatures there is no `at_temperature`; a schedule makes the loss anew from its config.
///
/// Against a [sparse](crate::SparseLogits) teacher the instances' part compares the coarse distributions, the other two
/// the classes that a row lists, with probability 0 on both sides for those that it does not.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or sparse;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only.
///
/// # Errors
/// [`MlkdLossConfig::init`] if there is no temperature, one is not in (0, inf), or a weight is not in [0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::MlkdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device);
/// let loss = MlkdLossConfig::new().with_temperatures(vec![1.0]).init()?;
/// // P = (3/4, 1/4), Q = (1/2, 1/2). Instance: 0.130812. Batch: (10/16 - 8/16)² = 1/64.
/// // Class: PᵀP - QᵀQ = [[5, -1], [-1, -3]] / 16, its squares sum to 36/256, over 2 classes 9/128.
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - (0.130812 + 1.0 / 64.0 + 9.0 / 128.0)).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Jin, Wang, Lin, *Multi-Level Logit Distillation*, CVPR 2023, section 3.
/// - Reference code: Jin-Ying/Multi-Level-Logit-Distillation `mdistiller/distillers/KD_ours.py` at 5ee473fc; the same in
///   sunshangquan/logit-standardization-KD `mdistiller/distillers/MLKD.py` at f6e5aa51.
#[derive(Debug, Clone)]
pub struct MlkdLoss {
    temperatures: Vec<f64>,
    instance_weight: f64,
    batch_weight: f64,
    class_weight: f64,
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
}

impl MlkdLoss {
    /// The loss of each row, `[rows]`: its own part, its row of the batch's and the whole of the classes' part.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let aligned = align(student_logits, teacher_logits.into(), &mask, self.vocabulary);
        let (_, _, by_class) = aligned.clone().into_parts();
        let of_temperature = |temperature: &f64| self.level(aligned.clone(), *temperature, &by_class, &mask);
        let levels: Vec<_> = self.temperatures.iter().map(of_temperature).collect();
        mask.zero(Tensor::cat(levels, 1).sum_dim(1).squeeze_dim(1))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student_logits, teacher_logits, mask.clone()), &mask)
    }

    /// The three parts at one temperature, `[rows, 1]`.
    fn level(&self, aligned: Aligned, temperature: f64, by_class: &ByClass, mask: &Mask) -> Tensor<2> {
        let (student, teacher) = aligned.log_probs(temperature);
        let instance: Tensor<2> = kl(teacher.clone(), student.clone()).unsqueeze_dim(1);
        let instance = instance.mul_scalar(self.instance_weight * temperature.powi(2));
        if self.batch_weight == 0.0 && self.class_weight == 0.0 {
            return instance;
        }
        let weights = mask.weights(&student);
        let probs = |log_probs: Tensor<2>| by_class.scatter(log_probs.exp()) * weights.clone();
        let relations = Relations::new(probs(student), probs(teacher));
        let batch = relations.batch().mul_scalar(self.batch_weight);
        instance + batch + relations.classes().mul_scalar(self.class_weight)
    }
}

/// Products of rows, `[rows, rows]`, of the student's probabilities Q, the teacher's P and E = Q - P. What is small
/// because student and teacher are close is never a difference of large numbers.
struct Relations {
    /// `E Qᵀ`
    by_student: Tensor<2>,
    /// `E Pᵀ`
    by_teacher: Tensor<2>,
    /// `Q Qᵀ + P Pᵀ`
    both: Tensor<2>,
    classes: f64,
}

impl Relations {
    fn new(student: Tensor<2>, teacher: Tensor<2>) -> Self {
        let classes = student.dims()[1] as f64;
        let difference = student.clone() - teacher.clone();
        let both =
            student.clone().matmul(student.clone().transpose()) + teacher.clone().matmul(teacher.clone().transpose());
        Self {
            by_student: difference.clone().matmul(student.transpose()),
            by_teacher: difference.matmul(teacher.transpose()),
            both,
            classes,
        }
    }

    /// The squares of each row of `Q Qᵀ - P Pᵀ = E Qᵀ + P Eᵀ`, `[rows, 1]`.
    fn batch(&self) -> Tensor<2> {
        (self.by_student.clone() + self.by_teacher.clone().transpose()).square().sum_dim(1)
    }

    /// `|Qᵀ Q - Pᵀ P|² / classes`, `[1, 1]`, from products of rows: with `Qᵀ Q - Pᵀ P = Eᵀ Q + Pᵀ E` it is
    /// `<E Eᵀ, Q Qᵀ> + <P Pᵀ, E Eᵀ> + 2 <(E Qᵀ)ᵀ, E Pᵀ>`, and a matrix of classes by classes is never made.
    fn classes(&self) -> Tensor<2> {
        let of_difference = self.by_student.clone() - self.by_teacher.clone();
        let crossed = self.by_student.clone().transpose() * self.by_teacher.clone();
        let sum = (of_difference * self.both.clone() + crossed.mul_scalar(2.0)).sum();
        sum.div_scalar(self.classes).unsqueeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Bool, Device};

    use super::*;
    use crate::{KdLossConfig, floor::log_softmax};

    fn logits() -> (Tensor<2>, Tensor<2>) {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1], [1.0, 0.0, 0.5, -2.0]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0], [0.2, 0.9, -1.5, 0.6]], &device);
        (student, teacher)
    }

    #[test]
    fn instances_alone_are_kd_added_up_over_the_temperatures() {
        let (student, teacher) = logits();
        let config = MlkdLossConfig::new().with_batch_weight(0.0).with_class_weight(0.0);
        let value = config.with_temperatures(vec![2.0, 5.0]).init().unwrap();
        let value = value.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        let kd = |temperature| {
            let kd = KdLossConfig::new().with_temperature(temperature).init().unwrap();
            kd.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>()
        };
        assert_relative_eq!(value, kd(2.0) + kd(5.0), max_relative = 1e-5);
    }

    #[test]
    fn relations_are_those_of_the_whole_matrices() {
        let (student, teacher) = logits();
        let (q, p) = (log_softmax(student, 1.0).exp(), log_softmax(teacher, 1.0).exp());
        let relations = Relations::new(q.clone(), p.clone());
        let rows = q.clone().matmul(q.clone().transpose()) - p.clone().matmul(p.clone().transpose());
        let classes = q.clone().transpose().matmul(q) - p.clone().transpose().matmul(p);
        let (batch, expected) =
            (relations.batch().sum().into_scalar::<f64>(), rows.square().sum().into_scalar::<f64>());
        assert_relative_eq!(batch, expected, max_relative = 1e-5);
        let expected = classes.square().sum().into_scalar::<f64>() / 4.0;
        assert_relative_eq!(relations.classes().into_scalar::<f64>(), expected, max_relative = 1e-5);
    }

    #[test]
    fn a_masked_row_is_in_no_relation() {
        let (student, teacher) = logits();
        let loss = MlkdLossConfig::new().with_instance_weight(0.0).init().unwrap();
        let mask = Tensor::<1, Bool>::from_bool([false, true], &student.device());
        let alone = loss.forward(student.clone().narrow(0, 1, 1), teacher.clone().narrow(0, 1, 1), None);
        let masked = loss.forward(student, teacher, mask);
        assert_relative_eq!(masked.into_scalar::<f64>(), alone.into_scalar::<f64>(), max_relative = 1e-6);
    }

    #[test]
    fn rejects_temperatures_out_of_range_and_none() {
        let error = MlkdLossConfig::new().with_temperatures(vec![2.0, 0.0]).init().unwrap_err();
        assert_eq!(error.to_string(), "`temperatures` must be in (0, inf), got 0");
        let error = MlkdLossConfig::new().with_temperatures(Vec::new()).init().unwrap_err();
        assert_eq!(error.to_string(), "`temperatures.len()` must be in [1, inf), got 0");
        let error = MlkdLossConfig::new().with_class_weight(-1.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`class_weight` must be in [0, inf), got -1");
    }
}
