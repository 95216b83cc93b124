use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`ConvConnector`].
#[derive(Config, Debug)]
pub struct ConvConnectorConfig {
    /// Channels of the student's feature map.
    pub student_channels: usize,
    /// Channels of the teacher's feature map.
    pub teacher_channels: usize,
    /// How many times smaller than the student's the teacher's map is, per side.
    #[config(default = 1)]
    pub stride: usize,
}

impl ConvConnectorConfig {
    /// A connector with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> ConvConnector {
        ConvConnector {
            conv: Conv2dConfig::new([self.student_channels, self.teacher_channels], [1, 1])
                .with_stride([self.stride, self.stride])
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(self.teacher_channels).init(device),
        }
    }
}

/// A 1x1 convolution and batch normalisation, for convolutional feature maps.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::ConvConnectorConfig;
///
/// let device = Device::flex();
/// let connector = ConvConnectorConfig::new(16, 64).with_stride(2).init(&device);
/// assert_eq!(connector.forward(Tensor::zeros([2, 16, 8, 8], &device)).dims(), [2, 64, 4, 4]);
/// ```
#[derive(Module, Debug)]
pub struct ConvConnector {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvConnector {
    /// The student's map in the teacher's channels.
    ///
    /// # Shapes
    /// `[batch, student_channels, h, w]` to `[batch, teacher_channels, h / stride, w / stride]`, rounded up.
    pub fn forward(&self, student: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(student))
    }
}
