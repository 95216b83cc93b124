//! Several devices. A machine has one device of `flex` and one CPU device of `libtorch`: two handles of the suite's device
//! stand for two, and where that is not `flex`, the suite's device and `flex` are two that share no memory.

use std::path::Path;

use burn::tensor::Device;
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use burn_distill_train::{OptimizerConfig, OptimizerRule, Trained};

use crate::fixture::*;

type Devices = (Vec<Device>, MultiDeviceOptim);

fn run(samples: Vec<Sample>, batch_size: usize, devices: Option<Devices>, folder: &Path) -> Trained<Mlp> {
    let run = from_teacher(Mlp::plain(1), loader(samples, batch_size), folder)
        .term("hard", 0.5, hard)
        .term("kd", 0.5, soft)
        .optimizer(OptimizerConfig::new(OptimizerRule::Sgd { momentum: 0.9, nesterov: false }))
        .learning_rate(0.2)
        .clip_grad_norm(0.1)
        .epochs(2);
    match devices {
        Some((devices, optim)) => run.devices(ExecutionStrategy::multi(devices, optim)),
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
    let mut pairs = vec![vec![device().inner(); 2]];
    if burn_distill_dev::name() != "flex" {
        pairs.push(vec![device().inner(), Device::flex()]);
    }
    for pair in pairs {
        for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
            let two = tempfile::tempdir().unwrap();
            let multi = run(samples.clone(), 2, Some((pair.clone(), optim)), two.path());
            let what = format!("{pair:?}, {optim:?}");
            assert_eq!((multi.steps, single.steps), (4, 4), "{what}");
            assert_close(&numbers_of(two.path()), &numbers_of(one.path()), 1e-6);
            for name in ["total", "hard", "kd", "grad_norm"] {
                let of = |trained: &Trained<Mlp>| value(&trained.metrics, 2, "train", name).unwrap();
                let (multi, single) = (of(&multi), of(&single));
                assert!((multi - single).abs() < 1e-6, "{what}, {name}: {multi} and {single}");
            }
        }
    }
}
