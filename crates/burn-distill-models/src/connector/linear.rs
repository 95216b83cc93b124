use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`LinearConnector`].
#[derive(Config, Debug)]
pub struct LinearConnectorConfig {
    /// Width of the student's feature.
    pub student_features: usize,
    /// Width of the teacher's feature.
    pub teacher_features: usize,
    /// Whether a bias is learned too.
    #[config(default = true)]
    pub bias: bool,
}

impl LinearConnectorConfig {
    /// A connector with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> LinearConnector {
        let linear = LinearConfig::new(self.student_features, self.teacher_features).with_bias(self.bias);
        LinearConnector { linear: linear.init(device) }
    }
}

/// One linear map on the last axis, for pooled features and hidden states (TinyBERT's `W_h`).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::LinearConnectorConfig;
///
/// let device = Device::flex();
/// let connector = LinearConnectorConfig::new(64, 256).init(&device);
/// assert_eq!(connector.forward(Tensor::<3>::zeros([2, 5, 64], &device)).dims(), [2, 5, 256]);
/// ```
#[derive(Module, Debug)]
pub struct LinearConnector {
    linear: Linear,
}

impl LinearConnector {
    /// The student's feature in the teacher's width.
    ///
    /// # Shapes
    /// `[.., student_features]` to `[.., teacher_features]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>) -> Tensor<D> {
        self.linear.forward(student)
    }
}
