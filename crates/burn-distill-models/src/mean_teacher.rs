use std::any::Any;
use std::collections::HashMap;

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::{ModelError, Student, Teacher};

/// The exponential moving average of the student as its own teacher (Mean Teacher).
///
/// ```text
/// average <- d * average + (1 - d) * student,   d = min(decay, (1 + step) / (10 + step))
/// ```
///
/// for every floating-point tensor, batch-norm statistics included; integers and booleans are taken from the student, and its
/// LoRA adapters are averaged as the weights they make.
/// The ramp of `d` (0.1 at step 0, 0.5 at step 8, 0.99 at step 890) lets the average forget the random start, as in
/// TensorFlow's and timm's averages. Unlike [`Frozen`](crate::Frozen) it is part of a checkpoint, because it cannot
/// be had again; it never receives a gradient.
///
/// The average has the student's own type. In half precision a step of `(1 - d)` times the difference is rounded away
/// once it is below about 2^-11 (f16) or 2^-8 (bf16) of the value: with a `decay` of 0.999 the average stands still.
/// Keep such a student's weights in f32, or the decay low.
///
/// # Example
/// ```
/// use burn::{nn::LinearConfig, tensor::Device};
/// use burn_distill_models::MeanTeacher;
///
/// let student = LinearConfig::new(4, 2).init(&Device::flex().autodiff());
/// let teacher = MeanTeacher::new(&student, 0.999)?;
/// // It starts at the student, and is no part of the student's graph.
/// assert_eq!(teacher.average().weight.val().into_data(), student.weight.val().into_data());
/// assert!(!teacher.average().weight.val().is_require_grad());
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
///
/// # Panics
/// [`Teacher::after_step`] with a student whose parameters are not those of the model it was made from.
///
/// # References
/// Tarvainen and Valpola, *Mean teachers are better role models*, 2017, arXiv 1703.01780, section 2. The ramp is that
/// of TensorFlow's `ExponentialMovingAverage` with `num_updates`.
#[derive(Clone, Debug)]
pub struct MeanTeacher<M> {
    average: M,
    decay: f64,
}

impl<M: Module> MeanTeacher<M> {
    /// Starts the average at the student's present weights.
    ///
    /// # Errors
    /// When `decay` is not in [0, 1).
    pub fn new(student: &M, decay: f64) -> Result<Self, ModelError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(ModelError::out_of_range("decay", "in [0, 1)", decay));
        }
        Ok(Self { average: detached_copy(student), decay })
    }

    /// The averaged model, in inference mode.
    pub fn average(&self) -> &M {
        &self.average
    }

    /// Gives the averaged model, in inference mode: it is often the better student.
    pub fn into_average(self) -> M {
        self.average
    }
}

/// A copy in inference mode, adapters merged, that shares no parameter identity with the original, so that no optimiser state meant
/// for one is ever applied to the other.
fn detached_copy<M: Module>(module: &M) -> M {
    struct NewIds;
    impl ModuleMapper for NewIds {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (_, tensor, mapper) = param.consume();
            Param::from_mapped_value(burn::module::ParamId::new(), tensor.detach(), mapper)
        }
    }
    module.valid().materialize().map(&mut NewIds)
}

/// The module with running statistics of its own: clones of a module share them, and Burn changes and moves them in
/// place.
fn own<M: Module>(module: &M) -> M {
    module.valid()
}

impl<Batch, M: Student<Batch>> Teacher<Batch> for MeanTeacher<M> {
    type Output = M::Output;

    fn forward(&self, batch: &Batch) -> M::Output {
        self.average.forward(batch)
    }

    fn fingerprint(&self) -> String {
        format!("mean teacher, decay {}", self.decay)
    }

    fn learns(&self) -> bool {
        true
    }

    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        let step = step as f64;
        let mut collected = Collect::default();
        student.valid().materialize().visit(&mut collected);
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        let mut average = Average { student: collected.tensors, decay, path: Vec::new() };
        Self { average: own(&self.average).map(&mut average), decay: self.decay }
    }
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    tensors: HashMap<String, Box<dyn Any>>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.insert(self.path.join("."), Box::new(param.val()));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.tensors.insert(self.path.join("."), Box::new(param.val()));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.tensors.insert(self.path.join("."), Box::new(param.val()));
    }
}

struct Average {
    student: HashMap<String, Box<dyn Any>>,
    decay: f64,
    path: Vec<String>,
}

impl Average {
    /// The student's tensor of the name and kind that is being mapped.
    fn of_student<T: Clone + 'static>(&self) -> T {
        let path = self.path.join(".");
        let tensor = self.student.get(&path).and_then(|tensor| tensor.downcast_ref::<T>());
        tensor.unwrap_or_else(|| panic!("the student has no `{path}` of the averaged one's rank and kind")).clone()
    }
}

impl ModuleMapper for Average {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (student, decay, path) = (self.of_student::<Tensor<D>>(), self.decay, &self.path);
        param.map(|average| {
            let (given, expected) = (student.dims(), average.dims());
            assert_eq!(given, expected, "the student's `{}` has another shape than the average's", path.join("."));
            let student = student.to_device(&average.device());
            average.mul_scalar(decay).add(student.mul_scalar(1.0 - decay))
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let student = self.of_student::<Tensor<D, Int>>();
        param.map(|average| student.to_device(&average.device()))
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let student = self.of_student::<Tensor<D, Bool>>();
        param.map(|average| student.to_device(&average.device()))
    }
}

impl<M: Module> Module for MeanTeacher<M> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.average.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self { average: own(&self.average).fork(device), decay: self.decay }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { average: own(&self.average).to_device(device), decay: self.decay }
    }

    fn materialize(self) -> Self {
        Self { average: self.average.materialize(), decay: self.decay }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.average.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self { average: self.average.map(mapper), decay: self.decay }
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}

impl<M: ModuleDisplayDefault> ModuleDisplayDefault for MeanTeacher<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.average.content(content)
    }
}

impl<M: ModuleDisplayDefault> ModuleDisplay for MeanTeacher<M> {}
