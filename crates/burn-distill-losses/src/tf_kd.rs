use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use crate::{
    ConfigError, Mask, Reduction,
    align::{flatten_rows, flatten_targets},
    floor::log_softmax,
};

/// Configuration of [`TfKdLoss`].
#[derive(Config, Debug)]
pub struct TfKdLossConfig {
    /// The virtual teacher's probability for the target before softening, in (0, 1]; the paper asks for 0.9 or more.
    #[config(default = 0.99)]
    pub target_probability: f64,
    /// Temperature that softens the virtual teacher, and it alone, in (0, inf); 10, 20 or 40 in the authors' settings.
    #[config(default = 20.0)]
    pub teacher_temperature: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl TfKdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `target_probability` is not in (0, 1] or `teacher_temperature` is not in (0, inf).
    pub fn init(&self) -> Result<TfKdLoss, ConfigError> {
        let a = self.target_probability;
        Ok(TfKdLoss {
            target_probability: ConfigError::unless(a > 0.0 && a <= 1.0, "target_probability", "(0, 1]", a)?,
            teacher_temperature: ConfigError::check_positive("teacher_temperature", self.teacher_temperature)?,
            reduction: self.reduction,
        })
    }
}

/// Teacher-free knowledge distillation by regularisation (Tf-KD_reg): KL from a virtual teacher that is right with a
/// fixed probability and knows nothing else.
///
/// ```text
/// d = a for the target,  (1 - a) / (classes - 1) for every other class
/// p = softmax(d / τ),  q = softmax(student_logits)
/// loss = mean over rows of  KL(p || q)
/// ```
///
/// **Scale**: true KL in nats, averaged over unmasked rows. The student is not tempered, so there is no temperature
/// squared to make up for it: τ is a shape of the virtual teacher, which is why it is not called `temperature` and
/// follows no schedule.
///
/// Paper and code part, and this is the code, which made the published numbers. Equation 9 of the paper softens both
/// sides, `KL(p_τ || q_τ)`; the code leaves the student as it is. And the code softens the probabilities d as if they
/// were logits: at τ = 20 and 100 classes the target gets 0.0105 and every other class 0.01, close to uniform. The
/// code's `KLDivLoss()` also divides by the number of classes and multiplies by a factor of its own for each model
/// (1 to 100): this times `factor / classes` is its value.
///
/// The other method of the paper, Tf-KD_self, is [`KdLoss`](crate::KdLoss) with the student's own earlier copy as the
/// teacher: a frozen model, as in born-again networks, and no loss of its own.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `targets`: class ids of any rank, one per row;
/// - `mask`: a boolean per row, true = counts. The target of a masked-out row is not read;
/// - value: `[1]`, or `[rows]` from `forward_no_reduction`, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits`: `(q - p) / rows`.
///
/// # Errors
/// [`TfKdLossConfig::init`] if the probability is not in (0, 1] or the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if there is not one target per row.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::TfKdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// // d = (1, 0), so p = softmax(1 / τ, 0); τ = 1 / ln 3 makes it (3/4, 1/4): 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812.
/// let config = TfKdLossConfig::new().with_target_probability(1.0).with_teacher_temperature(1.0 / 3f64.ln());
/// let value = config.init()?.forward(student, targets, None).into_scalar::<f64>();
/// assert!((value - 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yuan et al., *Revisiting Knowledge Distillation via Label Smoothing Regularization*, 2020, arXiv 1909.11723,
///   equations 8 and 9.
/// - Reference code: yuanli2333/Teacher-free-Knowledge-Distillation `my_loss_function.py` at d000ab37
///   (`loss_kd_regularization`); its issue 24 asks about the student's temperature.
#[derive(Debug, Clone)]
pub struct TfKdLoss {
    target_probability: f64,
    teacher_temperature: f64,
    reduction: Reduction,
}

impl TfKdLoss {
    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
        let [rows, classes] = student.dims();
        let targets = flatten_targets(targets, rows, &mask);
        let (target, other) = self.log_probs(classes);
        let log_probs = log_softmax(student, 1.0);
        // Every class as if it were another one, and what the target has beyond that.
        let log_target = log_probs.clone().gather(1, targets);
        let as_other = |log: Tensor<2>| log.sub_scalar(other).mul_scalar(other.exp());
        let at_target = log_target.clone().sub_scalar(target).mul_scalar(target.exp()) - as_other(log_target);
        mask.zero((as_other(log_probs).sum_dim(1) + at_target).neg().squeeze_dim(1))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student_logits, targets, mask.clone()), &mask)
    }

    /// The virtual teacher's log-probability of the target and of any other class.
    fn log_probs(&self, classes: usize) -> (f64, f64) {
        let others = classes.saturating_sub(1) as f64;
        let beyond = self.target_probability - (1.0 - self.target_probability) / others.max(1.0);
        let (gap, many) = (beyond / self.teacher_temperature, others.ln());
        let largest = gap.max(many);
        let log_sum = largest + ((gap - largest).exp() + (many - largest).exp()).ln();
        (gap - log_sum, -log_sum)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::CrossEntropyLossConfig;

    #[test]
    fn the_virtual_teacher_is_nearly_uniform_in_the_authors_setting() {
        let loss = TfKdLossConfig::new().init().unwrap();
        let (target, other) = loss.log_probs(100);
        assert_relative_eq!(target.exp() + 99.0 * other.exp(), 1.0, max_relative = 1e-12);
        assert_relative_eq!(target.exp(), 0.0105, max_relative = 1e-2);
        assert_relative_eq!(target.exp() / other.exp(), ((0.99 - 0.01 / 99.0) / 20.0f64).exp(), max_relative = 1e-12);
    }

    #[test]
    fn a_cold_virtual_teacher_is_the_cross_entropy_with_the_label() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let targets = Tensor::<1, Int>::from_ints([1, 0], &device);
        let cold = TfKdLossConfig::new().with_teacher_temperature(1e-4).init().unwrap();
        let hard = CrossEntropyLossConfig::new().init().unwrap();
        assert_relative_eq!(
            cold.forward(student.clone(), targets.clone(), None).into_scalar::<f64>(),
            hard.forward(student, targets, None).into_scalar::<f64>(),
            max_relative = 1e-6
        );
    }

    #[test]
    fn a_student_that_is_the_virtual_teacher_has_nothing_to_learn() {
        let device = Device::flex();
        let loss = TfKdLossConfig::new().with_teacher_temperature(0.5).init().unwrap();
        let (target, other) = loss.log_probs(3);
        let [target, other] = [target, other].map(|log| (log + 5.0) as f32);
        let student = Tensor::<2>::from_floats([[other, other, target]], &device);
        let targets = Tensor::<1, Int>::from_ints([2], &device);
        assert!(loss.forward(student, targets, None).into_scalar::<f64>().abs() < 1e-6);
    }

    #[test]
    fn rejects_settings_out_of_range() {
        let error = TfKdLossConfig::new().with_target_probability(1.5).init().unwrap_err();
        assert_eq!(error.to_string(), "`target_probability` must be in (0, 1], got 1.5");
        let error = TfKdLossConfig::new().with_teacher_temperature(0.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`teacher_temperature` must be in (0, inf), got 0");
    }
}
