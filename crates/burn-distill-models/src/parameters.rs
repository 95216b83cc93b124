use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Shape, Tensor, TensorData};

/// Number of parameters: the elements of every float tensor that training can change.
///
/// Frozen parameters count, as a smaller student is smaller whether or not it is still trained; the running mean and
/// variance of batch norm are buffers and do not, as in PyTorch. Burn's own `num_params` does count them, so it is
/// larger by twice the channels of every batch norm.
///
/// A [`Frozen`](crate::Frozen) model hides its parameters: ask it by [`Teacher::parameter_count`](crate::Teacher::parameter_count).
///
/// ```
/// use burn::{module::Module, nn::BatchNormConfig, tensor::Device};
/// use burn_distill_models::{parameter_count, weight_bytes};
///
/// let norm = BatchNormConfig::new(8).init(&Device::flex());
/// assert_eq!(parameter_count(&norm), 16); // scale and shift
/// assert_eq!(norm.num_params(), 32);
/// assert_eq!(weight_bytes(&norm), 32 * 4);
/// ```
pub fn parameter_count<M: Module>(module: &M) -> u64 {
    let mut size = Size::default();
    module.visit(&mut size);
    size.parameters
}

/// Bytes of every tensor of the module in its own type: what its weights take in memory and, up to the header, in a
/// safetensors file. Buffers such as the running statistics of batch norm count here, as a model cannot run without
/// them.
pub fn weight_bytes<M: Module>(module: &M) -> u64 {
    let mut size = Size::default();
    module.visit(&mut size);
    size.bytes
}

#[derive(Default)]
struct Size {
    field: Vec<String>,
    parameters: u64,
    bytes: u64,
}

impl Size {
    fn add(&mut self, shape: Shape, dtype: DType, data: impl FnOnce() -> TensorData) {
        self.bytes += match dtype {
            // Packed values and their scales: only the data knows.
            DType::QFloat(_) => data().bytes().len() as u64,
            dtype => (shape.num_elements() * dtype.size()) as u64,
        };
    }

    /// Burn shows running statistics as any other parameter; the names of their fields tell them apart.
    fn is_buffer(&self) -> bool {
        self.field.last().is_some_and(|field| field == "running_mean" || field == "running_var")
    }
}

impl ModuleVisitor for Size {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.field.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.field.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.is_buffer() {
            self.parameters += param.lazy_shape().num_elements() as u64;
        }
        let tensor = param.val();
        self.add(tensor.shape(), tensor.dtype(), || tensor.into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let tensor = param.val();
        self.add(tensor.shape(), tensor.dtype(), || tensor.into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let tensor = param.val();
        self.add(tensor.shape(), tensor.dtype(), || tensor.into_data());
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Model {
        layers: Vec<Linear>,
        norm: BatchNorm,
        ids: Param<Tensor<1, Int>>,
    }

    fn model(device: &Device) -> Model {
        let ids = Param::initialized(burn::module::ParamId::new(), Tensor::from_ints([1, 2, 3], device));
        Model {
            layers: vec![LinearConfig::new(4, 5).init(device), LinearConfig::new(5, 2).with_bias(false).init(device)],
            norm: BatchNormConfig::new(5).init(device),
            ids,
        }
    }

    #[test]
    fn buffers_and_integers_are_no_parameters_but_take_memory() {
        let model = model(&Device::flex());
        let integers = model.ids.val().dtype().size() as u64 * 3;
        assert_eq!(parameter_count(&model), (4 * 5 + 5) + 5 * 2 + 2 * 5);
        assert_eq!(weight_bytes(&model), (25 + 10 + 4 * 5) * 4 + integers);
    }

    #[test]
    fn frozen_parameters_count() {
        let model = model(&Device::flex().autodiff()).no_grad();
        assert_eq!(parameter_count(&model), 45);
    }
}
