use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

/// Configuration of an [`MlpConnector`].
#[derive(Config, Debug)]
pub struct MlpConnectorConfig {
    /// Width of the student's feature.
    pub student_features: usize,
    /// Width of the hidden layer.
    pub hidden_features: usize,
    /// Width of the teacher's feature.
    pub teacher_features: usize,
}

impl MlpConnectorConfig {
    /// A connector with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> MlpConnector {
        MlpConnector {
            input: LinearConfig::new(self.student_features, self.hidden_features).init(device),
            output: LinearConfig::new(self.hidden_features, self.teacher_features).init(device),
        }
    }
}

/// Linear, ReLU, linear on the last axis.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::MlpConnectorConfig;
///
/// let device = Device::flex();
/// let connector = MlpConnectorConfig::new(64, 128, 256).init(&device);
/// assert_eq!(connector.forward(Tensor::<2>::zeros([8, 64], &device)).dims(), [8, 256]);
/// ```
#[derive(Module, Debug)]
pub struct MlpConnector {
    input: Linear,
    output: Linear,
}

impl MlpConnector {
    /// The student's feature in the teacher's width.
    ///
    /// # Shapes
    /// `[.., student_features]` to `[.., teacher_features]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>) -> Tensor<D> {
        self.output.forward(activation::relu(self.input.forward(student)))
    }
}
