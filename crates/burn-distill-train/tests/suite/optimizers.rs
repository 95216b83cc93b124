//! The optimisers against PyTorch's (`golden/optimizers.py`).

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_distill_train::{OptimizerConfig, OptimizerRule, WeightDecay};
use serde_json::Value;

use crate::fixture::device;

/// A weight, and the two kinds that are not decayed by default.
#[derive(Module, Debug)]
struct Parameters {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    gamma: Param<Tensor<1>>,
}

const NAMES: [&str; 3] = ["weight", "bias", "gamma"];

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/optimizers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn tensor<const D: usize>(value: &Value, device: &Device) -> Tensor<D> {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let shape: Vec<usize> = list(&value["shape"]).iter().map(|size| size.as_u64().unwrap() as usize).collect();
    let data: Vec<f32> = list(&value["data"]).iter().map(|number| number.as_f64().unwrap() as f32).collect();
    Tensor::from_data(TensorData::new(data, shape), device)
}

impl Parameters {
    fn read(value: &Value) -> Self {
        fn param<const D: usize>(value: &Value) -> Param<Tensor<D>> {
            Param::initialized(Default::default(), tensor(value, &device()).require_grad())
        }
        Self { weight: param(&value["weight"]), bias: param(&value["bias"]), gamma: param(&value["gamma"]) }
    }

    fn grads(&self, value: &Value) -> GradientsParams {
        let (mut grads, device) = (GradientsParams::new(), device().inner());
        grads.register(self.weight.id, tensor::<2>(&value["weight"], &device));
        grads.register(self.bias.id, tensor::<1>(&value["bias"], &device));
        grads.register(self.gamma.id, tensor::<1>(&value["gamma"], &device));
        grads
    }

    fn numbers(&self) -> [Vec<f32>; 3] {
        let numbers = |data: TensorData| data.try_to_vec().unwrap();
        [
            numbers(self.weight.val().into_data()),
            numbers(self.bias.val().into_data()),
            numbers(self.gamma.val().into_data()),
        ]
    }
}

fn config(case: &Value) -> OptimizerConfig {
    let number = |name: &str| case[name].as_f64().unwrap();
    let rule = match case["rule"].as_str().unwrap() {
        "sgd" => OptimizerRule::Sgd { momentum: number("momentum"), nesterov: case["nesterov"].as_bool().unwrap() },
        "adam" => {
            OptimizerRule::Adam { beta_1: number("beta_1"), beta_2: number("beta_2"), epsilon: number("epsilon") }
        }
        other => panic!("no rule {other}"),
    };
    let decay = match case["decay"].as_str().unwrap() {
        "none" => WeightDecay::None,
        "l2" => WeightDecay::L2(number("weight_decay")),
        "decoupled" => WeightDecay::Decoupled(number("weight_decay")),
        other => panic!("no decay {other}"),
    };
    let config = OptimizerConfig::new(rule).with_weight_decay(decay);
    if case["decays_all"].as_bool().unwrap() { config.with_no_decay(Vec::new()) } else { config }
}

#[test]
fn steps_equal_pytorchs() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut optimizer = config(case).init().unwrap();
        let mut parameters = Parameters::read(&golden["initial"]);
        let rates = golden["learning_rates"].as_array().unwrap();
        for (step, rate) in rates.iter().enumerate() {
            let grads = parameters.grads(&golden["gradients"][step]);
            parameters = optimizer.step(rate.as_f64().unwrap(), parameters, grads);
            let expected = Parameters::read(&case["after"][step]).numbers();
            for ((field, found), expected) in NAMES.iter().zip(parameters.numbers()).zip(expected) {
                for (found, expected) in found.iter().zip(&expected) {
                    // Burn takes Adam's betas in single precision: 1 - 0.999 is then off by 1e-5 of itself.
                    let tolerance = if name.starts_with("adam") { 5e-6 } else { 1e-6 };
                    assert!(
                        (found - expected).abs() < tolerance,
                        "{name}, step {step}, {field}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn norms_and_biases_are_decayed_only_when_asked() {
    let golden = golden();
    let zero = |parameters: &Parameters| {
        let mut grads = GradientsParams::new();
        grads.register(parameters.weight.id, parameters.weight.val().inner().zeros_like());
        grads.register(parameters.bias.id, parameters.bias.val().inner().zeros_like());
        grads.register(parameters.gamma.id, parameters.gamma.val().inner().zeros_like());
        grads
    };
    let sgd = || OptimizerConfig::new(OptimizerRule::Sgd { momentum: 0.0, nesterov: false });
    for decay in [WeightDecay::L2(0.5), WeightDecay::Decoupled(0.5)] {
        let step = |config: OptimizerConfig| {
            let before = Parameters::read(&golden["initial"]);
            let grads = zero(&before);
            let after = config.with_weight_decay(decay).init().unwrap().step(0.5, before.clone(), grads);
            (before.numbers(), after.numbers())
        };
        let shrunk = |numbers: &[f32]| numbers.iter().map(|number| number * 0.75).collect::<Vec<_>>();
        let (before, after) = step(sgd());
        assert_eq!(after, [shrunk(&before[0]), before[1].clone(), before[2].clone()], "{decay:?}");
        let (before, after) = step(sgd().with_no_decay(Vec::new()));
        assert_eq!(after, before.each_ref().map(|numbers| shrunk(numbers)), "{decay:?}");
        let (before, after) = step(sgd().with_no_decay(vec!["^weight$".into(), "gam".into()]));
        assert_eq!(after, [before[0].clone(), shrunk(&before[1]), before[2].clone()], "{decay:?}");
    }
}
