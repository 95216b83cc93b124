//! What a teacher inside a trained module must not do: learn, be saved, forget its statistics, stay behind.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor, TensorData, activation};
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
