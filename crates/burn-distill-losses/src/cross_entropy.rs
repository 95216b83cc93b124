use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use crate::{
    ConfigError, Mask, Reduction,
    align::{flatten_rows, flatten_targets},
    floor::log_softmax,
    precision::constant,
};

/// Configuration of [`CrossEntropyLoss`].
#[derive(Config, Debug)]
pub struct CrossEntropyLossConfig {
    /// Probability spread evenly over all classes, the target's included, in [0, 1]; 1 ignores the targets.
    #[config(default = 0.0)]
    pub label_smoothing: f64,
    /// How rows become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl CrossEntropyLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `label_smoothing` is not in [0, 1].
    pub fn init(&self) -> Result<CrossEntropyLoss, ConfigError> {
        let smoothing = self.label_smoothing;
        let valid = (0.0..=1.0).contains(&smoothing);
        Ok(CrossEntropyLoss {
            label_smoothing: ConfigError::unless(valid, "label_smoothing", "[0, 1]", smoothing)?,
            reduction: self.reduction,
        })
    }
}

/// Cross-entropy with the hard targets: the task loss beside which a student is distilled.
///
/// ```text
/// q = softmax(student_logits),  y = (1 - ε) onehot(target) + ε / classes
/// loss = mean over rows of  - Σ_c y_c ln q_c
/// ```
///
/// **Scale**: nats, no temperature, averaged over unmasked rows. `ε` is the label smoothing. `forward_probs` takes
/// target probabilities in place of class ids (mixup, cutmix) and smooths them in the same way.
///
/// # Shapes
/// - `student_logits`: `[.., classes]`, leading dimensions are rows;
/// - `targets`: class ids of any rank, one per row (`[batch]`, `[batch, tokens]`); `target_probs`: as the logits;
/// - `mask`: a boolean per row, true = counts. The target of a masked-out row is not read: it may be -100;
/// - value: `[1]`, or `[rows]` from the `_no_reduction` forms, where a masked-out row is 0.
///
/// # Gradients
/// To `student_logits` only: `(q - y) / rows`.
///
/// # Errors
/// [`CrossEntropyLossConfig::init`] if the label smoothing is not in [0, 1].
///
/// # Panics
/// `forward` if there is not one target per row. A target out of range in an unmasked row panics or is undefined,
/// as the device checks indices or not.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::CrossEntropyLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0], &device);
/// let loss = CrossEntropyLossConfig::new().init()?;
/// // q = (3/4, 1/4): - ln 0.75 = 0.287682.
/// let value = loss.forward(student, targets, None).into_scalar::<f64>();
/// assert!((value - 0.287682).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Szegedy et al., *Rethinking the Inception Architecture*, 2016, arXiv 1512.00567, section 7 (label smoothing).
/// - `torch.nn.functional.cross_entropy(.., label_smoothing=ε)` of PyTorch computes this value.
#[derive(Debug, Clone)]
pub struct CrossEntropyLoss {
    label_smoothing: f64,
    reduction: Reduction,
}

impl CrossEntropyLoss {
    /// The loss of each row, `[rows]`.
    pub fn forward_no_reduction<const D: usize, const E: usize>(
        &self,
        student_logits: Tensor<D>,
        targets: Tensor<E, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
        let targets = flatten_targets(targets, student.dims()[0], &mask);
        let log_probs = log_softmax(student, 1.0);
        let hard = log_probs.clone().gather(1, targets);
        let mean = if self.label_smoothing == 0.0 {
            hard
        } else {
            hard.mul_scalar(1.0 - self.label_smoothing) + log_probs.mean_dim(1).mul_scalar(self.label_smoothing)
        };
        mask.zero(mean.neg().squeeze_dim(1))
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

    /// The loss of each row, `[rows]`, against target probabilities.
    pub fn forward_probs_no_reduction<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        target_probs: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        assert_eq!(
            student_logits.dims(),
            target_probs.dims(),
            "`target_probs` must have the shape of `student_logits`"
        );
        let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
        let probs = mask.fill_rows(constant(flatten_rows(target_probs), student.dtype()), 0.0);
        let classes = student.dims()[1] as f64;
        let probs = probs.mul_scalar(1.0 - self.label_smoothing).add_scalar(self.label_smoothing / classes);
        mask.zero((probs * log_softmax(student, 1.0)).sum_dim(1).neg().squeeze_dim(1))
    }

    /// The reduced loss, `[1]`, against target probabilities (mixup, cutmix) of the shape of `student_logits`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn forward_probs<const D: usize>(
        &self,
        student_logits: Tensor<D>,
        target_probs: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_probs_no_reduction(student_logits, target_probs, mask.clone()), &mask)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Bool, Device};

    use super::*;

    #[test]
    fn label_smoothing_out_of_range_is_rejected() {
        for smoothing in [-0.1, 1.1, f64::NAN] {
            let error = CrossEntropyLossConfig::new().with_label_smoothing(smoothing).init().unwrap_err();
            assert_eq!(error.to_string(), format!("`label_smoothing` must be in [0, 1], got {smoothing}"));
        }
    }

    #[test]
    fn probabilities_of_one_class_equal_its_id() {
        let device = Device::flex();
        let student = Tensor::<2>::from_floats([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], &device);
        let targets = Tensor::<1, Int>::from_ints([2, 0], &device);
        let probs = Tensor::<2>::from_floats([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], &device);
        let loss = CrossEntropyLossConfig::new().with_label_smoothing(0.1).init().unwrap();
        let ids = loss.forward(student.clone(), targets, None).into_scalar::<f32>();
        let mixed = loss.forward_probs(student, probs, None).into_scalar::<f32>();
        assert_relative_eq!(ids, mixed, max_relative = 1e-6);
    }

    #[test]
    fn ignored_target_of_a_masked_token_is_not_read() {
        let device = Device::flex();
        let student = Tensor::<3>::from_floats([[[0.0, 3f32.ln()], [f32::NAN, 0.0]]], &device);
        let targets = Tensor::<2, Int>::from_ints([[1, -100]], &device);
        let mask = Tensor::<2, Bool>::from_bool([[true, false]], &device);
        let loss = CrossEntropyLossConfig::new().init().unwrap();
        let value = loss.forward(student, targets, mask).into_scalar::<f32>();
        assert_relative_eq!(value, -(0.75f32.ln()), max_relative = 1e-6);
    }
}
