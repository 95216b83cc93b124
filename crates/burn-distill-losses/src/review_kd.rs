use burn::{
    config::Config,
    tensor::{Tensor, module::adaptive_avg_pool2d},
};

use crate::{ConfigError, Mask, Reduction, hint::squared_difference, precision::features};

/// Side lengths of the pooled levels of the pyramid.
const LEVELS: [usize; 3] = [4, 2, 1];

/// Configuration of [`ReviewKdLoss`].
#[derive(Config, Debug)]
pub struct ReviewKdLossConfig {
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ReviewKdLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<ReviewKdLoss, ConfigError> {
        Ok(ReviewKdLoss { reduction: self.reduction })
    }
}

/// ReviewKD's hierarchical context loss (HCL): features of several stages, each compared as a pyramid of pooled levels.
///
/// ```text
/// level 0: the features,  level l: pooled to 4 x 4, 2 x 2, 1 x 1 (only those smaller than the height)
/// stage = Σ_l 2^-l · mean (student_l - teacher_l)²  /  Σ_l 2^-l
/// loss  = Σ over stages
/// ```
///
/// **Scale**: a weighted mean of mean squared errors for each stage, summed over the stages. The student's features are
/// those that the fusion modules of the method (attention-based fusion, learned) give for each stage: they are
/// connectors and not part of the loss.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[batch, channels, height, width]` within a stage, any across stages;
/// - value: `[1]`, or `[batch]` from the `_no_reduction` forms.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if the shapes of a stage differ, `forward_stages` if the batches of the stages differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::ReviewKdLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[2.0, 0.0], [0.0, 0.0]]]], &device);
/// let teacher = Tensor::<4>::zeros([1, 1, 2, 2], &device);
/// // Level 0: 4 / 4 = 1. Pooled to 1 x 1: 0.5² = 0.25, with weight 1/2. (1 + 0.125) / 1.5.
/// let value = ReviewKdLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 0.75).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Chen et al., *Distilling Knowledge via Knowledge Review*, 2021, arXiv 2104.09044, section 3.3 (HCL).
/// - Reference code: dvlab-research/ReviewKD at cede6ea6, function `hcl`; the paper does not give the levels' weights.
#[derive(Debug, Clone)]
pub struct ReviewKdLoss {
    reduction: Reduction,
}

impl ReviewKdLoss {
    /// The loss of each sample at one stage, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (student, teacher) = features(student, teacher);
        let height = student.dims()[2];
        let mut sum = squared_difference(student.clone(), teacher.clone());
        let (mut weight, mut total) = (1.0, 1.0);
        for side in LEVELS.into_iter().filter(|side| *side < height) {
            let pooled = |features: &Tensor<4>| adaptive_avg_pool2d(features.clone(), [side, side]);
            weight /= 2.0;
            total += weight;
            sum = sum + squared_difference(pooled(&student), pooled(&teacher)).mul_scalar(weight);
        }
        sum.div_scalar(total)
    }

    /// The reduced loss of one stage, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }

    /// The loss of each sample, summed over `STAGES` stages, `[batch]`.
    pub fn forward_stages_no_reduction<const STAGES: usize>(
        &self,
        student: [Tensor<4>; STAGES],
        teacher: [Tensor<4>; STAGES],
    ) -> Tensor<1> {
        const { assert!(STAGES > 0, "at least one stage") };
        let batch = student[0].dims()[0];
        let stages = student.into_iter().zip(teacher).map(|(student, teacher)| {
            let other = student.dims()[0];
            assert_eq!(batch, other, "the stages must have one batch size, got {batch} and {other}");
            self.forward_no_reduction(student, teacher)
        });
        stages.reduce(|sum, stage| sum + stage).expect("there is a stage: STAGES > 0 is asserted above")
    }

    /// The reduced loss, summed over `STAGES` stages, `[1]`.
    pub fn forward_stages<const STAGES: usize>(
        &self,
        student: [Tensor<4>; STAGES],
        teacher: [Tensor<4>; STAGES],
    ) -> Tensor<1> {
        self.reduction.apply(self.forward_stages_no_reduction(student, teacher), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn stages_are_summed() {
        let device = Device::flex();
        device.seed(1);
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, &device);
        let (student, teacher) = (random([2, 3, 4, 4]), random([2, 3, 4, 4]));
        let (deeper, teacher_deeper) = (random([2, 5, 1, 1]), random([2, 5, 1, 1]));
        let loss = ReviewKdLossConfig::new().init().unwrap();
        let both = loss.forward_stages([student.clone(), deeper.clone()], [teacher.clone(), teacher_deeper.clone()]);
        let sum = loss.forward(student, teacher) + loss.forward(deeper, teacher_deeper);
        assert_relative_eq!(both.into_scalar::<f32>(), sum.into_scalar::<f32>(), max_relative = 1e-6);
    }
}
