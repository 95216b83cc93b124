use std::fmt;

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{DType, Device, Tensor, activation};

use crate::{ModelError, Teacher, mix_seed};

/// How an [`Ensemble`] joins its teachers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EnsembleMean {
    /// The weighted mean of the logits: a geometric mean of the distributions.
    Logits,
    /// The weighted mean of the probabilities at a temperature. The joint logits are
    /// `temperature * ln(mean of softmax(logits / temperature))`, so that a loss at the same temperature sees
    /// exactly the mean. A class to which no teacher gives a probability that f32 can hold counts with 1.2e-38 (the
    /// smallest normal f32).
    Probabilities {
        /// The temperature at which probabilities are averaged, above 0; 1 for the plain mean.
        temperature: f64,
    },
}

/// What an [`Ensemble`] says: features of different teachers have no mean, so there are only logits.
#[derive(Clone, Debug)]
pub struct EnsembleOutput {
    /// The joint logits, `[rows, classes]`, at least in f32.
    pub logits: Tensor<2>,
}

/// Several teachers, of any architectures, as one; each with a weight, all over the same classes.
///
/// It is for teachers that stay as they are, such as [`Frozen`](crate::Frozen) models: it shows nothing to records and
/// passes no [`Teacher::after_step`] on, so a [`MeanTeacher`](crate::MeanTeacher) inside would stand still. Its
/// fingerprint is made of the members' and the weights; the closures that read the logits have none.
///
/// Teachers in half precision are joined in f32, and each may have a type of its own.
///
/// # Panics
/// [`Teacher::forward`] of an ensemble without members, or whose members give different rows or classes, with a message
/// that names both.
///
/// ```
/// use burn::{module::Module, nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// use burn_distill_models::{Ensemble, EnsembleMean, Frozen, Student, Teacher};
/// # #[derive(Module, Debug)]
/// # struct Net { layer: Linear }
/// # impl Student<Tensor<2>> for Net {
/// #     type Output = Tensor<2>;
/// #     fn forward(&self, batch: &Tensor<2>) -> Tensor<2> { self.layer.forward(batch.clone()) }
/// # }
/// # let device = Device::flex();
/// # let net = || Frozen::new(Net { layer: LinearConfig::new(4, 3).init(&device) });
/// let (a, b) = (net(), net());
/// let batch = Tensor::<2>::ones([2, 4], &device);
/// let expected = a.forward(&batch) * 0.75 + b.forward(&batch) * 0.25;
/// let teacher = Ensemble::new(EnsembleMean::Logits)?
///     .with(a, 3.0, |logits: &Tensor<2>| logits.clone())?
///     .with(b, 1.0, |logits: &Tensor<2>| logits.clone())?;
/// teacher.forward(&batch).logits.into_data().assert_approx_eq::<f32>(&expected.into_data(), Default::default());
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
pub struct Ensemble<Batch> {
    mean: EnsembleMean,
    members: Vec<(f64, Box<dyn Member<Batch>>)>,
}

impl<Batch: 'static> Ensemble<Batch> {
    /// An ensemble without members yet; it needs at least one, by [`Ensemble::with`], before it can teach.
    ///
    /// # Errors
    /// When the temperature of [`EnsembleMean::Probabilities`] is not in (0, inf).
    pub fn new(mean: EnsembleMean) -> Result<Self, ModelError> {
        match mean {
            EnsembleMean::Probabilities { temperature } if !(temperature > 0.0 && temperature.is_finite()) => {
                Err(ModelError::out_of_range("temperature", "in (0, inf)", temperature))
            }
            _ => Ok(Self { mean, members: Vec::new() }),
        }
    }

    /// Adds a teacher; `logits` reads `[rows, classes]` from its output. Weights are relative to their sum.
    ///
    /// # Errors
    /// When `weight` is not in (0, inf).
    pub fn with<T, F>(mut self, teacher: T, weight: f64, logits: F) -> Result<Self, ModelError>
    where
        T: Teacher<Batch> + Sync + 'static,
        F: Fn(&T::Output) -> Tensor<2> + Clone + Send + Sync + 'static,
    {
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(ModelError::out_of_range("weight", "in (0, inf)", weight));
        }
        self.members.push((weight, Box::new(TypedMember { teacher, logits })));
        Ok(self)
    }

    fn map_members(self, f: impl Fn(Box<dyn Member<Batch>>) -> Box<dyn Member<Batch>>) -> Self {
        Self {
            mean: self.mean,
            members: self.members.into_iter().map(|(weight, member)| (weight, f(member))).collect(),
        }
    }
}

impl<Batch: 'static> Teacher<Batch> for Ensemble<Batch> {
    type Output = EnsembleOutput;

    /// # Panics
    /// When the ensemble has no member, or members differ in their rows or classes.
    fn forward(&self, batch: &Batch) -> EnsembleOutput {
        assert!(!self.members.is_empty(), "an ensemble needs at least one teacher: add one by `Ensemble::with`");
        let total: f64 = self.members.iter().map(|(weight, _)| weight).sum();
        let mut shape = None;
        let weighted = self.members.iter().enumerate().map(|(index, (weight, member))| {
            let logits = widen(member.logits(batch));
            let (expected, given) = (*shape.get_or_insert(logits.dims()), logits.dims());
            assert_eq!(
                given, expected,
                "the teachers of an ensemble must give the same [rows, classes]: teacher {index} gives {given:?}, \
                 teacher 0 {expected:?}"
            );
            let values = match self.mean {
                EnsembleMean::Logits => logits,
                EnsembleMean::Probabilities { temperature } => activation::softmax(logits.div_scalar(temperature), 1),
            };
            values.mul_scalar(weight / total)
        });
        let mean = weighted.reduce(Tensor::add).expect("a member: asserted above");
        let logits = match self.mean {
            EnsembleMean::Logits => mean,
            // The smallest normal number keeps the logarithm of a vanished probability finite.
            EnsembleMean::Probabilities { temperature } => {
                mean.clamp_min(f32::MIN_POSITIVE).log().mul_scalar(temperature)
            }
        };
        EnsembleOutput { logits }
    }

    fn fingerprint(&self) -> String {
        let members: Vec<_> = self.members.iter().map(|(weight, member)| (*weight, member.fingerprint())).collect();
        let text = format!("{:?} {members:?}", self.mean);
        format!("{:016x}", mix_seed(&text.bytes().map(u64::from).collect::<Vec<_>>()))
    }

    fn parameter_count(&self) -> u64 {
        self.members.iter().map(|(_, member)| member.parameter_count()).sum()
    }

    fn weight_bytes(&self) -> u64 {
        self.members.iter().map(|(_, member)| member.weight_bytes()).sum()
    }
}

/// Half precision as f32: logarithms of small probabilities, and sums of teachers of different types.
fn widen(logits: Tensor<2>) -> Tensor<2> {
    match logits.dtype() {
        DType::F16 | DType::BF16 => logits.cast(DType::F32),
        _ => logits,
    }
}

/// A teacher of any type, seen through its logits.
trait Member<Batch>: Send + Sync {
    fn logits(&self, batch: &Batch) -> Tensor<2>;
    fn fingerprint(&self) -> String;
    fn parameter_count(&self) -> u64;
    fn weight_bytes(&self) -> u64;
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device>;
    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Member<Batch>>;
    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Member<Batch>>;
    fn clone_box(&self) -> Box<dyn Member<Batch>>;
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

#[derive(Clone)]
struct TypedMember<T, F> {
    teacher: T,
    logits: F,
}

impl<Batch, T, F> Member<Batch> for TypedMember<T, F>
where
    Batch: 'static,
    T: Teacher<Batch> + Sync + 'static,
    F: Fn(&T::Output) -> Tensor<2> + Clone + Send + Sync + 'static,
{
    fn logits(&self, batch: &Batch) -> Tensor<2> {
        (self.logits)(&self.teacher.forward(batch))
    }

    fn fingerprint(&self) -> String {
        self.teacher.fingerprint()
    }

    fn parameter_count(&self) -> u64 {
        self.teacher.parameter_count()
    }

    fn weight_bytes(&self) -> u64 {
        self.teacher.weight_bytes()
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.teacher.collect_devices(devices)
    }

    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Member<Batch>> {
        Box::new(Self { teacher: self.teacher.fork(device), logits: self.logits })
    }

    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Member<Batch>> {
        Box::new(Self { teacher: self.teacher.to_device(device), logits: self.logits })
    }

    fn clone_box(&self) -> Box<dyn Member<Batch>> {
        Box::new(self.clone())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.teacher.fmt(f)
    }
}

impl<Batch> Clone for Box<dyn Member<Batch>> {
    fn clone(&self) -> Self {
        self.as_ref().clone_box()
    }
}

impl<Batch> Clone for Ensemble<Batch> {
    fn clone(&self) -> Self {
        Self { mean: self.mean, members: self.members.clone() }
    }
}

impl<Batch> fmt::Debug for dyn Member<Batch> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

impl<Batch> fmt::Debug for Ensemble<Batch> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ensemble").field("mean", &self.mean).field("members", &self.members).finish()
    }
}

impl<Batch: 'static> Module for Ensemble<Batch> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.members.iter().fold(devices, |devices, (_, member)| member.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.map_members(|member| member.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_members(|member| member.to_device(device))
    }

    fn materialize(self) -> Self {
        self
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

impl<Batch: 'static> ModuleDisplayDefault for Ensemble<Batch> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("Ensemble of {} teachers", self.members.len())).optional()
    }
}

impl<Batch: 'static> ModuleDisplay for Ensemble<Batch> {}
