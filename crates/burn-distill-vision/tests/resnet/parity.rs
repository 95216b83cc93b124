//! Logits, features, running statistics and gradients against torchvision and RepDistiller (golden/vision.py).

use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Int, Tensor};
use burn_distill_vision::{ResNet, ResNetConfig, ResNetOutput, Stage};
use serde::Deserialize;

use crate::reference::{Entry, Sampled, Whole, apart, floats, golden, images, largest, load, read_floats};

#[derive(Deserialize)]
struct Network {
    classes: usize,
    state_dict: Vec<Entry>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Input,
    eval: Pass,
    train: Pass,
}

#[derive(Deserialize)]
struct Input {
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Pass {
    logits: Whole,
    features: HashMap<String, Sampled>,
    #[serde(default)]
    after: HashMap<String, Sampled>,
    gradient: Option<Gradient>,
}

#[derive(Deserialize)]
struct Gradient {
    targets: Vec<usize>,
    loss: f64,
    #[serde(flatten)]
    of: HashMap<String, Sampled>,
}

/// Largest deviation from the float64 reference, relative to the tensor's largest magnitude.
const TOLERANCE: f64 = 1e-4;

fn check(what: String, apart: f64) {
    println!("{what}: {apart:.1e}");
    assert!(apart <= TOLERANCE, "{what} is {apart:.1e} apart from the reference");
}

/// The feature that the golden files call `name`.
fn feature(out: &ResNetOutput, name: &str) -> Vec<f32> {
    let stage4 = out.stage4.as_ref();
    let stage = |name: &str| -> &Stage {
        match name {
            "stem" => &out.stem,
            "layer1" | "block1" => &out.stage1,
            "layer2" | "block2" => &out.stage2,
            "layer3" | "block3" => &out.stage3,
            "layer4" => stage4.expect("the ImageNet family has four stages"),
            _ => panic!("unknown feature {name}"),
        }
    };
    match name.strip_suffix("_preact") {
        Some(name) => floats(stage(name).pre_activation.clone()),
        None if name == "pooled" => floats(out.pooled.clone()),
        None => floats(stage(name).output.clone()),
    }
}

/// Turns training behaviour off and leaves gradients on: PyTorch's `eval()`.
struct Evaluate;

impl ModuleMapper for Evaluate {
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        flag.with_value(false)
    }
}

/// The gradient of every parameter under torchvision's name.
struct Collect<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    found: HashMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let name = self.path.join(".").replace("gamma", "weight").replace("beta", "bias");
            let name = name.replace("downsample.conv", "downsample.0");
            self.found.insert(name, floats(gradient));
        }
    }
}

fn check_gradient(what: &str, model: &ResNet, out: &ResNetOutput, expected: &Gradient) {
    let device = out.logits.device();
    let targets: Vec<i64> = expected.targets.iter().map(|&target| target as i64).collect();
    let rows = targets.len();
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device).reshape([rows, 1]);
    let loss = log_softmax(out.logits.clone(), 1).gather(1, targets).mean().neg();
    check(format!("{what} loss"), apart(&floats(loss.clone()), &[expected.loss]));
    let gradients = loss.backward();
    let mut collect = Collect { gradients: &gradients, path: Vec::new(), found: HashMap::new() };
    model.visit(&mut collect);
    assert!(!expected.of.is_empty());
    for (name, expected) in &expected.of {
        let burn_name = name.replace("block2.layer.0.convShortcut", "layer2.0.downsample.0");
        check(format!("{what} gradient of {name}"), expected.apart(&collect.found[&burn_name]));
    }
}

fn check_pass(what: &str, out: &ResNetOutput, expected: &Pass) {
    assert_eq!(out.logits.dims().to_vec(), expected.logits.shape);
    let relative = apart(&floats(out.logits.clone()), &expected.logits.data);
    check(format!("{what} logits"), relative);
    check(format!("{what} logits, absolute"), relative * largest(&expected.logits.data));
    assert!(expected.features.len() >= 8);
    for (name, expected) in &expected.features {
        check(format!("{what} {name}"), expected.apart(&feature(out, name)));
    }
}

fn parity(name: &str, config: ResNetConfig) {
    let network: Network = golden(&format!("{name}.json"));
    assert_eq!(network.classes, config.classes);
    assert!(!network.cases.is_empty());
    let device = Device::flex();
    for case in &network.cases {
        let shape = &case.input.shape;
        let what = |mode: &str| format!("{name} {shape:?} {mode}");

        let model = load(&config, &network.state_dict, &device);
        check_pass(&what("eval"), &model.forward(images(shape, &device)), &case.eval);
        if let Some(expected) = &case.eval.gradient {
            let device = device.clone().autodiff();
            let model = load(&config, &network.state_dict, &device).map(&mut Evaluate);
            let out = model.forward(images(shape, &device));
            check_pass(&what("eval with gradients"), &out, &case.eval);
            check_gradient(&what("eval"), &model, &out, expected);
        }

        let device = device.clone().autodiff();
        let model = load(&config, &network.state_dict, &device);
        let out = model.forward(images(shape, &device));
        check_pass(&what("train"), &out, &case.train);
        if let Some(expected) = &case.train.gradient {
            check_gradient(&what("train"), &model, &out, expected);
        }

        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("after.safetensors");
        model.save_safetensors(&path).expect("writable");
        let after: HashMap<_, _> = read_floats(&path).into_iter().collect();
        assert!(!case.train.after.is_empty());
        for (tensor, expected) in &case.train.after {
            check(format!("{} {tensor}", what("after a training pass")), expected.apart(&after[tensor]));
        }
    }
}

#[test]
fn resnet18_is_torchvisions() {
    parity("resnet18", ResNetConfig::resnet18(100));
}

#[test]
fn resnet50_is_torchvisions() {
    parity("resnet50", ResNetConfig::resnet50(100));
}

#[test]
fn resnet101_is_torchvisions() {
    parity("resnet101", ResNetConfig::resnet101(100));
}

#[test]
fn cifar_resnet8_is_repdistillers() {
    parity("cifar_resnet8", ResNetConfig::cifar(8, 100).expect("6n+2"));
}

#[test]
fn cifar_resnet20_is_repdistillers() {
    parity("cifar_resnet20", ResNetConfig::cifar(20, 100).expect("6n+2"));
}

#[test]
fn cifar_resnet8x4_is_repdistillers() {
    parity("cifar_resnet8x4", ResNetConfig::cifar_x4(8, 100).expect("6n+2"));
}

#[test]
fn wrn_16_2_is_repdistillers() {
    parity("wrn_16_2", ResNetConfig::wrn(16, 2, 100).expect("6n+4"));
}
