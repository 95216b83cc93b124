use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, TeacherLogits, VocabularyPolicy,
    align::align,
    floor::{FLOOR, finite_max},
    norm::l2_norm,
};

/// What the authors' code adds to the deviation, by which it divides.
const EPSILON: f64 = 1e-7;

/// Configuration of [`Standardize`].
#[derive(Config, Debug)]
pub struct StandardizeConfig {
    /// What to do when the numbers of classes differ; the loss that follows sees equal ones.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl StandardizeConfig {
    /// The transform.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<Standardize, ConfigError> {
        Ok(Standardize { vocabulary: self.vocabulary })
    }
}

/// Logit standardisation: the Z-score of each row of logits, in front of any loss on logits, so that the student
/// learns how the teacher ranks and spaces the classes and not how large its logits are.
///
/// ```text
/// z(x) = (x - mean(x)) / (deviation(x) + 1e-7),   over the classes of a row, for student and teacher alike
/// ```
///
/// **Scale**: what comes out has mean 0 and deviation 1 and goes to a loss as logits do, with its temperature and its
/// temperature squared. The temperature becomes the "base temperature" of the paper: with logits of deviation 1 it
/// counts in units of the teacher's spread, and 2 is the authors' usual choice. Their weight for the term is large, 9
/// for KD with T² included (6 to 18 by pair), because the standardised divergence is small. [`KdLoss`](crate::KdLoss)
/// on standardised logits does not change when either side's logits are scaled or shifted.
///
/// The deviation is the code's, with n - 1 and 1e-7 added to it: that is what made the published numbers and what
/// torchdistill has. The paper's algorithm divides by n: for 100 classes a temperature that is 0.5 % larger.
///
/// # Edges
/// Classes of logit `-inf` take no part in mean and deviation, and stay `-inf`. A row of equal logits has no spread: it
/// becomes zeros and gets no gradient (the authors' gradient is NaN).
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense, or sparse with every class listed;
/// - `mask`: a boolean per row, true = counts; give the loss the same mask. Rows that do not count become zeros;
/// - value: the student's `[rows, classes]`, and the teacher's.
///
/// # Gradients
/// To `student_logits` only, through the student's mean and deviation too.
///
/// # Panics
/// `forward` if a sparse teacher lists less than its vocabulary (mean and deviation of the rest are not known), if the
/// rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{KdLossConfig, StandardizeConfig};
///
/// let device = Device::flex();
/// // The teacher's logits are five times the student's and shifted: nothing is left to learn.
/// let student = Tensor::<2>::from_floats([[1.0, 2.0, 6.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[-95.0, -90.0, -70.0]], &device);
/// let standardize = StandardizeConfig::new().init()?;
/// let (student, teacher) = standardize.forward(student, teacher, None);
/// // Mean 3, deviation sqrt((4 + 1 + 9) / 2) = 2.645751.
/// let first = student.clone().narrow(1, 0, 1).into_scalar::<f64>();
/// assert!((first + 2.0 / 2.645751).abs() < 1e-6);
/// let kd = KdLossConfig::new().with_temperature(2.0).init()?.forward(student, teacher, None);
/// assert!(kd.into_scalar::<f64>().abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Sun et al., *Logit Standardization in Knowledge Distillation*, 2024, arXiv 2403.01427, algorithm 1.
/// - Reference code: sunshangquan/logit-standardization-KD `mdistiller/distillers/KD.py` and `DKD.py` at f6e5aa51
///   (`normalize`).
#[derive(Debug, Clone)]
pub struct Standardize {
    vocabulary: VocabularyPolicy,
}

impl Standardize {
    /// Student and teacher, each row standardised.
    pub fn forward<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> (Tensor<2>, TeacherLogits) {
        let (teacher, mask) = (teacher_logits.into(), mask.into());
        if let TeacherLogits::Sparse(sparse) = &teacher {
            let (k, vocabulary) = (sparse.k(), sparse.vocabulary());
            assert!(
                k == vocabulary,
                "`Standardize` needs every logit of the teacher for its mean and deviation, got {k} of {vocabulary}"
            );
        }
        let aligned = align(student_logits, teacher, &mask, self.vocabulary);
        (z_score(aligned.student), TeacherLogits::Dense(z_score(aligned.teacher)))
    }
}

/// The Z-score of each row over the classes that it has.
fn z_score(logits: Tensor<2>) -> Tensor<2> {
    let lacking = logits.clone().lower_elem(FLOOR / 2.0);
    // The mean of equal logits may differ from them by rounding, and what is left would be divided by itself; that of
    // zeros does not.
    let logits = (logits.clone() - finite_max(logits)).mask_fill(lacking.clone(), 0.0);
    let classes = lacking.clone().bool_not().float().cast(logits.dtype()).sum_dim(1);
    let mean = logits.clone().sum_dim(1) / classes.clone().clamp_min(1.0);
    let centred = (logits - mean).mask_fill(lacking.clone(), 0.0);
    let deviation = l2_norm(centred.clone(), 1) / classes.sub_scalar(1.0).clamp_min(1.0).sqrt();
    let flat = deviation.clone().lower_equal_elem(1e-12);
    let shape = centred.dims();
    let standard =
        centred.mask_fill(flat.clone().expand(shape), 0.0) / deviation.mask_fill(flat, 1.0).add_scalar(EPSILON);
    standard.mask_fill(lacking, f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{KdLossConfig, SparseLogits, Tail};

    fn kd(student: Tensor<2>, teacher: impl Into<TeacherLogits>) -> f64 {
        let (student, teacher) = StandardizeConfig::new().init().unwrap().forward(student, teacher, None);
        KdLossConfig::new().with_temperature(2.0).init().unwrap().forward(student, teacher, None).into_scalar::<f64>()
    }

    fn logits() -> (Tensor<2>, Tensor<2>) {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1], [1.0, 0.0, 0.5, -2.0]], &device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0], [0.2, 0.9, -1.5, 0.6]], &device);
        (student, teacher)
    }

    #[test]
    fn scale_and_shift_of_either_side_change_nothing() {
        let (student, teacher) = logits();
        let expected = kd(student.clone(), teacher.clone());
        assert!(expected > 0.01);
        let moved = kd(student.clone().mul_scalar(7.0).add_scalar(-3.0), teacher.clone());
        assert_relative_eq!(moved, expected, max_relative = 1e-5);
        let moved = kd(student.clone(), teacher.clone().mul_scalar(0.2).add_scalar(11.0));
        assert_relative_eq!(moved, expected, max_relative = 1e-5);
        // A mirrored teacher is another teacher.
        assert!((kd(student, teacher.neg()) - expected).abs() > 0.01);
    }

    #[test]
    fn a_class_that_a_side_lacks_changes_nothing_of_the_others() {
        let (student, teacher) = logits();
        let absent = Tensor::<2>::full([2, 1], f32::NEG_INFINITY, &student.device());
        let with = |side: &Tensor<2>| Tensor::cat(vec![side.clone(), absent.clone()], 1);
        assert_relative_eq!(kd(with(&student), with(&teacher)), kd(student, teacher), max_relative = 1e-6);
    }

    #[test]
    fn a_row_without_spread_has_no_gradient() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[4.0, 4.0, 4.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[1.0, 2.0, 4.0]], &device);
        let (standard, teacher) = StandardizeConfig::new().init().unwrap().forward(student.clone(), teacher, None);
        let value = KdLossConfig::new().init().unwrap().forward(standard, teacher, None);
        let gradient = student.grad(&value.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(value.into_scalar::<f64>() > 0.01);
        assert_eq!(gradient, [0.0; 3]);
    }

    #[test]
    fn a_mean_that_rounds_does_not_give_a_row_spread() {
        for classes in [10, 100] {
            let device = Device::flex().autodiff();
            let student = Tensor::<2>::full([1, classes], 0.1, &device).require_grad();
            let teacher: Vec<f32> = (0..classes).map(|class| class as f32).collect();
            let teacher = Tensor::<1>::from_floats(teacher.as_slice(), &device).unsqueeze_dim::<2>(0);
            let (standard, teacher) = StandardizeConfig::new().init().unwrap().forward(student.clone(), teacher, None);
            assert_eq!(standard.clone().abs().max().into_scalar::<f64>(), 0.0, "{classes}");
            let value = KdLossConfig::new().init().unwrap().forward(standard, teacher, None);
            let gradient = student.grad(&value.backward()).unwrap();
            assert_eq!(gradient.abs().max().into_scalar::<f64>(), 0.0, "{classes}");
        }
    }

    #[test]
    fn the_gradient_goes_through_mean_and_deviation() {
        // So it is orthogonal to a shift and, but for the 1e-7, to a scale of the logits.
        let (student, teacher) = logits();
        let student = student.autodiff().require_grad();
        let (standard, teacher) = StandardizeConfig::new().init().unwrap().forward(student.clone(), teacher, None);
        let value = KdLossConfig::new().init().unwrap().forward(standard, teacher, None);
        let gradient = student.grad(&value.backward()).unwrap();
        let along = |direction: Tensor<2>| (gradient.clone() * direction).sum().into_scalar::<f64>().abs();
        assert!(along(gradient.clone()) > 1e-3);
        assert!(along(gradient.ones_like()) < 1e-6 && along(student.clone().without_autodiff()) < 1e-6);
    }

    #[test]
    fn a_teacher_that_lists_everything_is_as_good_as_a_dense_one() {
        let (student, teacher) = logits();
        let sparse = SparseLogits::from_dense(teacher.clone(), 4, Tail::Bucket).unwrap();
        assert_relative_eq!(kd(student.clone(), sparse), kd(student, teacher), max_relative = 1e-5);
    }

    #[test]
    #[should_panic(expected = "needs every logit of the teacher for its mean and deviation, got 2 of 4")]
    fn a_top_k_is_refused() {
        let (student, teacher) = logits();
        kd(student, SparseLogits::from_dense(teacher, 2, Tail::Bucket).unwrap());
    }
}
