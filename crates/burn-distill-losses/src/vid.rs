use burn::{
    config::Config,
    module::{Module, Param},
    nn::conv::Conv2d,
    tensor::{
        Device, Tensor,
        activation::{relu, softplus},
    },
};

use crate::{
    ConfigError, Mask, Reduction,
    learned::{conv, conv_layer, in_type},
    pool::{average_pool, smaller_size},
    precision::features,
    sp::flatten_samples,
};

/// The smallest variance, as in the authors' code.
const SMALLEST: f64 = 1e-5;

/// Configuration of [`VidLoss`].
#[derive(Config, Debug)]
pub struct VidLossConfig {
    /// Channels of the student's feature map, in [1, inf).
    pub student_channels: usize,
    /// Channels of the teacher's feature map, in [1, inf).
    pub teacher_channels: usize,
    /// Channels inside the regressor, in [1, inf); the teacher's if `None`, as the authors have it.
    #[config(default = "None")]
    pub hidden_channels: Option<usize>,
    /// Variance of every channel at the start, in (1e-5, inf).
    #[config(default = 5.0)]
    pub initial_variance: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl VidLossConfig {
    /// The loss, with fresh weights on `device`.
    ///
    /// # Errors
    /// If a number of channels is 0 or `initial_variance` is not in (1e-5, inf).
    pub fn init(&self, device: &Device) -> Result<VidLoss, ConfigError> {
        let student = ConfigError::check_count("student_channels", self.student_channels)?;
        let teacher = ConfigError::check_count("teacher_channels", self.teacher_channels)?;
        let hidden = ConfigError::check_count("hidden_channels", self.hidden_channels.unwrap_or(teacher))?;
        let variance = self.initial_variance;
        let valid = variance > SMALLEST && variance.is_finite();
        let above = ConfigError::unless(valid, "initial_variance", "(1e-5, inf)", variance)? - SMALLEST;
        // The inverse of softplus, ln(exp(x) - 1), which does not overflow.
        let scale = above + (-(-above).exp_m1()).ln();
        Ok(VidLoss {
            first: conv_layer([student, hidden], 1, false, device),
            second: conv_layer([hidden, hidden], 1, false, device),
            third: conv_layer([hidden, teacher], 1, false, device),
            scale: Param::from_tensor(Tensor::full([teacher], scale, device)),
            reduction: self.reduction,
        })
    }
}

/// Variational information distillation (VID): the student's features should tell the teacher's, as the mean of a
/// Gaussian whose variance is learned for each channel.
///
/// ```text
/// mean     = conv1x1(relu(conv1x1(relu(conv1x1(student)))))
/// variance = softplus(scale_c) + 1e-5
/// loss     = mean over samples, channels and positions of  1/2 ( (teacher - mean)² / variance_c + ln variance_c )
/// ```
///
/// **Scale**: nats, without the constant ln(2π)/2, so the loss may be negative; the mean over all elements, as in the
/// authors' code. The paper (equation 6) sums them. Where heights or widths differ, the larger map is reduced by adaptive
/// average pooling before anything else; the authors' code pools to a square of the smaller height.
///
/// It holds the regressor and the scales: put it among the objective's parts, where they are trained, saved and resumed
/// with the run. One for each pair of layers.
///
/// # Shapes
/// - `student`: `[batch, student_channels, height, width]`; `teacher`: the same batch, `teacher_channels`, any height and
///   width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student`, the regressor and the scales.
///
/// # Errors
/// [`VidLossConfig::init`] if a number of channels is 0 or the initial variance is not in (1e-5, inf).
///
/// # Panics
/// `forward` if the batches differ, or if channels are not those of the configuration.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::VidLossConfig;
///
/// let device = Device::flex();
/// let loss = VidLossConfig::new(2, 3).with_initial_variance(4.0).init(&device)?;
/// // Without biases the regressor makes 0 of 0: (2² / 4 + ln 4) / 2.
/// let (student, teacher) = (Tensor::zeros([1, 2, 4, 4], &device), Tensor::full([1, 3, 4, 4], 2.0, &device));
/// let value = loss.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (1.0 + 4f64.ln()) / 2.0).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Ahn et al., *Variational Information Distillation for Knowledge Transfer*, 2019, arXiv 1904.05835, equations 5 and 6.
/// - Reference code: RepDistiller `distiller_zoo/VID.py` at b84f547c, from the authors; mdistiller
///   `mdistiller/distillers/VID.py` at a08d46f1 computes the same, but leaves the scales out of the optimiser.
#[derive(Module, Debug)]
pub struct VidLoss {
    first: Conv2d,
    second: Conv2d,
    third: Conv2d,
    scale: Param<Tensor<1>>,
    #[module(skip)]
    reduction: Reduction,
}

impl VidLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (given, expected) = (teacher.dims()[1], self.scale.val().dims()[0]);
        assert_eq!(given, expected, "`teacher` has {given} channels, the loss was made for {expected}");
        let (student, teacher) = features(student, teacher);
        let size = smaller_size(&student, &teacher);
        let (student, teacher) = (average_pool(student, size), average_pool(teacher, size));
        let hidden = relu(conv(&self.second, relu(conv(&self.first, student))));
        let mean = conv(&self.third, hidden);
        let scale = in_type(self.scale.val(), mean.dtype());
        let variance = softplus(scale, 1.0).add_scalar(SMALLEST).reshape([1, expected, 1, 1]);
        let distance = (teacher - mean).square() / variance.clone() + variance.log();
        flatten_samples(distance).mean_dim(1).squeeze_dim(1).mul_scalar(0.5)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_what_is_out_of_range() {
        let device = Device::flex();
        let message = |config: VidLossConfig| config.init(&device).unwrap_err().to_string();
        let config = VidLossConfig::new(2, 3);
        assert_eq!(message(VidLossConfig::new(0, 3)), "`student_channels` must be in [1, inf), got 0");
        assert_eq!(message(VidLossConfig::new(2, 0)), "`teacher_channels` must be in [1, inf), got 0");
        assert_eq!(
            message(config.clone().with_hidden_channels(Some(0))),
            "`hidden_channels` must be in [1, inf), got 0"
        );
        for variance in [1e-5, 0.0, f64::INFINITY] {
            let expected = format!("`initial_variance` must be in (1e-5, inf), got {variance}");
            assert_eq!(message(config.clone().with_initial_variance(variance)), expected);
        }
    }

    #[test]
    fn starts_at_the_initial_variance() {
        let device = Device::flex();
        for variance in [1e-3, 5.0, 1000.0] {
            let loss = VidLossConfig::new(2, 3).with_initial_variance(variance).init(&device).unwrap();
            let zeros = |channels| Tensor::zeros([1, channels, 2, 2], &device);
            let value = loss.forward(zeros(2), zeros(3)).into_scalar::<f64>();
            assert!((value - variance.ln() / 2.0).abs() < 1e-4, "{variance}: {value}");
        }
    }

    #[test]
    #[should_panic(expected = "`teacher` has 1 channels, the loss was made for 3")]
    fn channels_that_would_broadcast_are_refused() {
        let device = Device::flex();
        let loss = VidLossConfig::new(2, 3).init(&device).unwrap();
        loss.forward(Tensor::zeros([1, 2, 2, 2], &device), Tensor::zeros([1, 1, 2, 2], &device));
    }
}
