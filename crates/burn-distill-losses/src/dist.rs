use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy, align::ByClass, floor::log_softmax, norm::l2_norm,
    tempered::Tempered,
};

/// What the authors' code adds to the product of two norms, so that a constant vector correlates with nothing.
const EPSILON: f64 = 1e-8;

/// Configuration of [`DistLoss`].
#[derive(Config, Debug)]
pub struct DistLossConfig {
    /// Weight of the inter-class relation, in [0, inf).
    #[config(default = 1.0)]
    pub beta: f64,
    /// Weight of the intra-class relation, in [0, inf).
    #[config(default = 1.0)]
    pub gamma: f64,
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl DistLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If a weight is not in [0, inf) or `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<DistLoss, ConfigError> {
        Ok(DistLoss {
            beta: ConfigError::check_weight("beta", self.beta)?,
            gamma: ConfigError::check_weight("gamma", self.gamma)?,
            tempered: Tempered::new(self.temperature, self.reduction, self.vocabulary)?,
        })
    }
}

/// DIST: correlation with a strong teacher instead of equality. The student keeps, for each sample, the teacher's
/// relation between classes, and for each class, its relation between samples.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// inter = mean over rows b of     1 - pearson(q[b, :], p[b, :])
/// intra = mean over classes c of  1 - pearson(q[:, c], p[:, c])
/// loss  = T² (β inter + γ intra)
/// ```
///
/// **Scale**: each relation is in [0, 2], times temperature squared as in the authors' code. `intra` is a property of
/// the batch: every row's value holds its own `inter` and the whole `intra`, so that the mean over unmasked rows is
/// the loss, and `Sum` is the number of rows times it. Masked-out rows take no part in either.
/// A single row has no relation between samples: `intra` is then 1, without gradient, as in the authors' code.
/// Against a [sparse](crate::SparseLogits) teacher `inter` compares the coarse distributions, and `intra` the classes
/// that some row lists, with probability 0 on both sides in the rows that do not list them.
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
/// [`DistLossConfig::init`] if a weight is not in [0, inf) or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::DistLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.6, 0.2, 0.2], [0.2, 0.2, 0.6]], &device).log();
/// let teacher = Tensor::<2>::from_floats([[0.2, 0.2, 0.6], [0.2, 0.6, 0.2]], &device).log();
/// let loss = DistLossConfig::new().with_gamma(0.0).init()?;
/// // The rows correlate by -1/2: the inter-class relation is 1.5.
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 1.5).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Huang et al., *Knowledge Distillation from A Stronger Teacher*, 2022, arXiv 2205.10536, equations 8 to 10. The
///   paper has no factor T²; its experiments on CIFAR-100 use β = γ = 2, T = 4.
/// - Reference code: hunto/image_classification_sota `lib/models/losses/dist_kd.py` at 6f7a70a1.
#[derive(Debug, Clone)]
pub struct DistLoss {
    beta: f64,
    gamma: f64,
    tempered: Tempered,
}

impl DistLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { tempered: self.tempered.at(temperature), ..self.clone() }
    }

    /// The loss of each row, `[rows]`: its inter-class relation and the batch's intra-class relation.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.tempered.rows(student_logits, teacher_logits.into(), &mask, |aligned| {
            let temperature = self.tempered.temperature();
            let (student, teacher, by_class) = aligned.into_parts();
            let (student, teacher) = (log_softmax(student, temperature).exp(), log_softmax(teacher, temperature).exp());
            let inter = inter_class(student.clone(), teacher.clone(), &by_class).mul_scalar(self.beta);
            let intra = intra_class(student, teacher, &by_class, &mask).mul_scalar(self.gamma);
            inter + intra
        })
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let (teacher_logits, mask) = (teacher_logits.into(), mask.into());
        let divisor = self.tempered.divisor(&student_logits, &teacher_logits, &mask);
        let values = self.forward_no_reduction(student_logits, teacher_logits, mask.clone());
        self.tempered.reduce(values, &mask, divisor)
    }
}

/// `1 - pearson` of each row, `[rows]`.
fn inter_class(student: Tensor<2>, teacher: Tensor<2>, by_class: &ByClass) -> Tensor<1> {
    let columns = by_class.columns(&teacher);
    let centred = |probs: Tensor<2>| match &columns {
        // Padding has probability 0 already: it only must not count in the mean.
        Some(columns) => {
            let mean = probs.clone().sum_dim(1) / columns.clone().sum_dim(1).clamp_min(1.0);
            (probs - mean) * columns.clone()
        }
        None => probs.clone() - probs.mean_dim(1),
    };
    let correlation = cosine(centred(student), centred(teacher), 1);
    correlation.neg().add_scalar(1.0).squeeze_dim(1)
}

/// The mean over classes of `1 - pearson` over the unmasked rows, `[1]`.
fn intra_class(student: Tensor<2>, teacher: Tensor<2>, by_class: &ByClass, mask: &Mask) -> Tensor<1> {
    let weights = mask.weights(&teacher);
    let rows = weights.clone().sum_dim(0).clamp_min(1.0);
    let centred = |probs: Tensor<2>| {
        let probs = by_class.scatter(probs) * weights.clone();
        let mean = probs.clone().sum_dim(0) / rows.clone();
        (probs - mean) * weights.clone()
    };
    let distance = cosine(centred(student), centred(teacher), 0).neg().add_scalar(1.0);
    match by_class.listed(&weights) {
        Some(listed) => (distance * listed.clone()).sum() / listed.sum().clamp_min(1.0),
        None => distance.mean(),
    }
}

fn cosine(a: Tensor<2>, b: Tensor<2>, dim: usize) -> Tensor<2> {
    let norms = l2_norm(a.clone(), dim) * l2_norm(b.clone(), dim);
    (a * b).sum_dim(dim) / norms.add_scalar(EPSILON)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{SparseLogits, Tail};

    #[test]
    fn intra_class_relation_is_over_the_batch() {
        let device = Device::flex();
        // Over the samples each class of the student moves exactly against the teacher's: correlation -1.
        let student = Tensor::<2>::from_floats([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]], &device).log();
        let teacher = Tensor::<2>::from_floats([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]], &device).log();
        let loss = DistLossConfig::new().with_beta(0.0).with_gamma(0.5).init().unwrap();
        assert!((loss.forward(student, teacher, None).into_scalar::<f64>() - 1.0).abs() < 1e-4);
    }

    #[test]
    fn several_rows_that_equal_the_teacher_give_zero() {
        let device = Device::flex();
        device.seed(2);
        let logits = Tensor::<2>::random([6, 5], Distribution::Default, &device);
        let loss = DistLossConfig::new().with_beta(2.0).with_gamma(3.0).with_temperature(2.0).init().unwrap();
        let dense = loss.forward(logits.clone(), logits.clone(), None).into_scalar::<f64>();
        assert!(dense.abs() < 1e-3, "{dense}");
        for tail in [Tail::Bucket, Tail::Renormalise] {
            let sparse = SparseLogits::from_dense(logits.clone(), 3, tail).unwrap();
            let sparse = loss.forward(logits.clone(), sparse, None).into_scalar::<f64>();
            assert!(sparse.abs() < 1e-3, "{tail:?}: {sparse}");
        }
    }

    #[test]
    fn linear_relation_is_enough() {
        let device = Device::flex();
        // Probabilities halfway to uniform correlate perfectly over the classes of a row.
        let teacher = Tensor::<2>::from_floats([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]], &device);
        let student = teacher.clone().mul_scalar(0.5).add_scalar(0.5 / 3.0);
        let loss = DistLossConfig::new().init().unwrap();
        let value = loss.forward(student.log(), teacher.log(), None).into_scalar::<f64>();
        assert!(value.abs() < 1e-5, "{value}");
    }
}
