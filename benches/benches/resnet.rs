//! A training step of a ResNet pair on the CPU: `cargo bench -p burn-distill-benches --bench resnet`.
//!
//! The parts stand beside the whole, so that the price of distillation over plain training is visible: it is the
//! teacher's forward pass and the loss.

#![allow(missing_docs, reason = "criterion's macros make functions without docs")]

use std::{hint::black_box, time::Duration};

use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill_vision::{ResNet, ResNetConfig};
use criterion::{Criterion, criterion_group, criterion_main};

const BATCH: usize = 64;
const CLASSES: usize = 100;
const SIDE: usize = 32;

fn model(name: &str, device: &Device) -> ResNet {
    ResNetConfig::from_name(name, CLASSES).and_then(|config| config.init(device)).expect("a known name")
}

/// Bench `name`: one optimiser step on `loss`, given the student's logits, waited for.
fn train(
    criterion: &mut Criterion,
    name: &str,
    student: &ResNet,
    images: &Tensor<4>,
    loss: impl Fn(Tensor<2>) -> Tensor<1>,
) {
    let mut optimizer = SgdConfig::new().with_momentum(Some(MomentumConfig::new().with_momentum(0.9))).init();
    let mut student = Some(student.clone());
    let mut group = criterion.benchmark_group("resnet");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.bench_function(format!("{name}/batch{BATCH}_side{SIDE}"), |bencher| {
        bencher.iter(|| {
            let model = student.take().expect("it is put back below");
            let gradients = loss(model.forward(images.clone().autodiff()).logits).backward();
            let gradients = GradientsParams::from_grads(gradients, &model);
            student = Some(optimizer.step(0.05, model, gradients));
            images.device().sync().expect("the device finishes its work");
        })
    });
}

/// Bench `name`: one forward pass in evaluation mode, waited for.
fn infer(criterion: &mut Criterion, name: &str, model: &ResNet, images: &Tensor<4>) {
    let mut group = criterion.benchmark_group("resnet");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.bench_function(format!("{name}/batch{BATCH}_side{SIDE}"), |bencher| {
        bencher.iter(|| {
            black_box(model.forward(images.clone()).logits);
            images.device().sync().expect("the device finishes its work");
        })
    });
}

fn resnet(criterion: &mut Criterion) {
    let device = Device::flex();
    device.seed(0);
    let images = Tensor::<4>::random([BATCH, 3, SIDE, SIDE], Distribution::Normal(0.0, 1.0), &device);
    let targets = Tensor::<1, Int>::arange(0..BATCH as i64, &device).remainder_scalar(CLASSES as i64);
    let student = model("resnet20", &device.clone().autodiff());
    let teacher = model("resnet56", &device);
    let cross_entropy = CrossEntropyLossConfig::new().init().expect("the defaults are in range");
    let kd = KdLossConfig::new().with_temperature(4.0).init().expect("4 is in range");

    infer(criterion, "resnet56_forward", &teacher, &images);
    infer(criterion, "resnet20_forward", &student.valid(), &images);
    train(criterion, "resnet20_train_step", &student, &images, |logits| {
        cross_entropy.forward(logits, targets.clone(), None)
    });
    train(criterion, "resnet20_from_resnet56_kd_step", &student, &images, |logits| {
        let teacher_logits = teacher.forward(images.clone()).logits;
        let hard = cross_entropy.forward(logits.clone(), targets.clone(), None);
        hard * 0.1 + kd.forward(logits, teacher_logits, None) * 0.9
    });
}

criterion_group!(benches, resnet);
criterion_main!(benches);
