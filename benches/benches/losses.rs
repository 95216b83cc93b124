//! Forward and backward of every loss on the CPU: `cargo bench -p burn-distill-benches --bench losses`.

#![allow(missing_docs, reason = "criterion's macros make functions without docs")]

use std::{hint::black_box, time::Duration};

use burn::tensor::{Device, Distribution, Int, Tensor, activation::log_softmax};
use burn_distill_losses::{
    AttentionTransferLossConfig, ConfigError, CrossEntropyLossConfig, DistLossConfig, DkdLossConfig, HintLossConfig,
    JsdLossConfig, KdLossConfig, ReverseKlLossConfig, ReviewKdLossConfig, RkdLossConfig, SpLossConfig, SparseLogits,
    Tail,
};
use criterion::{Criterion, criterion_group, criterion_main};

/// Rows and classes: CIFAR-100, ImageNet, a language model.
const SIZES: [[usize; 2]; 3] = [[128, 100], [128, 1000], [1024, 32000]];

fn random<const D: usize>(shape: [usize; D], scale: f64, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), device)
}

/// One loss and the gradient of `student`, waited for.
fn step<const D: usize>(student: &Tensor<D>, loss: impl Fn(Tensor<D>) -> Tensor<1>) {
    // A fresh leaf: a backward pass consumes the graph it starts from.
    let student = student.clone().require_grad();
    let gradients = loss(student.clone()).backward();
    black_box(student.grad(&gradients));
    student.device().sync().expect("the device finishes its work");
}

fn logits(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    let cross_entropy = CrossEntropyLossConfig::new().with_label_smoothing(0.1).init()?;
    let kd = KdLossConfig::new().init()?;
    let reverse_kl = ReverseKlLossConfig::new().init()?;
    let jsd = JsdLossConfig::new().init()?;
    let dkd = DkdLossConfig::new().init()?;
    let dist = DistLossConfig::new().init()?;
    for [rows, vocabulary] in SIZES {
        let student = random([rows, vocabulary], 2.0, &device).autodiff();
        let teacher = random([rows, vocabulary], 3.0, &device);
        let sparse = SparseLogits::from_dense(teacher.clone(), 64, Tail::Bucket).expect("64 is below every size");
        let targets = Tensor::<1, Int>::arange(0..rows as i64, &device).remainder_scalar(vocabulary as i64);

        let id = |loss: &str| format!("{loss}/fwd_bwd/rows{rows}_vocab{vocabulary}");
        criterion.bench_function(&id("kd_plain_tensor_ops"), |bencher| {
            bencher.iter(|| step(&student, |student| plain_kd(student, teacher.clone(), 4.0)))
        });
        criterion.bench_function(&id("kd"), |bencher| {
            bencher.iter(|| step(&student, |student| kd.forward(student, teacher.clone(), None)))
        });
        criterion.bench_function(&id("kd_top64"), |bencher| {
            bencher.iter(|| step(&student, |student| kd.forward(student, sparse.clone(), None)))
        });
        criterion.bench_function(&id("cross_entropy"), |bencher| {
            bencher.iter(|| step(&student, |student| cross_entropy.forward(student, targets.clone(), None)))
        });
        criterion.bench_function(&id("reverse_kl"), |bencher| {
            bencher.iter(|| step(&student, |student| reverse_kl.forward(student, teacher.clone(), None)))
        });
        criterion.bench_function(&id("jsd"), |bencher| {
            bencher.iter(|| step(&student, |student| jsd.forward(student, teacher.clone(), None)))
        });
        criterion.bench_function(&id("dkd"), |bencher| {
            bencher.iter(|| step(&student, |student| dkd.forward(student, teacher.clone(), targets.clone(), None)))
        });
        criterion.bench_function(&id("dist"), |bencher| {
            bencher.iter(|| step(&student, |student| dist.forward(student, teacher.clone(), None)))
        });
    }
    Ok(())
}

/// KD as one would write it by hand: no mask, no vocabulary policy, no class of probability 0.
fn plain_kd(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let rows = student.dims()[0] as f64;
    let student = log_softmax(student.div_scalar(temperature), 1);
    let teacher = log_softmax(teacher.div_scalar(temperature), 1);
    (teacher.clone().exp() * (teacher - student)).sum().mul_scalar(temperature.powi(2) / rows)
}

fn features(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    let hint = HintLossConfig::new().init()?;
    let attention_transfer = AttentionTransferLossConfig::new().init()?;
    let sp = SpLossConfig::new().init()?;
    let rkd = RkdLossConfig::new().init()?;
    let review_kd = ReviewKdLossConfig::new().init()?;

    // A stage of a ResNet for CIFAR, and the embeddings of a ResNet-18.
    let student = random([64, 64, 16, 16], 1.0, &device).autodiff();
    let teacher = random([64, 64, 16, 16], 1.0, &device);
    let embeddings = random([64, 512], 1.0, &device).autodiff();
    let teacher_embeddings = random([64, 512], 1.0, &device);

    let id = |loss: &str| format!("{loss}/fwd_bwd/batch64_channels64_side16");
    criterion.bench_function(&id("hint"), |bencher| {
        bencher.iter(|| step(&student, |student| hint.forward(student, teacher.clone())))
    });
    criterion.bench_function(&id("attention_transfer"), |bencher| {
        bencher.iter(|| step(&student, |student| attention_transfer.forward(student, teacher.clone())))
    });
    criterion.bench_function(&id("sp"), |bencher| {
        bencher.iter(|| step(&student, |student| sp.forward(student, teacher.clone())))
    });
    criterion.bench_function(&id("review_kd"), |bencher| {
        bencher.iter(|| step(&student, |student| review_kd.forward(student, teacher.clone())))
    });
    criterion.bench_function("rkd/fwd_bwd/batch64_width512", |bencher| {
        bencher.iter(|| step(&embeddings, |student| rkd.forward(student, teacher_embeddings.clone())))
    });
    Ok(())
}

fn losses(criterion: &mut Criterion) {
    logits(criterion).expect("the configurations are in range");
    features(criterion).expect("the configurations are in range");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500));
    targets = losses
}
criterion_main!(benches);
