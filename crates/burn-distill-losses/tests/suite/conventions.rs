//! Every constructor named after another library against what that library's own function gives, made by
//! `golden/conventions.py`; and the tables of the book against the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use burn::{
    config::Config,
    tensor::{DType, Device, Tensor},
};
use burn_distill_dev::{device, tolerance};
use burn_distill_losses::{Convention, Mask, SparseLogits, Tail, TeacherLogits};
use serde::Deserialize;
use serde_json::Value;

use crate::inputs::{assert_close, bools, gradient, ints, number, tensor};

#[path = "../../examples/conventions/table.rs"]
mod shown;

use shown::{Arguments, constructors};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    constructor: String,
    config: Value,
    inputs: BTreeMap<String, Array>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    value: f64,
    grad: Array,
}

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    /// `null` stands for padding.
    data: Vec<Option<f64>>,
}

impl Array {
    fn values(&self) -> Vec<f64> {
        self.data.iter().map(|value| value.unwrap_or(f64::NEG_INFINITY)).collect()
    }

    /// `[batch, tokens, width]`; samples are sequences of one token.
    fn tokens(&self) -> [usize; 3] {
        match self.shape[..] {
            [batch, width] => [batch, 1, width],
            [batch, tokens, width] => [batch, tokens, width],
            _ => panic!("shape {:?}", self.shape),
        }
    }

    fn rows(&self) -> [usize; 2] {
        let [batch, tokens, width] = self.tokens();
        [batch * tokens, width]
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> Vec<Case> {
    let path = root().join("golden/conventions.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden: Golden = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    golden.cases
}

impl Case {
    fn teacher(&self, device: &Device) -> TeacherLogits {
        let log_probs = match self.inputs.get("teacher_logits") {
            Some(teacher) => return tensor(&teacher.values(), teacher.rows(), DType::F32, device).into(),
            None => &self.inputs["log_probs"],
        };
        let indices: Vec<_> = self.inputs["indices"].values().iter().map(|index| *index as i64).collect();
        let tail = match self.config["tail"].as_str().unwrap() {
            "bucket" => Tail::Bucket,
            "renormalise" => Tail::Renormalise,
            "zero" => Tail::Zero,
            "drop" => Tail::Drop,
            other => panic!("tail {other}"),
        };
        let (shape, classes) = (log_probs.rows(), self.inputs["student_logits"].rows()[1]);
        let log_probs: Tensor<2> = tensor(&log_probs.values(), shape, DType::F32, device);
        SparseLogits::new(ints(&indices, shape, device), log_probs, classes, 1.0, tail).unwrap().into()
    }

    fn arguments(&self) -> Arguments {
        let given = |name: &str| self.config.get(name).and_then(Value::as_f64);
        Arguments {
            temperature: given("temperature").unwrap_or(f64::NAN),
            beta: given("beta").unwrap_or(f64::NAN),
            lambda: given("lambda").unwrap_or(f64::NAN),
            set: given("temperature"),
        }
    }
}

#[test]
fn constructors_agree_with_the_libraries() {
    let device = device().autodiff();
    let constructors = constructors();
    for (index, case) in golden().into_iter().enumerate() {
        let constructor = constructors.iter().find(|constructor| constructor.name == case.constructor);
        let constructor = constructor.unwrap_or_else(|| panic!("there is no {}", case.constructor));
        let loss = (constructor.make)(&case.arguments()).loss;
        let student = &case.inputs["student_logits"];
        let student: Tensor<3> = tensor(&student.values(), student.tokens(), DType::F32, &device).require_grad();
        let kept =
            case.inputs.get("mask").map(|mask| mask.values().iter().map(|flag| *flag != 0.0).collect::<Vec<_>>());
        let mask = Mask::from(kept.map(|kept| bools(&kept, &device)));
        let value = loss.forward(student.clone(), case.teacher(&device), mask);
        let slope = gradient(&value, &student);
        let what = format!("case {index}, {} {}", case.constructor, case.config);
        assert_close(&what, &[number(value)], &[case.expected.value], tolerance(), 1e-6);
        assert_close(&format!("{what} gradient"), &slope, &case.expected.grad.values(), tolerance(), 1e-6);
    }
}

#[test]
fn constructors_stay_finite_on_extreme_logits() {
    let device = device().autodiff();
    let infinity = f32::INFINITY;
    let student = [[[1e4, -1e4, 0.0, 5.0], [0.0, 1.0, 2.0, 3.0], [f32::NAN, infinity, 0.0, 1.0]]];
    let student = Tensor::<3>::from_floats(student, &device).require_grad();
    let teacher = [[-1e4, 1e4, 0.0, -infinity], [-infinity, 0.0, -infinity, 1.0], [0.0; 4]];
    let teacher = Tensor::<2>::from_floats(teacher, &device);
    let tails = [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop];
    let sparse = |tail| SparseLogits::from_dense(teacher.clone(), 2, tail).unwrap().into();
    let teachers: Vec<TeacherLogits> = [teacher.clone().into()].into_iter().chain(tails.map(sparse)).collect();
    for constructor in constructors() {
        let made = (constructor.make)(&Arguments { temperature: 2.0, beta: 0.3, lambda: 0.9, set: None });
        for (index, teacher) in teachers.iter().enumerate() {
            let mask = Mask::from(bools(&[true, true, false], &device));
            let value = made.loss.forward(student.clone(), teacher.clone(), mask);
            let slopes = gradient(&value, &student);
            let what = format!("{} teacher {index}", constructor.name);
            assert!(number(value).is_finite() && slopes.iter().all(|slope| slope.is_finite()), "{what}: {slopes:?}");
            assert!(slopes[8..].iter().all(|slope| *slope == 0.0), "{what}: {slopes:?}");
        }
    }
}

/// The constructors in the code, by its text.
fn in_the_code() -> BTreeSet<String> {
    let folder = root().join("crates/burn-distill-losses/src/conventions");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(&folder).unwrap() {
        let mut config = String::new();
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            if let Some(rest) = line.strip_prefix("impl ") {
                config = rest.trim_end_matches(" {").into();
            }
            if let Some(rest) = line.trim().strip_prefix("pub fn ") {
                found.insert(format!("{config}::{}", rest.split('(').next().unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_constructor_is_tested_and_shown() {
    let code = in_the_code();
    assert!(code.contains("KdLossConfig::trl") && code.contains("TvdLossConfig::liger"), "{code:?}");
    let tested: BTreeSet<_> = golden().into_iter().map(|case| case.constructor).collect();
    assert_eq!(tested, code, "golden/conventions.py has a case for each");
    let constructors = constructors();
    let shown: BTreeSet<_> = (constructors.iter().map(|constructor| constructor.name.to_string()))
        .filter(|name| !name.ends_with("::new"))
        .collect();
    assert_eq!(shown, code, "examples/conventions/table.rs shows each");
    let book = fs::read_to_string(root().join("docs/src/conventions.md")).unwrap();
    for table in [shown::conventions(), shown::tails()] {
        assert!(
            book.contains(&table),
            "a table in docs/src/conventions.md is not that of the code; \
             `cargo run --release -p burn-distill-losses --example conventions` writes it"
        );
    }
}

#[test]
fn conventions_survive_json() {
    use burn_distill_losses::{JsdLossConfig, KdLossConfig, ReverseKlLossConfig, SkewKlLossConfig, TvdLossConfig};

    fn read<C: Config>(config: &C) -> C {
        serde_json::from_str(&serde_json::to_string(config).unwrap()).unwrap()
    }
    for config in [KdLossConfig::torchtune(), KdLossConfig::model_optimizer(), KdLossConfig::trl_without_labels()] {
        assert_eq!((read(&config).form, read(&config).convention), (config.form, config.convention));
    }
    assert_eq!(read(&ReverseKlLossConfig::easydistill()).excluded, 1e-10);
    assert_eq!(read(&JsdLossConfig::distillm(0.75)).beta, 0.25);
    assert_eq!(read(&TvdLossConfig::liger()).convention, TvdLossConfig::liger().convention);
    let skew = SkewKlLossConfig::distillm();
    assert_eq!((read(&skew).form, read(&skew).convention), (skew.form, skew.convention));
}

#[test]
fn own_convention_is_what_new_has() {
    for constructor in constructors().iter().filter(|constructor| constructor.name.ends_with("::new")) {
        let made = (constructor.make)(&Arguments { temperature: 1.0, beta: 0.5, lambda: 0.5, set: None });
        assert_eq!(made.convention, Convention::default(), "{}", constructor.name);
    }
}
