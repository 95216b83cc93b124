use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy, align::align, floor::FLOOR};

/// Configuration of [`LogitMseLoss`].
#[derive(Config, Debug)]
pub struct LogitMseLossConfig {
    /// Whether the mean of each row's logits is taken off both sides first: a softmax does not see it.
    #[config(default = false)]
    pub centred: bool,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl LogitMseLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<LogitMseLoss, ConfigError> {
        Ok(LogitMseLoss { centred: self.centred, reduction: self.reduction, vocabulary: self.vocabulary })
    }
}

/// Logit regression: the mean squared difference between the student's and the teacher's logits.
///
/// ```text
/// loss             = mean over rows and classes of  (z - y)²,   z = student_logits, y = teacher_logits
/// loss, `centred`  = mean over rows and classes of  (z - mean z - (y - mean y))²,   means over the classes
/// ```
///
/// **Scale**: mean over rows and classes, without a temperature, as Kim's code and PyTorch's `mse_loss` have it; Ba and
/// Caruana sum over the classes and halve: `classes / 2` times this. [`KdLoss`](crate::KdLoss) tends to half of the
/// centred one as its temperature grows (Hinton 2015, equation 4, for logits of mean zero); without the centring Kim
/// et al. find that the student also learns the teacher's mean logit, which is of no use to its predictions.
///
/// # Classes that a side lacks
/// A class whose logit is `-inf` on either side (masked out, or padding under [`VocabularyPolicy::MaskPadding`]) has
/// no logit to match: it is left out, and the row's mean is over the others.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense;
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `2 (z - y) / (rows · classes)`.
///
/// # Panics
/// `forward` if the teacher is [sparse](crate::SparseLogits) (log-probabilities of some classes are no logits: the
/// row's offset and the other classes are lost), if the rows differ, or if the numbers of classes differ and the policy
/// is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::LogitMseLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 5.0]], &device);
/// // Differences 1 and -3: (1 + 9) / 2. Their mean is -1, which leaves 2 and -2.
/// let loss = |centred: bool| {
///     let loss = LogitMseLossConfig::new().with_centred(centred).init()?;
///     Ok::<_, burn_distill_losses::ConfigError>(loss.forward(student.clone(), teacher.clone(), None))
/// };
/// assert_eq!(loss(false)?.into_scalar::<f64>(), 5.0);
/// assert_eq!(loss(true)?.into_scalar::<f64>(), 4.0);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Ba, Caruana, *Do Deep Nets Really Need to be Deep?*, 2014, arXiv 1312.6184, equation 1.
/// - Kim et al., *Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation*, 2021,
///   arXiv 2105.08919.
/// - Reference code: jhoon-oh/kd_data `code/image_classfication/tools/losses.py` at 6aa18226 (`mse_logit`), not centred.
#[derive(Debug, Clone)]
pub struct LogitMseLoss {
    centred: bool,
    reduction: Reduction,
    vocabulary: VocabularyPolicy,
}

impl LogitMseLoss {
    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let (teacher, mask) = (teacher_logits.into(), mask.into());
        assert!(
            matches!(teacher, TeacherLogits::Dense(_)),
            "`LogitMseLoss` compares logits, and a sparse teacher holds log-probabilities of some classes: it needs \
             `TeacherLogits::Dense`"
        );
        let aligned = align(student_logits, teacher, &mask, self.vocabulary);
        let floor = FLOOR / 2.0;
        let lacking = aligned.student.clone().lower_elem(floor).bool_or(aligned.teacher.clone().lower_elem(floor));
        let difference = (aligned.student - aligned.teacher).mask_fill(lacking.clone(), 0.0);
        let classes = lacking.clone().bool_not().float().cast(difference.dtype()).sum_dim(1).clamp_min(1.0);
        let difference = if self.centred {
            let mean = difference.clone().sum_dim(1) / classes.clone();
            (difference - mean).mask_fill(lacking, 0.0)
        } else {
            difference
        };
        mask.zero((difference.square().sum_dim(1) / classes).squeeze_dim(1))
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
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    #[test]
    fn half_of_the_centred_one_is_the_limit_of_kd() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[1.0, -2.0, 0.5, 0.7]], &device);
        let teacher = Tensor::<2>::from_floats([[-1.0, 0.0, 2.0, -1.5]], &device);
        let kd = KdLossConfig::new().with_temperature(100.0).init().unwrap();
        let kd = kd.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        let mse = LogitMseLossConfig::new().with_centred(true).init().unwrap();
        assert_relative_eq!(mse.forward(student, teacher, None).into_scalar::<f64>() / 2.0, kd, max_relative = 0.01);
    }

    #[test]
    fn a_class_that_a_side_lacks_has_nothing_to_match() {
        let device = Device::flex().autodiff();
        let infinity = f32::NEG_INFINITY;
        let student = Tensor::<2>::from_floats([[1.0, infinity, 2.0, 7.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[0.0, 3.0, 5.0, infinity]], &device);
        for (centred, expected) in [(false, 5.0), (true, 4.0)] {
            let loss = LogitMseLossConfig::new().with_centred(centred).init().unwrap();
            let value = loss.forward(student.clone(), teacher.clone(), None);
            let gradient = student.grad(&value.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
            assert_eq!(value.into_scalar::<f64>(), expected);
            assert_eq!(gradient, if centred { [2.0, 0.0, -2.0, 0.0] } else { [1.0, 0.0, -3.0, 0.0] });
        }
    }

    #[test]
    #[should_panic(expected = "it needs `TeacherLogits::Dense`")]
    fn a_sparse_teacher_is_refused() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[1.0, 2.0, 3.0]], &device);
        let sparse = SparseLogits::from_dense(logits.clone(), 3, Tail::Bucket).unwrap();
        LogitMseLossConfig::new().init().unwrap().forward(logits, sparse, None);
    }
}
