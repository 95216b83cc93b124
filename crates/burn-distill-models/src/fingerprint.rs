use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use sha2::{Digest, Sha256};

/// A hash of everything a visitor sees in a module: paths, shapes, types and values, as 16 hexadecimal digits (the
/// first 64 bits of a SHA-256).
///
/// ```
/// use burn::{nn::LinearConfig, tensor::Device};
/// use burn_distill_models::fingerprint;
///
/// let layer = LinearConfig::new(2, 2).init(&Device::flex());
/// assert_eq!(fingerprint(&layer), fingerprint(&layer.clone()));
/// assert_ne!(fingerprint(&layer), fingerprint(&LinearConfig::new(2, 2).init(&Device::flex())));
/// ```
pub fn fingerprint<M: Module>(module: &M) -> String {
    let mut visitor = Fingerprint { path: Vec::new(), hash: Sha256::new() };
    module.visit(&mut visitor);
    visitor.hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Fingerprint {
    path: Vec<String>,
    hash: Sha256,
}

impl Fingerprint {
    fn add(&mut self, data: TensorData) {
        let (bytes, shape, dtype) = data.into_parts();
        self.hash.update(format!("{}:{shape:?}:{dtype:?}:", self.path.join(".")));
        self.hash.update(&bytes[..]);
    }
}

impl ModuleVisitor for Fingerprint {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param.val().into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.val().into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.val().into_data());
    }
}
