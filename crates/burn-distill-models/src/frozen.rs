use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use crate::{Student, Teacher, fingerprint, parameter_count, weight_bytes};

/// A model that is never trained: it moves with its parent, and is invisible to records, gradients, optimisers and
/// parameter groups.
///
/// Burn's own means each leave a gap inside a trained module: `no_grad()` keeps batch-norm statistics and dropout
/// live, `valid()` is undone by the next `train()`, `freeze()` stays in every checkpoint, and `#[module(skip)]` stays
/// behind when the parent is forked to another device.
///
/// ```
/// use burn::{module::Module, nn::LinearConfig, tensor::Device};
/// use burn_distill_models::Frozen;
///
/// let teacher = Frozen::new(LinearConfig::new(8, 4).init(&Device::flex().autodiff()));
/// assert_eq!(teacher.num_params(), 0); // nothing to train
/// assert_eq!(teacher.inner().num_params(), 8 * 4 + 4);
/// assert!(teacher.into_record().is_empty()); // nothing in a checkpoint
/// ```
#[derive(Clone, Debug)]
pub struct Frozen<M>(M);

impl<M: Module> Frozen<M> {
    /// Takes a snapshot of `module` in inference mode; the original keeps training if it is held elsewhere.
    pub fn new(module: M) -> Self {
        Self(module.valid())
    }

    /// The frozen model.
    pub fn inner(&self) -> &M {
        &self.0
    }

    /// Gives the model back, still in inference mode (`train()` makes it trainable again).
    pub fn into_inner(self) -> M {
        self.0
    }
}

impl<Batch, M: Student<Batch>> Teacher<Batch> for Frozen<M> {
    type Output = M::Output;

    fn forward(&self, batch: &Batch) -> M::Output {
        self.0.forward(batch)
    }

    fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }

    fn parameter_count(&self) -> u64 {
        parameter_count(&self.0)
    }

    fn weight_bytes(&self) -> u64 {
        weight_bytes(&self.0)
    }
}

impl<M: Module> Module for Frozen<M> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.0.collect_devices(devices)
    }

    // Clones of a module share its running statistics, which Burn moves in place: `valid` makes them its own first, so
    // that a clone that moves leaves the others where they are.
    fn fork(self, device: &Device) -> Self {
        Self(self.0.valid().fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.valid().to_device(device))
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<Mapper: ModuleMapper>(self, _mapper: &mut Mapper) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}

impl<M: ModuleDisplayDefault> ModuleDisplayDefault for Frozen<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.0.content(content)
    }
}

impl<M: ModuleDisplayDefault> ModuleDisplay for Frozen<M> {}
