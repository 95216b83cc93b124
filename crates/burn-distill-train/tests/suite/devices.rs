//! Several devices: here one processor, twice.

use std::path::Path;

use burn::tensor::Device;
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use burn_distill_train::{OptimizerConfig, OptimizerRule, Trained};

use crate::fixture::*;

fn run(samples: Vec<Sample>, batch_size: usize, devices: Option<MultiDeviceOptim>, folder: &Path) -> Trained<Mlp> {
    let run = from_teacher(Mlp::plain(1), loader(samples, batch_size), folder)
        .term("hard", 0.5, hard)
        .term("kd", 0.5, soft)
        .optimizer(OptimizerConfig::new(OptimizerRule::Sgd { momentum: 0.9, nesterov: false }))
        .learning_rate(0.2)
        .clip_grad_norm(0.1)
        .epochs(2);
    match devices {
        Some(optim) => run.devices(ExecutionStrategy::multi(vec![Device::flex(), Device::flex()], optim)),
        None => run,
    }
    .run()
    .unwrap()
}

#[test]
fn two_devices_take_the_steps_of_one_with_batches_twice_as_large() {
    let samples = samples(8, 5);
    // Each device has its half of the data, in order: these are the batches both have at the same time.
    let paired: Vec<_> = [0, 1, 4, 5, 2, 3, 6, 7].map(|index: usize| samples[index].clone()).into();
    let one = tempfile::tempdir().unwrap();
    let single = run(paired, 4, None, one.path());
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let two = tempfile::tempdir().unwrap();
        let multi = run(samples.clone(), 2, Some(optim), two.path());
        assert_eq!((multi.steps, single.steps), (4, 4), "{optim:?}");
        assert_close(&numbers_of(two.path()), &numbers_of(one.path()), 1e-6);
        for name in ["total", "hard", "kd", "grad_norm"] {
            let of = |trained: &Trained<Mlp>| value(&trained.metrics, 2, "train", name).unwrap();
            assert!((of(&multi) - of(&single)).abs() < 1e-6, "{optim:?}, {name}: {} and {}", of(&multi), of(&single));
        }
    }
}
