use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation::relu, module::adaptive_avg_pool2d};

use crate::ModelError;

/// Configuration of a [`BottleneckConnector`].
#[derive(Config, Debug)]
pub struct BottleneckConnectorConfig {
    /// Channels of the student's feature map.
    pub student_channels: usize,
    /// Channels of the teacher's feature map.
    pub teacher_channels: usize,
    /// How many times fewer channels than the teacher the middle has, in [1, teacher_channels]. A larger one makes a
    /// smaller and weaker student: the authors have 2, 4 and 8.
    #[config(default = 2)]
    pub factor: usize,
}

impl BottleneckConnectorConfig {
    /// A connector with fresh weights on `device`.
    ///
    /// # Errors
    /// When `factor` is not in [1, teacher_channels].
    pub fn init(&self, device: &Device) -> Result<BottleneckConnector, ModelError> {
        if self.factor == 0 || self.factor > self.teacher_channels {
            let given = format!("{} with {} channels", self.factor, self.teacher_channels);
            return Err(ModelError::out_of_range("factor", "in [1, teacher_channels]", given));
        }
        let middle = self.teacher_channels / self.factor;
        let conv = |channels, kernel: usize| {
            let padding = PaddingConfig2d::Explicit(kernel / 2, kernel / 2, kernel / 2, kernel / 2);
            Conv2dConfig::new(channels, [kernel, kernel]).with_padding(padding).with_bias(false).init(device)
        };
        let norm = |channels| BatchNormConfig::new(channels).init(device);
        Ok(BottleneckConnector {
            reduce: conv([self.student_channels, middle], 1),
            reduce_norm: norm(middle),
            mix: conv([middle, middle], 3),
            mix_norm: norm(middle),
            expand: conv([middle, self.teacher_channels], 1),
            expand_norm: norm(self.teacher_channels),
        })
    }
}

/// SimKD's projector: 1x1, 3x3 and 1x1 convolutions with fewer channels in the middle, each with batch norm and ReLU.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::BottleneckConnectorConfig;
///
/// let device = Device::flex();
/// let connector = BottleneckConnectorConfig::new(16, 64).init(&device)?;
/// // A student's map that is larger than the teacher's is averaged first.
/// assert_eq!(connector.forward(Tensor::zeros([2, 16, 8, 8], &device), [4, 4]).dims(), [2, 64, 4, 4]);
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
///
/// # References
/// Chen et al., *Knowledge Distillation with the Reused Teacher Classifier*, 2022, arXiv 2203.14001, section 3; reference
/// code DefangChen/SimKD `models/util.py` at 2b389c31 (`SimKD`), which pools to squares.
#[derive(Module, Debug)]
pub struct BottleneckConnector {
    reduce: Conv2d,
    reduce_norm: BatchNorm,
    mix: Conv2d,
    mix_norm: BatchNorm,
    expand: Conv2d,
    expand_norm: BatchNorm,
}

impl BottleneckConnector {
    /// The student's map in the teacher's channels.
    ///
    /// # Shapes
    /// `[batch, student_channels, h, w]` to `[batch, teacher_channels, h, w]`, or to the height or width of `size`, the
    /// teacher's, where that is smaller.
    pub fn forward(&self, student: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        let [_, _, height, width] = student.dims();
        let smaller = [height.min(size[0]), width.min(size[1])];
        let student = if smaller == [height, width] { student } else { adaptive_avg_pool2d(student, smaller) };
        let reduced = relu(self.reduce_norm.forward(self.reduce.forward(student)));
        let mixed = relu(self.mix_norm.forward(self.mix.forward(reduced)));
        relu(self.expand_norm.forward(self.expand.forward(mixed)))
    }

    /// Channels of what [`forward`](Self::forward) gives.
    pub(crate) fn teacher_channels(&self) -> usize {
        self.expand.weight.dims()[0]
    }
}
