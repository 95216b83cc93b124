use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction,
    norm::l2_normalize,
    pool::{average_pool, smaller_size},
    precision::features,
    sp::flatten_samples,
};

/// Configuration of [`FtLoss`].
#[derive(Config, Debug)]
pub struct FtLossConfig {
    /// Power of the difference: 1 or 2.
    #[config(default = 1)]
    pub p: usize,
    /// `None` compares whole factors, as the paper does; a power in [1, inf) compares where factors are large, by the mean
    /// over channels of their magnitudes to that power. RepDistiller has 2.
    #[config(default = "None")]
    pub map_power: Option<f64>,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl FtLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `p` is neither 1 nor 2, or `map_power` is not in [1, inf).
    pub fn init(&self) -> Result<FtLoss, ConfigError> {
        ConfigError::unless(matches!(self.p, 1 | 2), "p", "{1, 2}", self.p as f64)?;
        if let Some(power) = self.map_power {
            ConfigError::unless(power >= 1.0 && power.is_finite(), "map_power", "[1, inf)", power)?;
        }
        Ok(FtLoss { squared: self.p == 2, map_power: self.map_power, reduction: self.reduction })
    }
}

/// Factor transfer (FT): the student's factors point where the teacher's do. Factors are feature maps that a paraphraser
/// made of the teacher's features and a translator of the student's.
///
/// ```text
/// unit(f) = vec(f) / |vec(f)|₂ of each sample
/// loss    = mean over samples and elements of  | unit(student) - unit(teacher) |^p
/// ```
///
/// **Scale**: the mean over elements, as in the authors' code, where the paper (equation 4) has the p-norm. Both vectors
/// have length 1, so the value is at most 4 divided by the number of elements for p = 2, and by its root for p = 1; the
/// authors weigh it by 500. With `map_power`, `vec(f)` is the mean over channels of `|f|` to that power: an attention
/// map, which is what RepDistiller's `FactorTransfer` compares (with power 2 and weight 200). Where heights or widths
/// differ, the larger factor is reduced by adaptive average pooling first. An all-zero factor stays zero.
///
/// The paraphraser is an autoencoder that learns to give the teacher's features back, before or beside this loss, from
/// which it gets no gradient; the translator learns from this loss. Both are connectors: `Paraphraser` and `Translator`
/// in `burn-distill-models`.
///
/// # Shapes
/// - `student`: `[batch, channels, height, width]`; `teacher`: the same batch and channels, any height and width, and
///   with `map_power` any channels;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; 0 for a sample whose factor is all zero.
///
/// # Errors
/// [`FtLossConfig::init`] if `p` is neither 1 nor 2, or `map_power` is not in [1, inf).
///
/// # Panics
/// `forward` if the batches differ, or the channels do and `map_power` is not set.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::FtLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[3.0, 4.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[0.0, 5.0]]]], &device);
/// // (0.6, 0.8) against (0, 1).
/// let value = FtLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (0.6 + 0.2) / 2.0).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Kim, Park, Kwak, *Paraphrasing Complex Network: Network Compression via Factor Transfer*, 2018, arXiv 1802.04977,
///   equation 4.
/// - Reference code: Jangho-Kim/Factor-Transfer-pytorch `utils.py` and `train_student.py` at 19cce265 (`L1Loss` of `FT`);
///   torchdistill `torchdistill/losses/mid_level.py` at 3e4373c4 (`FTLoss`), which takes the norm itself for p other than
///   1; RepDistiller `distiller_zoo/FT.py` at b84f547c compares attention maps.
#[derive(Debug, Clone)]
pub struct FtLoss {
    squared: bool,
    map_power: Option<f64>,
    reduction: Reduction,
}

impl FtLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (channels, teacher_channels) = (student.dims()[1], teacher.dims()[1]);
        assert!(
            self.map_power.is_some() || channels == teacher_channels,
            "`student` has {channels} channels and `teacher` {teacher_channels}"
        );
        let (student, teacher) = features(student, teacher);
        let size = smaller_size(&student, &teacher);
        let (student, teacher) = (average_pool(student, size), average_pool(teacher, size));
        let difference = self.unit(student) - self.unit(teacher);
        let difference = if self.squared { difference.square() } else { difference.abs() };
        difference.mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }

    /// What is compared, of length 1, `[batch, elements]`.
    fn unit(&self, factor: Tensor<4>) -> Tensor<2> {
        let compared = match self.map_power {
            None => factor,
            Some(2.0) => factor.square().mean_dim(1),
            Some(power) => factor.abs().powf_scalar(power).mean_dim(1),
        };
        l2_normalize(flatten_samples(compared), 1)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rejects_powers_out_of_range() {
        let message = |config: FtLossConfig| config.init().unwrap_err().to_string();
        assert_eq!(message(FtLossConfig::new().with_p(3)), "`p` must be in {1, 2}, got 3");
        let config = FtLossConfig::new().with_map_power(Some(0.5));
        assert_eq!(message(config), "`map_power` must be in [1, inf), got 0.5");
    }

    #[test]
    #[should_panic(expected = "`student` has 2 channels and `teacher` 1")]
    fn channels_that_would_broadcast_are_refused() {
        let device = Device::flex();
        let loss = FtLossConfig::new().init().unwrap();
        loss.forward(Tensor::zeros([1, 2, 2, 2], &device), Tensor::zeros([1, 1, 2, 2], &device));
    }
}
