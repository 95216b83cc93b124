//! Alone in its process, because the random generator of a device is one for all threads.

use burn::tensor::Device;
use burn_distill_vision::ResNetConfig;

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let device = Device::flex();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let draw = |seed: u64| {
        device.seed(seed);
        let model = ResNetConfig::from_name("resnet8x4", 10).and_then(|config| config.init(&device)).expect("valid");
        // What is drawn after `init` has no say in the weights.
        device.seed(seed + 100);
        let path = dir.path().join("weights.safetensors");
        model.save_safetensors(&path).expect("writable");
        std::fs::read(path).expect("readable")
    };
    let first = draw(7);
    assert!(first == draw(7), "one seed, one set of weights");
    assert!(first != draw(8), "another seed, other weights");
}
