use std::any::Any;
use std::collections::HashMap;

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::{ModelError, Student, Teacher};

/// The exponential moving average of the student as its own teacher (Mean Teacher).
///
/// ```text
/// average <- d * average + (1 - d) * student,   d = min(decay, (1 + step) / (10 + step))
/// ```
///
/// for every floating-point tensor, batch-norm statistics included. The ramp of `d` lets the average forget the
/// random start, as in TensorFlow's and timm's averages. Unlike [`Frozen`](crate::Frozen) it is part of a
/// checkpoint, because it cannot be had again; it never receives a gradient.
///
/// # References
/// Tarvainen and Valpola, "Mean teachers are better role models", 2017, equation 2.
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

/// A copy in inference mode that shares no parameter identity with the original, so that no optimiser state meant
/// for one is ever applied to the other.
fn detached_copy<M: Module>(module: &M) -> M {
    struct NewIds;
    impl ModuleMapper for NewIds {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (_, tensor, mapper) = param.consume();
            Param::from_mapped_value(burn::module::ParamId::new(), tensor.detach(), mapper)
        }
    }
    module.valid().map(&mut NewIds)
}

impl<Batch, M: Student<Batch>> Teacher<Batch> for MeanTeacher<M> {
    type Output = M::Output;

    fn forward(&self, batch: &Batch) -> M::Output {
        self.average.forward(batch)
    }

    fn fingerprint(&self) -> String {
        format!("mean teacher, decay {}", self.decay)
    }

    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        let step = step as f64;
        let mut collected = Collect::default();
        student.valid().visit(&mut collected);
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        let mut average = Average { student: collected.tensors, decay, path: Vec::new() };
        Self { average: self.average.map(&mut average), decay: self.decay }
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
}

struct Average {
    student: HashMap<String, Box<dyn Any>>,
    decay: f64,
    path: Vec<String>,
}

impl ModuleMapper for Average {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let student = self.student.get(&self.path.join(".")).and_then(|tensor| tensor.downcast_ref::<Tensor<D>>());
        match student {
            Some(student) => {
                let student = student.clone();
                let decay = self.decay;
                param.map(|average| {
                    let student = student.to_device(&average.device());
                    average.mul_scalar(decay).add(student.mul_scalar(1.0 - decay))
                })
            }
            None => param,
        }
    }
}

impl<M: Module> Module for MeanTeacher<M> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.average.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self { average: self.average.fork(device), decay: self.decay }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { average: self.average.to_device(device), decay: self.decay }
    }

    fn materialize(self) -> Self {
        self
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
