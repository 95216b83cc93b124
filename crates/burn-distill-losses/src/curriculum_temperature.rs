use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Tensor, activation::sigmoid},
};

use crate::{
    ConfigError, Mask, Reduction, TeacherLogits, VocabularyPolicy, align::align, divergence::kl, floor::log_softmax_at,
};

/// Configuration of [`CurriculumTemperatureLoss`].
#[derive(Config, Debug)]
pub struct CurriculumTemperatureLossConfig {
    /// The smallest temperature, in (0, inf).
    #[config(default = 1.0)]
    pub temperature_min: f64,
    /// What the temperature can be above the smallest, in (0, inf).
    #[config(default = 20.0)]
    pub temperature_range: f64,
    /// Where the parameter behind the temperature begins, finite. The authors begin at 1: a temperature of 15.6.
    #[config(default = 1.0)]
    pub raw_temperature: f64,
    /// Strength of the reversal, in [0, inf): what the temperature's reversed gradient is multiplied by.
    #[config(default = 1.0)]
    pub reversal: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// What to do when the numbers of classes differ.
    #[config(default = "VocabularyPolicy::Error")]
    pub vocabulary: VocabularyPolicy,
}

impl CurriculumTemperatureLossConfig {
    /// The loss, with its temperature on `device`.
    ///
    /// # Errors
    /// If `temperature_min` or `temperature_range` is not in (0, inf), `raw_temperature` is not finite, or `reversal` is
    /// not in [0, inf).
    pub fn init(&self, device: &Device) -> Result<CurriculumTemperatureLoss, ConfigError> {
        let raw = self.raw_temperature;
        let raw = ConfigError::unless(raw.is_finite(), "raw_temperature", "(-inf, inf)", raw)?;
        Ok(CurriculumTemperatureLoss {
            raw_temperature: Param::from_tensor(Tensor::full([1], raw, device)),
            temperature_min: ConfigError::check_positive("temperature_min", self.temperature_min)?,
            temperature_range: ConfigError::check_positive("temperature_range", self.temperature_range)?,
            reversal: ConfigError::check_weight("reversal", self.reversal)?,
            reduction: self.reduction,
            vocabulary: self.vocabulary,
        })
    }
}

/// Curriculum temperature (CTKD): KD at a temperature that is learned against the student, by a reversed gradient, so
/// that distillation goes from easy to hard.
///
/// ```text
/// T = T_min + T_range sigmoid(r),  r a learned parameter
/// p = softmax(teacher_logits / T),  q = softmax(student_logits / T)
/// loss = T² · mean over rows of  KL(p || q);   the student descends it, r climbs it: gradient of r times -λ
/// ```
///
/// **Scale**: that of [`KdLoss`](crate::KdLoss) at T: true KL in nats, times temperature squared, averaged over unmasked
/// rows. The temperature squared is part of what r climbs, as in the authors' code. At a high temperature T² and the
/// divergence nearly cancel in the gradient of r: in f32 about four of its digits are left at T = 16, as in PyTorch.
///
/// The strength λ is the curriculum: the authors let it rise from 0 to 1 along half a cosine, over 10 epochs, by
/// [`at_reversal`](Self::at_reversal) from a schedule of the objective (their code writes it as a factor that falls
/// from 0 to -1). With λ = 0 the temperature stays where it is. This is the paper's global temperature, the only one
/// in the authors' repository; an instance-wise one, which a small network gives to each sample, is not here. The loss
/// is a module: it lives among the learned parts of an objective, and its parameter is optimised, saved and resumed
/// with them. The authors optimise it with the student's optimiser.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `teacher_logits`: the same rows, dense or [sparse](crate::SparseLogits);
/// - `mask`: a boolean per row, true = counts;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits`, as in KD at T; to the parameter r, reversed and times λ, through T² and both distributions.
///
/// # Errors
/// [`CurriculumTemperatureLossConfig::init`] if a bound of the temperature is not in (0, inf), the parameter is not
/// finite or the strength is not in [0, inf).
///
/// # Panics
/// `forward` if the rows differ, or if the numbers of classes differ and the policy is [`VocabularyPolicy::Error`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::CurriculumTemperatureLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[2.0 * 3f32.ln(), 0.0]], &device);
/// let config = CurriculumTemperatureLossConfig::new().with_temperature_range(2.0).with_raw_temperature(0.0);
/// let loss = config.init(&device)?;
/// // T = 1 + 2 · 1/2 = 2: p = (3/4, 1/4), q = (1/2, 1/2), KL = 0.130812, times 2².
/// assert_eq!(loss.temperature().into_scalar::<f64>(), 2.0);
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 4.0 * 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Li et al., *Curriculum Temperature for Knowledge Distillation*, 2023, arXiv 2211.16231, section 3.
/// - Reference code: zhengli97/CTKD `models/temp_global.py`, `helper/loops.py` and `distiller_zoo/KD.py` at 7d525224.
#[derive(Module, Debug)]
pub struct CurriculumTemperatureLoss {
    raw_temperature: Param<Tensor<1>>,
    temperature_min: f64,
    temperature_range: f64,
    reversal: f64,
    #[module(skip)]
    reduction: Reduction,
    #[module(skip)]
    vocabulary: VocabularyPolicy,
}

impl CurriculumTemperatureLoss {
    /// The same loss, with the same parameter, at another strength of the reversal, for schedules.
    ///
    /// # Panics
    /// If `reversal` is not in [0, inf).
    #[track_caller]
    pub fn at_reversal(&self, reversal: f64) -> Self {
        match ConfigError::check_weight("reversal", reversal) {
            Ok(reversal) => Self { reversal, ..self.clone() },
            Err(error) => panic!("{error}"),
        }
    }

    /// The temperature as it is now, `[1]`, without gradient.
    pub fn temperature(&self) -> Tensor<1> {
        self.of_raw(self.raw_temperature.val().without_autodiff())
    }

    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        teacher_logits: impl Into<TeacherLogits>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let aligned = align(student_logits, teacher_logits.into(), &mask, self.vocabulary);
        let raw = self.raw_temperature.val().cast(aligned.student.dtype());
        let temperature = self.of_raw(reversed(raw, self.reversal));
        let (student, teacher) = aligned.log_probs_by(|logits| log_softmax_at(logits, temperature.clone()));
        mask.zero(kl(teacher, student) * temperature.square())
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

    fn of_raw(&self, raw: Tensor<1>) -> Tensor<1> {
        sigmoid(raw).mul_scalar(self.temperature_range).add_scalar(self.temperature_min)
    }
}

/// `x`, with a gradient that is multiplied by `-strength`.
fn reversed(x: Tensor<1>, strength: f64) -> Tensor<1> {
    let fixed = x.clone().detach();
    fixed.clone() + (fixed - x).mul_scalar(strength)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::KdLossConfig;

    fn logits(device: &Device) -> (Tensor<2>, Tensor<2>) {
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1], [1.0, 0.0, 0.5, -2.0]], device);
        let teacher = Tensor::<2>::from_floats([[-0.7, 0.4, 1.1, 0.0], [0.2, 0.9, -1.5, 0.6]], device);
        (student, teacher)
    }

    #[test]
    fn it_is_kd_at_its_temperature() {
        let device = Device::flex();
        let (student, teacher) = logits(&device);
        let loss = CurriculumTemperatureLossConfig::new().with_raw_temperature(-1.5).init(&device).unwrap();
        let temperature = loss.temperature().into_scalar::<f64>();
        assert_relative_eq!(temperature, 1.0 + 20.0 / (1.0 + 1.5f64.exp()), max_relative = 1e-6);
        let kd = KdLossConfig::new().with_temperature(temperature).init().unwrap();
        assert_relative_eq!(
            loss.forward(student.clone(), teacher.clone(), None).into_scalar::<f64>(),
            kd.forward(student, teacher, None).into_scalar::<f64>(),
            max_relative = 1e-5
        );
    }

    #[test]
    fn the_gradient_of_the_temperature_is_reversed_and_the_students_is_not() {
        let device = Device::flex().autodiff();
        let (student, teacher) = logits(&device);
        let student = student.require_grad();
        let base = CurriculumTemperatureLossConfig::new().with_raw_temperature(-2.0).init(&device).unwrap();
        // The gradient arrives at the parameter of `of`, whichever copy was called.
        let gradients = |of: &CurriculumTemperatureLoss, called: CurriculumTemperatureLoss| {
            let value = called.forward(student.clone(), teacher.clone(), None);
            let gradients = value.backward();
            let raw = of.raw_temperature.val().grad(&gradients).unwrap().into_scalar::<f64>();
            (value.into_scalar::<f64>(), raw, student.grad(&gradients).unwrap())
        };
        let (value, full, of_student) = gradients(&base, base.clone());
        let moved = CurriculumTemperatureLossConfig::new().with_raw_temperature(-2.0 + 0.05).init(&device).unwrap();
        let slope = (gradients(&moved, moved.clone()).0 - value) / 0.05;
        assert!(slope.abs() > 0.01);
        assert_relative_eq!(full, -slope, max_relative = 0.1);
        let (same_value, half, same_gradient) = gradients(&base, base.at_reversal(0.5));
        assert_eq!(same_value, value);
        assert_relative_eq!(half, full / 2.0, max_relative = 1e-6);
        assert_eq!((same_gradient - of_student).abs().max().into_scalar::<f64>(), 0.0);
        assert_eq!(gradients(&base, base.at_reversal(0.0)).1, 0.0);
    }

    #[test]
    fn its_one_parameter_is_trained() {
        let loss = CurriculumTemperatureLossConfig::new().init(&Device::flex().autodiff()).unwrap();
        assert_eq!(loss.num_params(), 1);
        assert!(loss.raw_temperature.val().is_require_grad());
    }

    #[test]
    fn rejects_settings_out_of_range() {
        let device = Device::flex();
        let message = |config: CurriculumTemperatureLossConfig| config.init(&device).unwrap_err().to_string();
        let config = CurriculumTemperatureLossConfig::new();
        assert_eq!(message(config.clone().with_temperature_min(0.0)), "`temperature_min` must be in (0, inf), got 0");
        assert_eq!(
            message(config.clone().with_temperature_range(-1.0)),
            "`temperature_range` must be in (0, inf), got -1"
        );
        assert_eq!(message(config.clone().with_reversal(-1.0)), "`reversal` must be in [0, inf), got -1");
        let message = message(config.with_raw_temperature(f64::NAN));
        assert_eq!(message, "`raw_temperature` must be in (-inf, inf), got NaN");
    }

    #[test]
    #[should_panic(expected = "`reversal` must be in [0, inf), got -0.5")]
    fn at_reversal_panics_out_of_range() {
        CurriculumTemperatureLossConfig::new().init(&Device::flex()).unwrap().at_reversal(-0.5);
    }
}
