//! Values and gradients from PyTorch, made by `golden/`. A loss without its file, or a case without a number, fails.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{DType, Device, Tensor};
use burn_distill_dev::{device, tolerance};
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig, Mask, SparseLogits, Tail, TeacherLogits};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    inputs::{assert_close, bools, ints, number, tensor, values},
    table::{Logits, Stage, feature_losses, logit_losses},
};

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) cases: Vec<Case>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) inputs: BTreeMap<String, Array>,
    pub(crate) expected: Expected,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) value: f64,
    per_sample: Vec<f64>,
    pub(crate) grad: BTreeMap<String, Array>,
    /// What a loss with a memory remembers afterwards.
    #[serde(default)]
    pub(crate) after: BTreeMap<String, Array>,
}

impl Array {
    /// The array with its leading dimensions made one.
    fn rows(&self) -> [usize; 2] {
        let width = *self.shape.last().unwrap();
        [self.data.len() / width, width]
    }

    /// The array with as many trailing dimensions of size 1 as it lacks, or its middle ones made one.
    fn image(&self) -> [usize; 4] {
        match self.shape[..] {
            [batch, width] => [batch, width, 1, 1],
            [batch, tokens, width] => [batch, tokens, width, 1],
            [batch, channels, height, width] => [batch, channels, height, width],
            _ => panic!("features of shape {:?}", self.shape),
        }
    }

    fn ints(&self) -> Vec<i64> {
        self.data.iter().map(|value| *value as i64).collect()
    }
}

impl Case {
    fn input(&self, name: &str) -> &Array {
        self.inputs.get(name).unwrap_or_else(|| panic!("case {} has no input `{name}`", self.name))
    }

    fn logits(&self, name: &str, device: &Device) -> Tensor<2> {
        let input = self.input(name);
        tensor(&input.data, input.rows(), DType::F32, device)
    }

    fn features(&self, name: &str, device: &Device) -> Tensor<4> {
        let input = self.input(name);
        tensor(&input.data, input.image(), DType::F32, device).require_grad()
    }

    fn kept(&self) -> Option<Vec<bool>> {
        self.inputs.get("mask").map(|mask| mask.data.iter().map(|flag| *flag != 0.0).collect())
    }

    fn mask(&self, device: &Device) -> Mask {
        Mask::from(self.kept().map(|kept| bools(&kept, device)))
    }

    /// The value of each row, 0 where it is masked out.
    pub(crate) fn kept_rows(&self) -> Vec<f64> {
        let rows = &self.expected.per_sample;
        let kept = self.kept().unwrap_or_else(|| vec![true; rows.len()]);
        assert_eq!(rows.len(), kept.len(), "{}: one flag per row", self.name);
        rows.iter().zip(&kept).map(|(value, kept)| if *kept { *value } else { 0.0 }).collect()
    }

    /// Compares the rows, the reduced value and the gradients.
    fn check<const D: usize>(&self, loss: &str, rows: Tensor<1>, reduced: Tensor<1>, inputs: &[(&str, &Tensor<D>)]) {
        let what = format!("{loss}/{}", self.name);
        // Differences of nearly equal numbers leave a rounding error of the numbers' own size.
        let scale = self.config["temperature"].as_f64().unwrap_or(1.0).max(1.0).powi(2);
        let absolute = 1e-6 * scale;
        assert_close(&format!("{what} rows"), &values(&rows), &self.kept_rows(), tolerance(), absolute);
        let gradients = reduced.backward();
        assert_close(&format!("{what} value"), &[number(reduced)], &[self.expected.value], tolerance(), absolute);
        let expected: Vec<_> = self.expected.grad.keys().map(String::as_str).collect();
        let tracked: Vec<_> = inputs.iter().map(|(name, _)| *name).collect();
        assert_eq!(expected, tracked, "{what}: inputs with a gradient");
        for (name, input) in inputs {
            let gradient = values(&input.grad(&gradients).unwrap());
            let expected = &self.expected.grad[*name].data;
            assert_gradient(&what, name, &gradient, expected);
        }
    }
}

/// Cases of small gradients that f32 does not hold to [`tolerance`], with the agreement that is asked of them: two to four
/// times the error that was measured. Their softmax is all but sure, and each gradient is the difference of
/// probabilities near 1 (an error of 6e-8, whatever is left of the difference), or, for the two divergences, of
/// log-probabilities near 100.
const CANCELLING: &[(&str, f64)] = &[
    ("clip/batch_of_two", 3e-3),
    ("clip/wide", 1e-3),
    ("clip_gradient/batch_of_two", 1e-3),
    ("clip_gradient/large_embeddings", 5e-5),
    ("jsd/scale_30", 1e-3),
    ("reverse_kl/scale_30", 1e-3),
];

/// Compares the gradient of one input, relative to its own largest; to the rounding of a probability where the exact
/// one is as small as that, which is where it is 0 but for rounding.
pub(crate) fn assert_gradient(case: &str, input: &str, got: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(0.0, |largest: f64, slope| largest.max(slope.abs()));
    let relative = CANCELLING.iter().find(|(name, _)| *name == case).map_or(tolerance(), |(_, relative)| *relative);
    let absolute = if largest < 1e-6 { f64::from(f32::EPSILON) } else { 0.0 };
    assert_close(&format!("{case} gradient of {input}"), got, expected, relative, absolute);
}

pub(crate) fn golden(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/losses").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden: Golden = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!golden.cases.is_empty(), "{} has no case", path.display());
    golden
}

#[test]
fn logit_losses_agree_with_pytorch() {
    let device = device().autodiff();
    for loss in logit_losses() {
        for case in golden(loss.name).cases {
            if case.inputs.contains_key("target_probs") {
                continue;
            }
            let student = case.logits("student_logits", &device).require_grad();
            let inputs = || Logits {
                student: student.clone(),
                teacher: match loss.teacher {
                    true => case.logits("teacher_logits", &device).into(),
                    false => TeacherLogits::Dense(student.clone()),
                },
                targets: match case.inputs.get("targets") {
                    Some(targets) => ints(&targets.ints(), [targets.data.len()], &device),
                    None => ints(&vec![0; student.dims()[0]], [student.dims()[0]], &device),
                },
                mask: case.mask(&device),
            };
            let rows = (loss.rows)(&case.config, inputs());
            let reduced = (loss.reduced)(&case.config, inputs());
            case.check(loss.name, rows, reduced, &[("student_logits", &student)]);
        }
    }
}

#[test]
fn feature_losses_agree_with_pytorch() {
    let device = device().autodiff();
    for loss in feature_losses() {
        for case in golden(loss.name).cases {
            let (student, teacher) = (case.features("student", &device), case.features("teacher", &device));
            let stage = Stage { student: student.clone(), teacher };
            let rows = (loss.rows)(&case.config, stage.clone());
            let reduced = (loss.reduced)(&case.config, stage);
            case.check(loss.name, rows, reduced, &[("student", &student)]);
        }
    }
}

#[test]
fn cross_entropy_with_probabilities_agrees_with_pytorch() {
    let device = device().autodiff();
    let cases = golden("cross_entropy").cases.into_iter().filter(|case| case.inputs.contains_key("target_probs"));
    let mut count = 0;
    for case in cases {
        let smoothing = case.config["label_smoothing"].as_f64().unwrap();
        let loss = CrossEntropyLossConfig::new().with_label_smoothing(smoothing).init().unwrap();
        let student = case.logits("student_logits", &device).require_grad();
        let probs = case.logits("target_probs", &device);
        let rows = loss.forward_probs_no_reduction(student.clone(), probs.clone(), case.mask(&device));
        let reduced = loss.forward_probs(student.clone(), probs, case.mask(&device));
        case.check("cross_entropy", rows, reduced, &[("student_logits", &student)]);
        count += 1;
    }
    assert!(count > 0, "no case with target_probs");
}

#[test]
fn sparse_kd_agrees_with_pytorch() {
    let device = device().autodiff();
    for case in golden("sparse_kd").cases {
        let number = |name: &str| case.config[name].as_f64().unwrap();
        let tail = match case.config["tail"].as_str().unwrap() {
            "bucket" => Tail::Bucket,
            "renormalise" => Tail::Renormalise,
            other => panic!("tail {other}"),
        };
        let student = case.logits("student_logits", &device).require_grad();
        let indices = ints(&case.input("indices").ints(), case.input("indices").rows(), &device);
        let log_probs = case.logits("log_probs", &device);
        let vocabulary = student.dims()[1];
        let teacher = SparseLogits::new(indices, log_probs, vocabulary, number("sparse_temperature"), tail).unwrap();
        let loss = KdLossConfig::new().with_temperature(number("temperature")).init().unwrap();
        let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), case.mask(&device));
        let reduced = loss.forward(student.clone(), teacher, case.mask(&device));
        case.check("sparse_kd", rows, reduced, &[("student_logits", &student)]);
    }
}
