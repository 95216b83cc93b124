use burn::{
    config::Config,
    module::Module,
    nn::conv::Conv2d,
    tensor::{Bool, Device, Tensor, TensorData, activation::relu},
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigError, Mask, Reduction,
    draws::generator,
    learned::{conv, conv_layer},
    precision::features,
    sp::flatten_samples,
};

/// What [`MgdLoss::draw`] hides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MgdHides {
    /// Positions, over all channels: the paper, and the authors' code for detection and segmentation.
    #[default]
    Positions,
    /// Channels, at all positions: the authors' code for classification.
    Channels,
}

/// Configuration of [`MgdLoss`].
#[derive(Config, Debug)]
pub struct MgdLossConfig {
    /// Channels of the feature maps, the teacher's, in [1, inf).
    pub channels: usize,
    /// Probability that a position or channel is hidden, in [0, 1). The authors have 0.65 or 0.45 for detection, 0.75 for
    /// segmentation, and 0.15 of the channels for classification.
    #[config(default = 0.65)]
    pub hidden_share: f64,
    /// What is hidden.
    #[config(default = "MgdHides::Positions")]
    pub hides: MgdHides,
    /// Seed of what is hidden.
    #[config(default = 0)]
    pub seed: u64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl MgdLossConfig {
    /// The loss, with fresh weights on `device`.
    ///
    /// # Errors
    /// If `channels` is 0 or `hidden_share` is not in [0, 1).
    pub fn init(&self, device: &Device) -> Result<MgdLoss, ConfigError> {
        let channels = ConfigError::check_count("channels", self.channels)?;
        let valid = (0.0..1.0).contains(&self.hidden_share);
        Ok(MgdLoss {
            first: conv_layer([channels, channels], 3, true, device),
            second: conv_layer([channels, channels], 3, true, device),
            hidden_share: ConfigError::unless(valid, "hidden_share", "[0, 1)", self.hidden_share)?,
            hides: self.hides,
            seed: self.seed,
            reduction: self.reduction,
        })
    }
}

/// Masked generative distillation (MGD): from a student's feature map of which parts are hidden, two convolutions
/// should generate the teacher's whole one.
///
/// ```text
/// generated = conv3x3(relu(conv3x3(student where visible, else 0)))
/// loss      = mean over samples of  Σ over channels and positions (teacher - generated)²
/// ```
///
/// **Scale**: the sum over a sample's elements, as in the paper (equation 5) and the authors' code, whose weights of
/// 2e-5 (detection, segmentation) and 7e-5 (classification) are for this sum. Hidden features are 0, visible ones are
/// not scaled up.
///
/// It holds the two convolutions: put it among the objective's parts. Where the student has other channels or another
/// size, a connector comes first (a plain 1x1 convolution with bias at the authors').
///
/// What is hidden is drawn by [`draw`](Self::draw), a pure function of the seed, the step and the place in the batch, so a
/// resumed run hides the same; or it is given.
///
/// # Shapes
/// - `student`, `teacher`: `[batch, channels, height, width]`, the same;
/// - `visible`: `[batch, channels, height, width]` with 1 for any dimension that does not matter; true = the student's
///   features are kept;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` where it is visible, and to the convolutions.
///
/// # Errors
/// [`MgdLossConfig::init`] if `channels` is 0 or `hidden_share` is not in [0, 1).
///
/// # Panics
/// `forward` if the shapes differ, or channels are not those of the configuration.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::MgdLossConfig;
///
/// let device = Device::flex();
/// let loss = MgdLossConfig::new(4).with_hidden_share(0.5).init(&device)?;
/// let student = Tensor::<4>::ones([2, 4, 8, 8], &device);
/// let step = 7;
/// let visible = loss.draw(student.dims(), step, &device);
/// assert_eq!(visible.dims(), [2, 1, 8, 8]);
/// // The same features on another run at the same step: the same is hidden.
/// let again = loss.draw(student.dims(), step, &device);
/// let value = |visible| loss.forward(student.clone(), student.clone(), visible).into_scalar::<f32>();
/// assert_eq!(value(visible), value(again));
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *Masked Generative Distillation*, 2022, arXiv 2205.01529, equations 2 to 5.
/// - Reference code: yzd-v/MGD `det/mmdet/distillation/losses/mgd.py` (positions) and
///   `cls/mmcls/distillation/losses/mgd.py` (channels) at 2c9da0b2.
#[derive(Module, Debug)]
pub struct MgdLoss {
    first: Conv2d,
    second: Conv2d,
    hidden_share: f64,
    #[module(skip)]
    hides: MgdHides,
    #[module(skip)]
    seed: u64,
    #[module(skip)]
    reduction: Reduction,
}

impl MgdLoss {
    /// What stays visible of features of shape `dims` at a step of the run: each position, or channel, of each sample with
    /// probability 1 - `hidden_share`. `[batch, 1, height, width]`, or `[batch, channels, 1, 1]`.
    pub fn draw(&self, dims: [usize; 4], step: usize, device: &Device) -> Tensor<4, Bool> {
        let [batch, channels, height, width] = dims;
        let shape = match self.hides {
            MgdHides::Positions => [batch, 1, height, width],
            MgdHides::Channels => [batch, channels, 1, 1],
        };
        let of_sample: usize = shape[1..].iter().product();
        let mut visible = Vec::with_capacity(batch * of_sample);
        for sample in 0..batch {
            let mut generator = generator(self.seed, step, [sample as u64, 0]);
            visible.extend((0..of_sample).map(|_| !generator.random_bool(self.hidden_share)));
        }
        Tensor::from_bool(TensorData::new(visible, shape), device)
    }

    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>, visible: Tensor<4, Bool>) -> Tensor<1> {
        let (dims, teacher_dims) = (student.dims(), teacher.dims());
        assert_eq!(dims, teacher_dims, "`student` and `teacher` must have the same shape");
        let (student, teacher) = features(student, teacher);
        let visible = student.mask_fill(visible.bool_not().expand(dims), 0.0);
        let generated = conv(&self.second, relu(conv(&self.first, visible)));
        flatten_samples((teacher - generated).square()).sum_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>, visible: Tensor<4, Bool>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, visible), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(loss: &MgdLoss, dims: [usize; 4], step: usize) -> Vec<bool> {
        loss.draw(dims, step, &Device::flex()).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn rejects_what_is_out_of_range() {
        let message = |config: MgdLossConfig| config.init(&Device::flex()).unwrap_err().to_string();
        assert_eq!(message(MgdLossConfig::new(0)), "`channels` must be in [1, inf), got 0");
        for share in [-0.1, 1.0, f64::NAN] {
            let expected = format!("`hidden_share` must be in [0, 1), got {share}");
            assert_eq!(message(MgdLossConfig::new(1).with_hidden_share(share)), expected);
        }
    }

    #[test]
    fn draws_differ_between_steps_samples_and_seeds() {
        let loss = |seed| MgdLossConfig::new(3).with_seed(seed).init(&Device::flex()).unwrap();
        let drawn = shown(&loss(1), [2, 3, 6, 6], 5);
        assert_eq!(drawn, shown(&loss(1), [2, 3, 6, 6], 5));
        assert_ne!(drawn, shown(&loss(1), [2, 3, 6, 6], 6));
        assert_ne!(drawn, shown(&loss(2), [2, 3, 6, 6], 5));
        assert_ne!(drawn[..36], drawn[36..]);
        // A sample's draw does not depend on how many come after it.
        assert_eq!(drawn[..36], shown(&loss(1), [1, 3, 6, 6], 5));
    }

    #[test]
    fn hides_the_share_that_was_asked_for() {
        for (share, hides, dims) in
            [(0.65, MgdHides::Positions, [4, 2, 50, 50]), (0.15, MgdHides::Channels, [4, 2500, 1, 1])]
        {
            let config = MgdLossConfig::new(dims[1]).with_hidden_share(share).with_hides(hides);
            // Weights are of no interest here, and many channels would have many.
            let loss = MgdLoss {
                hides,
                hidden_share: config.hidden_share,
                ..MgdLossConfig::new(1).init(&Device::flex()).unwrap()
            };
            let drawn = shown(&loss, dims, 3);
            assert_eq!(drawn.len(), 10_000);
            let hidden = drawn.iter().filter(|visible| !**visible).count() as f64 / 1e4;
            // Four standard deviations of 10,000 draws.
            assert!((hidden - share).abs() < 0.02, "{hides:?}: {hidden}");
        }
    }

    #[test]
    fn hidden_features_get_no_gradient() {
        let device = Device::flex().autodiff();
        let loss = MgdLossConfig::new(2).init(&device).unwrap();
        let student = Tensor::<4>::ones([1, 2, 2, 2], &device).require_grad();
        let visible = Tensor::<4>::from_floats([[[[1.0, 0.0], [0.0, 1.0]]]], &device).bool();
        let value = loss.forward(student.clone(), Tensor::ones([1, 2, 2, 2], &device), visible);
        let gradient = student.grad(&value.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        for hidden in [1, 2, 5, 6] {
            assert_eq!(gradient[hidden], 0.0);
        }
        assert!(gradient.iter().filter(|slope| **slope != 0.0).count() > 0);
    }
}
