//! Small students, data and loaders. Weights are pure functions of a seed: tests share one random generator.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill_models::{
    Frozen, NoTeacher, Seeded, SeededLoader, SeededLoaderConfig, Student, Teacher, mix_seed, rng_from_seed,
};
use burn_distill_train::{Classification, Distillation, MetricsRow, Progress, View};
use rand::RngExt;

pub(crate) const FEATURES: usize = 4;
pub(crate) const CLASSES: usize = 3;

/// The device of the suite, with gradients.
pub(crate) fn device() -> Device {
    burn_distill_dev::device().autodiff()
}

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) inputs: Vec<f32>,
    pub(crate) target: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) inputs: Tensor<2>,
    pub(crate) targets: Tensor<1, Int>,
    pub(crate) labelled: Tensor<1, Bool>,
    pub(crate) indices: Vec<usize>,
}

/// Stacks samples, with noise from their seeds.
#[derive(Clone)]
pub(crate) struct Stack {
    pub(crate) noise: f32,
}

impl Batcher<Seeded<Sample>, Batch> for Stack {
    fn batch(&self, items: Vec<Seeded<Sample>>, device: &Device) -> Batch {
        let noisy = |item: &Seeded<Sample>| {
            let mut rng = rng_from_seed(item.seed);
            let inputs = item.item.inputs.iter().map(|value| value + self.noise * rng.random_range(-1.0..1.0f32));
            inputs.collect::<Vec<_>>()
        };
        let values: Vec<f32> = items.iter().flat_map(noisy).collect();
        let width = values.len() / items.len();
        let targets: Vec<i64> = items.iter().map(|item| item.item.target.unwrap_or(0) as i64).collect();
        let labelled: Vec<bool> = items.iter().map(|item| item.item.target.is_some()).collect();
        Batch {
            inputs: Tensor::from_data(TensorData::new(values, [items.len(), width]), device),
            targets: Tensor::from_data(TensorData::new(targets, [items.len()]), device),
            labelled: Tensor::from_data(TensorData::new(labelled, [items.len()]), device),
            indices: items.iter().map(|item| item.index).collect(),
        }
    }
}

/// Random inputs with the class that a fixed rule gives them.
pub(crate) fn samples(count: usize, seed: u64) -> Vec<Sample> {
    let mut rng = rng_from_seed(seed);
    let mut sample = || {
        let inputs: Vec<f32> = (0..FEATURES).map(|_| rng.random_range(-1.0..1.0)).collect();
        let target = if inputs[0] + inputs[1] > 0.3 {
            0
        } else if inputs[2] > inputs[3] {
            1
        } else {
            2
        };
        Sample { inputs, target: Some(target) }
    };
    (0..count).map(|_| sample()).collect()
}

pub(crate) type Loader = Arc<dyn DataLoader<Batch>>;

pub(crate) fn loader_with(samples: Vec<Sample>, noise: f32, config: SeededLoaderConfig) -> Loader {
    Arc::new(SeededLoader::new(Arc::new(InMemDataset::new(samples)), Stack { noise }, config).unwrap())
}

/// In order, without noise.
pub(crate) fn loader(samples: Vec<Sample>, batch_size: usize) -> Loader {
    loader_with(samples, 0.0, SeededLoaderConfig::new(batch_size).with_prefetch(0))
}

#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) logits: Tensor<2>,
    pub(crate) hidden: Tensor<2>,
}

#[derive(Module, Debug)]
pub(crate) struct Mlp {
    first: Linear,
    norm: Option<BatchNorm>,
    dropout: Dropout,
    last: Linear,
}

impl Mlp {
    pub(crate) fn new(width: usize, norm: bool, dropout: f64, seed: u64, device: &Device) -> Self {
        let mlp = Self {
            first: LinearConfig::new(FEATURES, width).init(device),
            norm: norm.then(|| BatchNormConfig::new(width).init(device)),
            dropout: DropoutConfig::new(dropout).init(),
            last: LinearConfig::new(width, CLASSES).init(device),
        };
        with_weights(mlp, seed)
    }

    /// Without batch norm and dropout.
    pub(crate) fn plain(seed: u64) -> Self {
        Self::new(5, false, 0.0, seed, &device())
    }

    /// With batch norm.
    pub(crate) fn normed(seed: u64) -> Self {
        Self::new(5, true, 0.0, seed, &device())
    }
}

impl Student<Batch> for Mlp {
    type Output = Out;

    fn forward(&self, batch: &Batch) -> Out {
        let hidden = self.first.forward(batch.inputs.clone());
        let hidden = match &self.norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        };
        let hidden = self.dropout.forward(hidden.tanh());
        Out { logits: self.last.forward(hidden.clone()), hidden }
    }
}

/// Gives every trained tensor numbers that depend on nothing but `seed` and its place.
pub(crate) fn with_weights<M: Module>(module: M, seed: u64) -> M {
    struct Fill {
        seed: u64,
        count: u64,
        path: Vec<String>,
    }
    impl ModuleMapper for Fill {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.count += 1;
            let learned = |name: &String| {
                !["running_", "student_memory", "teacher_memory", "log_"].iter().any(|p| name.starts_with(p))
            };
            if !self.path.iter().all(learned) {
                return param;
            }
            let mut rng = rng_from_seed(mix_seed(&[self.seed, self.count]));
            param.map(|tensor| {
                let shape = tensor.shape();
                let values: Vec<f32> = (0..shape.num_elements()).map(|_| rng.random_range(-0.8..0.8)).collect();
                Tensor::from_data(TensorData::new(values, shape), &tensor.device())
                    .set_require_grad(tensor.is_require_grad())
            })
        }
    }
    module.map(&mut Fill { seed, count: 0, path: Vec::new() })
}

/// A student that is one vector of numbers, whatever the batch.
#[derive(Module, Debug)]
pub(crate) struct Vector {
    pub(crate) values: Param<Tensor<1>>,
}

impl Vector {
    pub(crate) fn new<const N: usize>(values: [f32; N]) -> Self {
        Self { values: Param::from_data(values, &device()) }
    }

    pub(crate) fn numbers(&self) -> Vec<f32> {
        self.values.val().into_data().try_to_vec().unwrap()
    }
}

impl Student<Batch> for Vector {
    type Output = Tensor<1>;

    fn forward(&self, _batch: &Batch) -> Tensor<1> {
        self.values.val()
    }
}

pub(crate) type FromTeacher = Distillation<Mlp, Frozen<Mlp>, Batch>;

/// A silent run of a student under a frozen teacher, without terms.
pub(crate) fn from_teacher(student: Mlp, train: Loader, folder: &Path) -> FromTeacher {
    let valid = loader(samples(7, 99), 4);
    Distillation::new(student, Frozen::new(Mlp::new(9, false, 0.0, 1000, &device())), train, valid)
        .folder(folder)
        .progress(Progress::Silent)
}

pub(crate) type OfVector = Distillation<Vector, NoTeacher, Batch>;

/// A silent run of a vector with one batch, so one step, per epoch.
pub(crate) fn of_vector<const N: usize>(values: [f32; N], folder: &Path) -> OfVector {
    let one = || loader(samples(2, 0), 2);
    Distillation::new(Vector::new(values), NoTeacher::new(), one(), one()).folder(folder).progress(Progress::Silent)
}

/// Cross-entropy on the samples that have a label.
pub(crate) fn hard<T, P>(view: View<'_, Out, T, Batch, P>) -> Tensor<1> {
    let loss = CrossEntropyLossConfig::new().init().unwrap();
    loss.forward(view.student.logits.clone(), view.batch.targets.clone(), Some(view.batch.labelled.clone()))
}

/// Soft targets at the run's temperature.
pub(crate) fn soft<P>(view: View<'_, Out, Out, Batch, P>) -> Tensor<1> {
    let loss = KdLossConfig::new().init().unwrap().at_temperature(view.temperature);
    loss.forward(view.student.logits.clone(), view.teacher.logits.clone(), None)
}

pub(crate) fn rows<P>(view: View<'_, Out, Out, Batch, P>) -> Classification {
    Classification {
        student_logits: view.student.logits.clone(),
        teacher_logits: Some(view.teacher.logits.clone()),
        targets: Some(view.batch.targets.clone()),
        labelled: Some(view.batch.labelled.clone()),
    }
}

/// Whether it is the batch of four with this sample.
pub(crate) fn touches(batch: &Batch, index: usize) -> bool {
    batch.indices.len() == 4 && batch.indices.contains(&index)
}

/// The tensors of a safetensors file: the header without its metadata, and the bytes.
pub(crate) fn tensors(path: &Path) -> (serde_json::Value, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&rest[..length]).unwrap();
    header.as_object_mut().unwrap().remove("__metadata__");
    (header, rest[length..].to_vec())
}

/// The exported student of a run.
pub(crate) fn student_of(folder: &Path) -> (serde_json::Value, Vec<u8>) {
    tensors(&folder.join("student.safetensors"))
}

/// The exported student's numbers, running statistics included.
pub(crate) fn numbers_of(folder: &Path) -> Vec<f32> {
    let (_, bytes) = student_of(folder);
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn assert_close(left: &[f32], right: &[f32], tolerance: f32) {
    assert_eq!(left.len(), right.len());
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert!((left - right).abs() <= tolerance, "number {index}: {left} and {right}");
    }
}

/// The rows of a run without what depends on the clock.
pub(crate) fn timeless(folder: &Path) -> Vec<MetricsRow> {
    let mut rows = burn_distill_train::read_metrics(folder.join("metrics.jsonl")).unwrap();
    for row in &mut rows {
        row.seconds = 0.0;
        row.metrics.retain(|name, _| !name.ends_with("_per_second"));
    }
    rows
}

/// What two runs of the same program may differ by, relative to numbers above 1, on a device whose own repetitions
/// differ: there kernels are chosen by the time that they take, and another choice was seen to move a loss by 2e-3 after
/// four epochs.
const REPETITION: f64 = 1e-2;

/// Fails unless two runs left the same metrics and the same student: bit for bit, or to [`REPETITION`].
#[track_caller]
pub(crate) fn assert_same_run(what: &str, left: &Path, right: &Path) {
    let (rows, others) = (timeless(left), timeless(right));
    if burn_distill_dev::bits_repeat() {
        assert_eq!(rows, others, "{what}");
        assert_eq!(student_of(left), student_of(right), "{what}");
        return;
    }
    assert_eq!(rows.len(), others.len(), "{what}");
    for (row, other) in rows.iter().zip(&others) {
        assert_eq!((row.epoch, &row.split, row.step), (other.epoch, &other.split, other.step), "{what}");
        assert!(row.metrics.keys().eq(other.metrics.keys()), "{what}: {row:?} and {other:?}");
        for (name, value) in &row.metrics {
            let far = (value - other.metrics[name]).abs() > REPETITION * value.abs().max(1.0);
            assert!(!far, "{what}: {name} of epoch {}: {value} and {}", row.epoch, other.metrics[name]);
        }
    }
    assert_eq!(student_of(left).0, student_of(right).0, "{what}");
    assert_close(&numbers_of(left), &numbers_of(right), REPETITION as f32);
}

/// A value of the metrics.
pub(crate) fn value(rows: &[MetricsRow], epoch: usize, split: &str, name: &str) -> Option<f64> {
    rows.iter().find(|row| row.epoch == epoch && row.split == split)?.metrics.get(name).copied()
}

/// `Teacher` is used through this alone in some files.
pub(crate) fn fingerprint<B, T: Teacher<B>>(teacher: &T) -> String {
    teacher.fingerprint()
}
