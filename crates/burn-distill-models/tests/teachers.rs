//! What a teacher inside a trained module must not do: learn, be saved, forget its statistics, stay behind.

use burn::module::{Lora, Module, ModuleVisitor, Param, ParamId};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Bool, DType, Device, Distribution, Int, Tensor, TensorData, activation};
use burn_distill_models::{Ensemble, EnsembleMean, Frozen, MeanTeacher, Student, Teacher};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    last: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(6, 12).init(device),
            norm: BatchNormConfig::new(12).init(device),
            dropout: DropoutConfig::new(0.5).init(),
            last: LinearConfig::new(12, 3).init(device),
        }
    }
}

impl Student<Tensor<2>> for Net {
    type Output = Tensor<2>;

    fn forward(&self, batch: &Tensor<2>) -> Tensor<2> {
        let hidden = activation::relu(self.norm.forward(self.first.forward(batch.clone())));
        self.last.forward(self.dropout.forward(hidden))
    }
}

#[derive(Module, Debug)]
struct Pair<T: Module> {
    student: Net,
    teacher: T,
}

fn batch(device: &Device) -> Tensor<2> {
    Tensor::random([16, 6], Distribution::Normal(1.0, 2.0), device)
}

fn values<M: Module>(module: &M) -> Vec<TensorData> {
    struct Values(Vec<TensorData>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data());
        }
    }
    let mut values = Values(Vec::new());
    module.visit(&mut values);
    values.0
}

#[test]
fn a_frozen_teacher_stays_as_it_is_while_the_student_trains() {
    let device = Device::flex().autodiff();
    let teacher = Net::new(&device);
    teacher.forward(&batch(&device)); // its batch-norm statistics are not the initial ones
    let mut pair = Pair { student: Net::new(&device), teacher: Frozen::new(teacher) };
    let (weights, fingerprint) = (values(pair.teacher.inner()), Teacher::<Tensor<2>>::fingerprint(&pair.teacher));
    let student = values(&pair.student);
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..3 {
        let input = batch(&device);
        let target = pair.teacher.forward(&input);
        assert!(!target.is_tracked());
        assert_eq!(target.to_data(), pair.teacher.forward(&input).to_data(), "dropout is off");
        let loss = (pair.student.forward(&input) - target).square().mean();
        let grads = GradientsParams::from_grads(loss.backward(), &pair);
        assert_eq!(grads.len(), 6);
        pair = optimizer.step(0.1, pair, grads);
    }
    assert_eq!(values(pair.teacher.inner()), weights);
    assert_eq!(Teacher::<Tensor<2>>::fingerprint(&pair.teacher), fingerprint);
    assert_ne!(values(&pair.student), student);
}

#[test]
fn a_frozen_teacher_is_not_in_a_record_and_survives_mode_changes_and_moves() {
    let device = Device::flex().autodiff();
    let pair = Pair { student: Net::new(&device), teacher: Frozen::new(Net::new(&device)) };
    assert_eq!(pair.clone().into_record().len(), pair.student.clone().into_record().len());
    let moved = pair.valid().train().fork(&device);
    assert!(moved.student.norm.training.is_enabled());
    assert!(!moved.teacher.inner().norm.training.is_enabled());
    assert!(!moved.teacher.inner().first.weight.is_require_grad());
    let input = batch(&device);
    assert_eq!(moved.teacher.forward(&input).to_data(), moved.teacher.forward(&input).to_data());
}

#[test]
fn a_mean_teacher_follows_the_student_and_is_saved() {
    let device = Device::flex().autodiff();
    let student = Net::new(&device);
    let other = Net::new(&device);
    let teacher = MeanTeacher::new(&student, 0.9).unwrap();
    let before = values(teacher.average());
    // The ramp gives decay (1 + 0) / (10 + 0) at step 0.
    let teacher = Teacher::<Tensor<2>>::after_step(teacher, &other, 0);
    for ((mean, start), target) in values(teacher.average()).iter().zip(&before).zip(values(&other)) {
        let expected: Vec<f32> =
            start.iter::<f32>().zip(target.iter::<f32>()).map(|(a, b)| 0.1 * a + 0.9 * b).collect();
        mean.assert_approx_eq::<f32>(&TensorData::new(expected, mean.shape().clone()), Default::default());
    }
    // Far along, the decay is the configured one.
    let teacher = Teacher::<Tensor<2>>::after_step(teacher, &student, 1_000_000);
    let pair = Pair { student, teacher };
    let fresh = Pair { student: Net::new(&device), teacher: MeanTeacher::new(&other, 0.9).unwrap() };
    let resumed = fresh.load_record(pair.clone().into_record());
    assert_eq!(values(resumed.teacher.average()), values(pair.teacher.average()));
    assert!(!resumed.teacher.forward(&batch(&device)).is_tracked());
    assert!(MeanTeacher::new(&other, 1.0).unwrap_err().to_string().contains("`decay` must be in [0, 1), got 1"));
}

#[test]
fn a_mean_teacher_follows_running_statistics_and_leaves_its_clones_alone() {
    let device = Device::flex().autodiff();
    let student = Net::new(&device);
    let teacher = MeanTeacher::new(&student, 0.9).unwrap();
    let (clone, before) = (teacher.clone(), values(teacher.average()));
    student.forward(&batch(&device)); // moves the statistics of batch norm
    let moved = student.valid();
    let teacher = Teacher::<Tensor<2>>::after_step(teacher, &student, 0);
    let mean = |net: &Net| net.norm.running_mean.value_sync().into_data();
    assert_ne!(mean(&moved), mean(clone.average()));
    let expected: Vec<f32> = mean(&moved).iter::<f32>().map(|value| 0.9 * value).collect();
    mean(teacher.average()).assert_approx_eq::<f32>(&TensorData::new(expected, [12]), Default::default());
    assert_eq!(values(clone.average()), before);
    assert_ne!(values(teacher.average()), before);
}

#[test]
fn a_mean_teacher_takes_integers_and_booleans_from_the_student() {
    #[derive(Module, Debug)]
    struct Buffers {
        weight: Param<Tensor<1>>,
        ids: Param<Tensor<1, Int>>,
        kept: Param<Tensor<1, Bool>>,
    }
    let device = Device::flex();
    let buffers = |weight: f32, ids: [i32; 2], kept: [bool; 2]| Buffers {
        weight: Param::from_tensor(Tensor::from_floats([weight], &device)),
        ids: Param::initialized(ParamId::new(), Tensor::from_ints(ids, &device)),
        kept: Param::initialized(ParamId::new(), Tensor::from_bool(TensorData::from(kept), &device)),
    };
    impl Student<()> for Buffers {
        type Output = ();
        fn forward(&self, _batch: &()) {}
    }
    let teacher = MeanTeacher::new(&buffers(1.0, [1, 2], [true, false]), 0.5).unwrap();
    let student = buffers(3.0, [7, 8], [false, true]);
    let average = Teacher::<()>::after_step(teacher, &student, 1_000_000).into_average();
    assert_eq!(average.weight.val().into_scalar::<f32>(), 2.0);
    assert_eq!(average.ids.val().into_data(), student.ids.val().into_data());
    assert_eq!(average.kept.val().into_data(), student.kept.val().into_data());
}

#[test]
fn a_mean_teacher_of_a_student_with_adapters_averages_what_they_make() {
    let device = Device::flex().autodiff();
    device.seed(3);
    let adapted = || {
        let mut net = Net::new(&device).apply_lora(Lora::new(2, 4.0));
        let mut optimizer = SgdConfig::new().init();
        for _ in 0..3 {
            let loss = net.forward(&batch(&device)).square().mean();
            let grads = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(0.1, net, grads);
        }
        net
    };
    let (student, other) = (adapted(), adapted());
    let teacher = MeanTeacher::new(&student, 0.5).unwrap();
    let teacher = Teacher::<Tensor<2>>::after_step(teacher, &other, 1_000_000);
    let weight = |net: &Net| net.valid().materialize().last.weight.val();
    let base = student.last.weight.base().without_autodiff();
    assert!((weight(&student) - base).abs().max().into_scalar::<f32>() > 1e-3, "the adapters do nothing");
    let expected = (weight(&student) + weight(&other)).mul_scalar(0.5);
    teacher.average().last.weight.val().into_data().assert_approx_eq::<f32>(&expected.into_data(), Default::default());
}

#[test]
#[should_panic(expected = "the student has no `layer.weight`")]
fn a_mean_teacher_of_another_model_is_refused() {
    #[derive(Module, Debug)]
    struct Other {
        layer: Linear,
    }
    impl Student<Tensor<2>> for Other {
        type Output = Tensor<2>;
        fn forward(&self, batch: &Tensor<2>) -> Tensor<2> {
            self.layer.forward(batch.clone())
        }
    }
    let device = Device::flex();
    let other = Other { layer: LinearConfig::new(6, 3).init(&device) };
    Teacher::<Tensor<2>>::after_step(MeanTeacher::new(&other, 0.9).unwrap(), &Net::new(&device), 0);
}

#[test]
fn a_moved_teacher_is_not_tracked() {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let frozen = Frozen::new(net.clone());
    let input = batch(&device);
    let expected = frozen.forward(&input).into_data();
    for moved in [frozen.clone().fork(&device), frozen.clone().to_device(&device)] {
        assert!(!moved.forward(&input).is_tracked());
        assert_eq!(moved.forward(&input).into_data(), expected);
    }
    let mean = MeanTeacher::new(&net, 0.9).unwrap();
    for moved in [mean.clone().fork(&device), mean.to_device(&device)] {
        assert!(!moved.forward(&input).is_tracked());
        assert_eq!(moved.forward(&input).into_data(), expected);
    }
    let ensemble = Ensemble::new(EnsembleMean::Logits).unwrap().with(frozen, 2.0, Tensor::clone).unwrap();
    let moved = ensemble.clone().fork(&device);
    assert!(!moved.forward(&input).logits.is_tracked());
    moved.forward(&input).logits.into_data().assert_approx_eq::<f32>(&expected, Default::default());
    assert_eq!(moved.fingerprint(), ensemble.fingerprint());
}

#[test]
#[should_panic(expected = "must give the same [rows, classes]: teacher 1 gives [16, 6], teacher 0 [16, 3]")]
fn an_ensemble_over_different_classes_names_both() {
    let device = Device::flex();
    let logits = |net: Frozen<Net>| (net, |logits: &Tensor<2>| logits.clone());
    let twice = |logits: &Tensor<2>| Tensor::cat(vec![logits.clone(), logits.clone()], 1);
    let (net, read) = logits(Frozen::new(Net::new(&device)));
    let ensemble = Ensemble::new(EnsembleMean::Logits).unwrap().with(net.clone(), 1.0, read).unwrap();
    ensemble.with(net, 1.0, twice).unwrap().forward(&batch(&device));
}

#[test]
#[should_panic(expected = "an ensemble needs at least one teacher")]
fn an_ensemble_without_teachers_is_refused() {
    let device = Device::flex();
    Ensemble::<Tensor<2>>::new(EnsembleMean::Logits).unwrap().forward(&batch(&device));
}

#[test]
fn teachers_of_different_types_are_joined_in_single_precision() {
    let device = Device::flex();
    let net = Frozen::new(Net::new(&device));
    let input = batch(&device);
    let single = net.forward(&input);
    for mean in [EnsembleMean::Logits, EnsembleMean::Probabilities { temperature: 2.0 }] {
        let ensemble = Ensemble::new(mean)
            .unwrap()
            .with(net.clone(), 1.0, |logits: &Tensor<2>| logits.clone().cast(DType::F16))
            .unwrap()
            .with(net.clone(), 1.0, |logits: &Tensor<2>| logits.clone().cast(DType::BF16))
            .unwrap()
            .with(net.clone(), 1.0, Tensor::clone)
            .unwrap();
        let joint = ensemble.forward(&input).logits;
        assert_eq!(joint.dtype(), DType::F32);
        let difference = activation::softmax(joint, 1) - activation::softmax(single.clone(), 1);
        assert!(difference.abs().max().into_scalar::<f32>() < 5e-3);
    }
}

#[test]
fn the_mean_of_probabilities_is_exact_at_its_temperature() {
    let device = Device::flex();
    let (a, b) = (Frozen::new(Net::new(&device)), Frozen::new(Net::new(&device)));
    let input = batch(&device);
    let temperature = 3.0;
    let soft = |logits: Tensor<2>| activation::softmax(logits / temperature, 1);
    let expected = soft(a.forward(&input)) * 0.25 + soft(b.forward(&input)) * 0.75;
    let ensemble = Ensemble::new(EnsembleMean::Probabilities { temperature })
        .unwrap()
        .with(a, 1.0, Tensor::clone)
        .unwrap()
        .with(b, 3.0, Tensor::clone)
        .unwrap();
    let joint = soft(ensemble.forward(&input).logits);
    joint.into_data().assert_approx_eq::<f32>(&expected.into_data(), Default::default());
    let error = Ensemble::<Tensor<2>>::new(EnsembleMean::Probabilities { temperature: 0.0 }).unwrap_err();
    assert_eq!(error.to_string(), "`temperature` must be in (0, inf), got 0");
}

#[test]
fn an_ensemble_is_known_by_its_members_and_weights() {
    let device = Device::flex();
    let (a, b) = (Frozen::new(Net::new(&device)), Frozen::new(Net::new(&device)));
    let one = |net: &Frozen<Net>, weight| {
        let ensemble = Ensemble::<Tensor<2>>::new(EnsembleMean::Logits).unwrap();
        ensemble.with(net.clone(), weight, Tensor::clone).unwrap().fingerprint()
    };
    assert_eq!(one(&a, 1.0), one(&a, 1.0));
    assert_ne!(one(&a, 1.0), one(&b, 1.0));
    assert_ne!(one(&a, 1.0), one(&a, 2.0));
}
