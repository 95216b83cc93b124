//! Weights in and out: PyTorch's files, strictness, damage, round trips.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use burn::config::config_to_json;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_distill_vision::{ResNet, ResNetConfig, VisionError};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::reference::{
    Entry, Whole, apart, floats, golden, golden_dir, images, read_floats, weights, write_safetensors,
};

#[derive(Deserialize)]
struct Files {
    classes: usize,
    files: Vec<String>,
    input: Input,
    logits: Whole,
}

#[derive(Deserialize)]
struct Input {
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Network {
    state_dict: Vec<Entry>,
}

type Weights = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn resnet8() -> ResNetConfig {
    ResNetConfig::cifar(8, 100).expect("6n+2")
}

fn resnet8_weights() -> Weights {
    weights(&golden::<Network>("cifar_resnet8.json").state_dict)
}

/// The error of loading `tensors` as a ResNet-8 of 100 classes.
fn refusal(tensors: &Weights) -> VisionError {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("weights.safetensors");
    write_safetensors(&path, tensors);
    let error = resnet8().load(&path, &Device::flex()).expect_err("these weights do not fit");
    assert!(error.to_string().contains("weights.safetensors"), "{error}");
    error
}

/// The models of all families, with weights far from their initial ones in every tensor.
fn models(device: &Device) -> Vec<ResNet> {
    let of = |name: &str| ResNetConfig::from_name(name, 7).expect("known");
    let configs = [of("resnet8"), of("resnet8x4"), of("wrn_16_1"), of("wrn_16_2"), of("resnet18"), of("resnet50")];
    let train = device.clone().autodiff();
    let trained = |config: ResNetConfig| {
        let model = config.with_in_channels(1).init(&train).expect("valid");
        // Two training passes move the running statistics.
        for _ in 0..2 {
            model.forward(Tensor::random([3, 1, 32, 32], Distribution::Normal(1.0, 2.0), &train));
        }
        model
    };
    configs.into_iter().map(trained).collect()
}

#[test]
fn files_that_pytorch_wrote() {
    let device = Device::flex();
    let expected: Files = golden("cifar_resnet8_files.json");
    let config = ResNetConfig::cifar(8, expected.classes).expect("6n+2");
    assert_eq!(expected.files.len(), 2);
    for file in &expected.files {
        let model = config.load(golden_dir().join(file), &device).expect("PyTorch's own file");
        let logits = floats(model.forward(images(&expected.input.shape, &device)).logits);
        let apart = apart(&logits, &expected.logits.data);
        assert!(apart <= 1e-5, "{file}: {apart:.1e}");
    }
}

#[test]
fn a_saved_file_has_exactly_pytorchs_entries() {
    let names = ["resnet18", "resnet50", "resnet101"].map(|name| (name, name));
    let cifar = [("cifar_resnet8", "resnet8"), ("cifar_resnet8x4", "resnet8x4"), ("wrn_16_2", "wrn_16_2")];
    for (file, name) in names.into_iter().chain(cifar) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("weights.safetensors");
        let model = ResNetConfig::from_name(name, 100).and_then(|config| config.init(&Device::flex()));
        model.expect("valid").save_safetensors(&path).expect("writable");
        let bytes = std::fs::read(&path).expect("readable");
        let saved = SafeTensors::deserialize(&bytes).expect("safetensors");
        let found: BTreeMap<_, _> =
            saved.tensors().into_iter().map(|(name, view)| (name, (view.dtype(), view.shape().to_vec()))).collect();
        let entries = golden::<Network>(&format!("{file}.json")).state_dict;
        let expected: BTreeMap<_, _> = entries
            .into_iter()
            .map(|Entry { name, shape }| {
                let dtype = if name.ends_with("num_batches_tracked") { Dtype::I64 } else { Dtype::F32 };
                (name, (dtype, shape))
            })
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn round_trips_keep_every_bit() {
    let device = Device::flex();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (index, model) in models(&device).into_iter().enumerate() {
        let path = dir.path().join(format!("{index}.safetensors"));
        model.save_safetensors(&path).expect("writable");
        let again = ResNet::from_safetensors(&path, &device).expect("it says its architecture");
        assert_eq!(again.config(), model.config());
        let told = model.config().load(&path, &device).expect("the same architecture");
        let images = Tensor::random([2, 1, 32, 32], Distribution::Default, &device);
        let expected = floats(model.valid().forward(images.clone()).logits);
        assert_eq!(floats(again.forward(images.clone()).logits), expected);
        assert_eq!(floats(told.forward(images).logits), expected);
        let second = dir.path().join("again.safetensors");
        again.save_safetensors(&second).expect("it replaces the last one");
        let bytes = |path: &Path| std::fs::read(path).expect("readable");
        assert!(bytes(&path) == bytes(&second), "the same weights give the same bytes");
    }
    let scratch = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(scratch, 7, "nothing else is left in the directory");
}

#[test]
fn loaded_weights_train() {
    let device = Device::flex().autodiff();
    let config = ResNetConfig::cifar(8, 10).expect("6n+2");
    let model = config.load(golden_dir().join("cifar_resnet8.pth"), &device).expect("PyTorch's own file");
    let out = model.forward(Tensor::ones([2, 3, 32, 32], &device));
    let gradients = out.logits.sum().backward();
    let optimised = burn::optim::GradientsParams::from_grads(gradients, &model);
    // 7 convolutions and 2 projections, 9 batch norms with 2 parameters each, and the classifier's 2.
    assert_eq!(optimised.len(), 9 + 18 + 2);
}

#[test]
fn half_precision_becomes_the_devices_float() {
    let device = Device::flex();
    let mut tensors = resnet8_weights();
    for (_, dtype, _, bytes) in tensors.iter_mut().filter(|(_, dtype, ..)| *dtype == Dtype::F32) {
        // A bfloat16 is the upper half of a float.
        *bytes = bytes.chunks_exact(4).flat_map(|b| [b[2], b[3]]).collect();
        *dtype = Dtype::BF16;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("half.safetensors");
    write_safetensors(&path, &tensors);
    let model = resnet8().load(&path, &device).expect("floats of any width");
    let again = dir.path().join("single.safetensors");
    model.save_safetensors(&again).expect("writable");
    for (name, values) in read_floats(&again) {
        let (.., bytes) = tensors.iter().find(|(other, ..)| *other == name).expect("the same names");
        let expected = bytes.chunks_exact(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]]));
        assert!(values.iter().copied().eq(expected), "{name}");
    }
    assert_eq!(floats(model.forward(images(&[1, 3, 32, 32], &device)).logits).len(), 100);
}

#[test]
fn a_missing_tensor_is_named() {
    let mut tensors = resnet8_weights();
    tensors.retain(|(name, ..)| !name.starts_with("layer2.0.downsample.1.running"));
    match refusal(&tensors) {
        VisionError::MissingTensor { tensor, expected, count, .. } => {
            assert_eq!((tensor.as_str(), expected, count), ("layer2.0.downsample.1.running_mean", vec![32], 2));
        }
        error => panic!("{error}"),
    }
}

#[test]
fn counters_may_be_missing() {
    let mut tensors = resnet8_weights();
    tensors.retain(|(name, ..)| !name.ends_with("num_batches_tracked"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("weights.safetensors");
    write_safetensors(&path, &tensors);
    resnet8().load(&path, &Device::flex()).expect("no counter is read");
}

#[test]
fn an_unexpected_tensor_is_named() {
    let mut tensors = resnet8_weights();
    tensors.push(("layer1.1.conv1.weight".into(), Dtype::F32, vec![2, 1, 1, 1], vec![0; 8]));
    match refusal(&tensors) {
        VisionError::UnexpectedTensor { tensor, found, count, .. } => {
            assert_eq!((tensor.as_str(), found, count), ("layer1.1.conv1.weight", vec![2, 1, 1, 1], 1));
        }
        error => panic!("{error}"),
    }
}

#[test]
fn another_number_of_classes_is_refused_with_both_shapes() {
    let path = golden_dir().join("cifar_resnet8.pth");
    let error = resnet8().load(&path, &Device::flex()).expect_err("10 classes are not 100");
    match &error {
        VisionError::TensorShape { tensor, expected, found, .. } => {
            assert_eq!((tensor.as_str(), &expected[..], &found[..]), ("fc.weight", &[100, 64][..], &[10, 64][..]));
        }
        error => panic!("{error}"),
    }
    let message = error.to_string();
    assert!(message.contains("`fc.weight` must have shape [100, 64], got [10, 64]"), "{message}");
    assert!(message.contains("cifar_resnet8.pth"), "{message}");
}

#[test]
fn integers_are_no_weights() {
    let mut tensors = resnet8_weights();
    let fc = tensors.iter_mut().find(|(name, ..)| name == "fc.bias").expect("it has one");
    (fc.1, fc.3) = (Dtype::I32, vec![0; 400]);
    assert!(matches!(refusal(&tensors), VisionError::TensorType { tensor, .. } if tensor == "fc.bias"));
}

#[test]
fn a_file_without_architecture_asks_for_it() {
    let path = golden_dir().join("cifar_resnet8.safetensors");
    let error = ResNet::from_safetensors(&path, &Device::flex()).expect_err("PyTorch does not write it");
    assert!(matches!(error, VisionError::MissingArchitecture { .. }));
    assert!(error.to_string().contains("ResNetConfig::load"), "{error}");
}

#[test]
fn an_unusable_architecture_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("weights.safetensors");
    let good = config_to_json(&resnet8());
    let load = |json: String| {
        let views = std::iter::empty::<(&str, safetensors::tensor::TensorView)>();
        let metadata = HashMap::from([("burn-distill.resnet".to_string(), json)]);
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).expect("serialisable")).expect("writable");
        ResNet::from_safetensors(&path, &Device::flex()).map(|_| ()).expect_err("no weights at all")
    };
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    assert!(matches!(load(good.clone()), VisionError::MissingTensor { tensor, .. } if tensor == "conv1.weight"));
    assert!(matches!(load(good[1..].to_string()), VisionError::UnreadableWeights { .. }));
    assert!(matches!(load(replaced("Basic", "Basis")), VisionError::UnreadableWeights { .. }));
    let error = load(replaced("\"classes\": 100", "\"classes\": 0"));
    assert!(matches!(error, VisionError::OutOfRange { field: "classes", .. }), "{error}");
    let error = load(replaced("\"stem_width\": 16", "\"stem_width\": 16000000000000"));
    assert!(matches!(error, VisionError::OutOfRange { field: "stem_width", .. }), "{error}");
}

#[test]
fn absent_and_foreign_files_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["absent.pth", "absent.safetensors"] {
        let error = resnet8().load(dir.path().join(name), &Device::flex()).expect_err("it does not exist");
        assert!(matches!(error, VisionError::Io { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    for name in ["foreign.pth", "foreign.safetensors"] {
        for content in [&b""[..], b"%PDF-1.7 nothing here", &[0xff; 4096], &[0; 4096], &[0x80; 300]] {
            std::fs::write(dir.path().join(name), content).expect("writable");
            let error = resnet8().load(dir.path().join(name), &Device::flex()).expect_err("no weights");
            assert!(matches!(error, VisionError::UnreadableWeights { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    // One format under the other's name.
    for (from, to) in [("pth", "safetensors"), ("safetensors", "pth")] {
        let path = dir.path().join(format!("swapped.{to}"));
        std::fs::copy(golden_dir().join(format!("cifar_resnet8.{from}")), &path).expect("writable");
        let error = resnet8().load(&path, &Device::flex()).expect_err("the name promises another format");
        assert!(matches!(error, VisionError::UnreadableWeights { .. }), "{error}");
    }
}

#[test]
fn truncated_and_damaged_files_give_errors() {
    let device = Device::flex();
    let config = ResNetConfig::cifar(8, 10).expect("6n+2");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["cifar_resnet8.pth", "cifar_resnet8.safetensors"] {
        let bytes = std::fs::read(golden_dir().join(name)).expect("readable");
        let path = dir.path().join(name);
        let ends = (0..bytes.len()).step_by(9973).chain(bytes.len() - 64..bytes.len());
        for end in ends {
            std::fs::write(&path, &bytes[..end]).expect("writable");
            let error = config.load(&path, &device).expect_err("it ends too early");
            assert!(error.to_string().contains(name), "{error}");
        }
        // A flipped byte may go unnoticed in a number; it must not panic.
        let ends = (0..2000).step_by(13).chain((bytes.len() - 2000..bytes.len()).step_by(13));
        for position in ends {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x55;
            std::fs::write(&path, &damaged).expect("writable");
            if let Err(error) = config.load(&path, &device) {
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
}

#[test]
fn an_unwritable_place_is_an_error_and_nothing_stays_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let model = resnet8().init(&Device::flex()).expect("valid");
    let error = model.save_safetensors(dir.path().join("absent/weights.safetensors")).expect_err("no such folder");
    assert!(matches!(error, VisionError::Io { .. }), "{error}");
    assert!(error.to_string().contains("absent"), "{error}");
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).expect("writable");
    let error = model.save_safetensors(&folder).expect_err("a folder is in the way");
    assert!(matches!(error, VisionError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
}

/// Python with torch and torchvision, where `BURN_DISTILL_PYTHON=/path/to/python` names it.
fn python() -> Option<OsString> {
    let python = std::env::var_os("BURN_DISTILL_PYTHON");
    if python.is_none() {
        println!("skipped: BURN_DISTILL_PYTHON names no Python with torch and torchvision");
    }
    python
}

/// Writes what training scripts make of a state dict: (source, folder).
const CHECKPOINTS: &str = "
import sys, torch
state, out = torch.load(sys.argv[1]), sys.argv[2] + '/'
floats = {k: v for k, v in state.items() if v.is_floating_point()}
optimizer = {'state': {0: {'momentum_buffer': torch.ones(3)}}}
torch.save({'epoch': 3, 'model': state, 'best_acc': 0.5, 'optimizer': optimizer}, out + 'wrapped.pth')
torch.save({'state_dict': {'module.' + k: v for k, v in state.items()}, 'epoch': 1}, out + 'parallel.pth.tar')
torch.save(state, out + 'legacy.pt', _use_new_zipfile_serialization=False)
torch.save({k: torch.nn.Parameter(v) for k, v in floats.items()}, out + 'parameters.pth')
torch.save({k: v.double() for k, v in floats.items()}, out + 'double.pth')
torch.save({k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()}, out + 'strided.pth')
";

#[test]
fn checkpoints_of_training_scripts() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = golden_dir().join("cifar_resnet8.pth");
    let status =
        Command::new(python).arg("-c").arg(CHECKPOINTS).arg(&source).arg(dir.path()).status().expect("Python starts");
    assert!(status.success());
    let expected: Files = golden("cifar_resnet8_files.json");
    let device = Device::flex();
    let mut count = 0;
    for file in std::fs::read_dir(dir.path()).expect("readable") {
        let path = file.expect("readable").path();
        let model = ResNetConfig::cifar(8, 10).and_then(|config| config.load(&path, &device));
        let model = model.unwrap_or_else(|error| panic!("{error}"));
        let apart = apart(&floats(model.forward(images(&expected.input.shape, &device)).logits), &expected.logits.data);
        assert!(apart <= 1e-5, "{}: {apart:.1e}", path.display());
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn torchvision_opens_the_export() {
    let Some(python) = python() else { return };
    let script = golden_dir().join("../check_export.py");
    assert!(script.exists(), "{} is missing", script.display());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let names = [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("wrn_16_2", "wrn_16_2")];
    for (name, arch) in names.into_iter().chain([("resnet8", "cifar_resnet8"), ("resnet8x4", "cifar_resnet8x4")]) {
        let device = Device::flex().autodiff();
        let model = ResNetConfig::from_name(name, 10).and_then(|config| config.init(&device)).expect("valid");
        // A training pass moves the running statistics, so that these are compared too.
        model.forward(Tensor::random([4, 3, 32, 32], Distribution::Normal(1.0, 2.0), &device));
        let path = dir.path().join(format!("{name}.safetensors"));
        model.save_safetensors(&path).expect("writable");
        let shape = [2, 3, 32, 32];
        let logits = floats(model.valid().forward(images(&shape, &Device::flex())).logits);
        let expected = dir.path().join(format!("{name}.json"));
        let logits = serde_json::json!({ "shape": [2, 10], "data": logits });
        let document = serde_json::json!({ "input": { "shape": shape }, "logits": logits, "tolerance": 1e-4 });
        std::fs::write(&expected, document.to_string()).expect("writable");
        let status = Command::new(&python).arg(&script).args([&path, Path::new(arch), &expected]).status();
        assert!(status.expect("Python starts").success(), "{name}");
    }
}
