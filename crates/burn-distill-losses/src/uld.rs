use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction, align::flatten_rows, error::expect_temperature, floor::softmax, precision::constant,
};

/// Configuration of [`UldLoss`].
#[derive(Config, Debug)]
pub struct UldLossConfig {
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How tokens become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl UldLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<UldLoss, ConfigError> {
        let temperature = ConfigError::check_temperature(self.temperature)?;
        Ok(UldLoss { temperature, reduction: self.reduction })
    }
}

/// Universal logit distillation: the Wasserstein distance between the sorted probabilities of student and teacher, whose
/// tokenizers need have nothing in common.
///
/// ```text
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over unmasked tokens of  Σ_i |p↓_i - q↓_i|
/// p↓, q↓: sorted from the largest to the smallest, the shorter padded with 0
/// ```
///
/// It compares how sure the two are, not what they are sure of: the labels must say that. Token i of the student is
/// compared with token i of the teacher, so the caller brings both to as many rows: the paper cuts the longer answer;
/// [`GoldLoss`](crate::GoldLoss) merges tokens that cover the same characters.
///
/// **Scale**: in [0, 2 T²], dimensionless, averaged over unmasked tokens. Temperature squared is applied as everywhere in
/// this library; the authors, TRL and DSKD have none (and a temperature for each side). The authors average over the
/// tokens of each sequence and then over sequences, so that a token of a short answer weighs more; here every token counts
/// the same.
///
/// # Shapes
/// - `student_logits`: `[.., student classes]`, `teacher_logits`: `[.., teacher classes]`, as many rows (tokens);
/// - `mask`: a boolean per token, true = counts;
/// - value: `[1]`, or `[tokens]` from `forward_no_reduction`, where a masked-out token is 0.
///
/// # Gradients
/// To `student_logits` only. Where a sorted probability equals the teacher's there is a kink: gradient 0.
///
/// # Errors
/// [`UldLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the numbers of rows differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::UldLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 3f32.ln()]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 0.0, 2f32.ln()]], &device);
/// // (3/4, 1/4, 0) against (1/2, 1/4, 1/4).
/// let value = UldLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.5).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Boizard et al., *Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs*, 2024,
///   arXiv 2402.12030, section 3.
/// - Reference code: Nicolas-BZRD/llm-recipes `models/distillation_model.py` at ab6e7980 (`DistillationLoss`); DSKD
///   `code/criterions/universal_logit_distillation.py` at 077337ac, a sum over tokens.
#[derive(Debug, Clone)]
pub struct UldLoss {
    temperature: f64,
    reduction: Reduction,
}

impl UldLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each token, `[tokens]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
        let teacher = flatten_rows(teacher_logits);
        let (rows, teacher_rows) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(rows, teacher_rows, "`student_logits` have {rows} rows and `teacher_logits` {teacher_rows}");
        let teacher = mask.fill_rows(constant(teacher, student.dtype()), 0.0);
        let (student, _) = softmax(student, self.temperature);
        let (teacher, _) = softmax(teacher, self.temperature);
        mask.zero(sorted_distance(student, teacher).mul_scalar(self.temperature.powi(2)))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student_logits, teacher_logits, mask.clone()), &mask)
    }
}

/// The sum of absolute differences of the sorted rows, `[rows]`; the narrower side is padded with 0.
pub(crate) fn sorted_distance(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let width = student.dims()[1].max(teacher.dims()[1]);
    let sorted = |probs: Tensor<2>| {
        let [rows, classes] = probs.dims();
        let order = probs.clone().without_autodiff().argsort_descending(1);
        let sorted = probs.gather(1, order);
        if classes == width {
            return sorted;
        }
        let nothing = Tensor::zeros([rows, width - classes], (&sorted.device(), sorted.dtype()));
        Tensor::cat(vec![sorted, nothing], 1)
    };
    (sorted(student) - sorted(teacher)).abs().sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn what_the_classes_are_does_not_matter() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let teacher = student.clone().flip([1]);
        let value = UldLossConfig::new().init().unwrap().forward(student, teacher, None).into_scalar::<f64>();
        assert!(value < 1e-6, "{value}");
    }

    #[test]
    fn one_class_against_all_nears_the_bound() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[1e4, -1e4]], &device);
        let value = |classes: usize| {
            let teacher = Tensor::<2>::zeros([1, classes], &device);
            UldLossConfig::new().init().unwrap().forward(student.clone(), teacher, None).into_scalar::<f64>()
        };
        // (1, 0, ..) against (1/n, 1/n, ..): 2 - 2/n.
        assert!((value(4) - 1.5).abs() < 1e-6);
        assert!((value(1000) - 1.998).abs() < 1e-5);
    }
}
