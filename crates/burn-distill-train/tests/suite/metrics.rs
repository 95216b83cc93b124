//! What stands in `metrics.jsonl`, against definitions written out here.

use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn_distill_models::{Frozen, Student};
use burn_distill_schedules::Schedule;
use burn_distill_train::{Classification, Distillation, MetricsRow, Monitor, Progress, evaluate, read_metrics};

use crate::fixture::*;

const WIDTH: usize = 7;

/// Logits are the inputs times a matrix.
#[derive(Module, Debug)]
struct Matrix {
    weight: Param<Tensor<2>>,
}

impl Matrix {
    fn new(weight: [[f32; WIDTH]; WIDTH]) -> Self {
        Self { weight: Param::from_data(weight, &device()) }
    }
}

impl Student<Batch> for Matrix {
    type Output = Tensor<2>;

    fn forward(&self, batch: &Batch) -> Tensor<2> {
        batch.inputs.clone().matmul(self.weight.val())
    }
}

fn data() -> Vec<Sample> {
    let inputs: [[f32; WIDTH]; 5] = [
        [2.0, 0.5, -1.0, 0.0, 0.25, 1.0, -0.5],
        [0.0, 3.0, 1.0, -2.0, 0.5, 0.75, 0.1],
        [-1.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.4],
        [0.3, 0.1, 4.0, 0.2, -0.3, -0.1, 0.0],
        [1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5],
    ];
    // Right, fourth, fourth, second, last.
    let targets = [0, 4, 3, 0, 6];
    inputs.iter().zip(targets).map(|(row, target)| Sample { inputs: row.to_vec(), target: Some(target) }).collect()
}

fn identity(scale: f32) -> [[f32; WIDTH]; WIDTH] {
    std::array::from_fn(|row| std::array::from_fn(|column| if row == column { scale } else { 0.0 }))
}

/// Like the student in three rows of five, otherwise another class.
fn teacher() -> [[f32; WIDTH]; WIDTH] {
    let mut weight = identity(0.5);
    weight[6][2] = 1.5;
    weight[1][4] = 0.9;
    weight
}

fn product(row: &[f32], weight: &[[f32; WIDTH]; WIDTH]) -> Vec<f64> {
    let column = |column: usize| row.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(w[column])).sum();
    (0..WIDTH).map(column).collect()
}

fn probs(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|value| value.exp()).sum();
    logits.iter().map(|value| value.exp() / sum).collect()
}

fn best(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

struct Expected {
    accuracy: f64,
    top5: f64,
    agreement: f64,
    kl: f64,
    calibration: f64,
    cross_entropy: f64,
    teacher_accuracy: f64,
}

fn expected() -> Expected {
    let rows: Vec<_> = data()
        .iter()
        .map(|sample| {
            let student = probs(&product(&sample.inputs, &identity(1.0)));
            (student, probs(&product(&sample.inputs, &teacher())), sample.target.unwrap())
        })
        .collect();
    type Row = (Vec<f64>, Vec<f64>, usize);
    let mean = |f: &dyn Fn(&Row) -> f64| rows.iter().map(f).sum::<f64>() / rows.len() as f64;
    let yes = |yes: bool| f64::from(u8::from(yes));
    let mut bins = [(0.0, 0.0); 15];
    for (student, _, target) in &rows {
        let confidence = student[best(student)];
        let bin = &mut bins[((confidence * 15.0).ceil() as usize).clamp(1, 15) - 1];
        bin.0 += confidence;
        bin.1 += yes(best(student) == *target);
    }
    Expected {
        accuracy: mean(&|(student, _, target)| yes(best(student) == *target)),
        top5: mean(&|(student, _, target)| yes(student.iter().filter(|p| **p > student[*target]).count() < 5)),
        agreement: mean(&|(student, teacher, _)| yes(best(student) == best(teacher))),
        kl: mean(&|(student, teacher, _)| teacher.iter().zip(student).map(|(p, q)| p * (p / q).ln()).sum()),
        calibration: bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum::<f64>() / rows.len() as f64,
        cross_entropy: mean(&|(student, _, target)| -student[*target].ln()),
        teacher_accuracy: mean(&|(_, teacher, target)| yes(best(teacher) == *target)),
    }
}

fn classification(student: Tensor<2>, teacher: Option<Tensor<2>>, batch: &Batch) -> Classification {
    Classification {
        student_logits: student,
        teacher_logits: teacher,
        targets: Some(batch.targets.clone()),
        labelled: None,
    }
}

#[test]
fn values_equal_their_definitions_over_an_uneven_last_batch() {
    let folder = tempfile::tempdir().unwrap();
    let batches = || loader(data(), 2); // 2, 2 and 1
    Distillation::new(Matrix::new(identity(1.0)), Frozen::new(Matrix::new(teacher())), batches(), batches())
        .folder(folder.path())
        .progress(Progress::Silent)
        .term("hard", 0.25, |view| {
            let loss = burn_distill_losses::CrossEntropyLossConfig::new().init().unwrap();
            loss.forward(view.student.clone(), view.batch.targets.clone(), None)
        })
        .term("size", Schedule::linear(2.0, 0.5, 3).unwrap(), |view| {
            let size = view.batch.indices.len() as f64;
            view.student.clone().sum().mul_scalar(0.0).add_scalar(size)
        })
        .temperature(Schedule::linear(4.0, 1.0, 3).unwrap())
        .classification(|view| classification(view.student.clone(), Some(view.teacher.clone()), view.batch))
        .learning_rate(0.0) // the weights stay as they are
        .item_name("images")
        .epochs(1)
        .run()
        .unwrap();
    let rows = read_metrics(folder.path().join("metrics.jsonl")).unwrap();
    let Expected { accuracy, top5, agreement, kl, calibration, cross_entropy, teacher_accuracy } = expected();
    // The data tells a wrong metric from a right one.
    assert_eq!([accuracy, top5, agreement, teacher_accuracy], [0.2, 0.8, 0.6, 0.4]);
    let size = (2.0 * 2.0 + 2.0 * 2.0 + 1.0) / 5.0;
    let near = |split: &str, name: &str, expected: f64| {
        let found = value(&rows, 1, split, name).unwrap_or_else(|| panic!("no {name} in {rows:?}"));
        assert!((found - expected).abs() < 1e-6, "{split} {name}: {found} instead of {expected}");
    };
    for split in ["train", "valid"] {
        near(split, "accuracy", accuracy);
        near(split, "accuracy_top5", top5);
        near(split, "agreement", agreement);
        near(split, "teacher_accuracy", teacher_accuracy);
        near(split, "kl_to_teacher", kl);
        near(split, "calibration_error", calibration);
        near(split, "hard", cross_entropy);
        near(split, "size", size);
        near(split, "weight:hard", 0.25);
    }
    // In training by the step of each batch, weighted by its items; afterwards at step 3.
    near("train", "weight:size", (2.0 * 2.0 + 1.5 * 2.0 + 1.0) / 5.0);
    near("train", "temperature", (4.0 * 2.0 + 3.0 * 2.0 + 2.0) / 5.0);
    near("train", "total", 0.25 * cross_entropy + (2.0 * 2.0 * 2.0 + 1.5 * 2.0 * 2.0 + 1.0) / 5.0);
    near("valid", "weight:size", 0.5);
    near("valid", "temperature", 1.0);
    near("valid", "total", 0.25 * cross_entropy + 0.5 * size);
    near("train", "learning_rate", 0.0);
    assert!(value(&rows, 1, "train", "grad_norm").unwrap() > 0.0);
    assert!(value(&rows, 1, "train", "images_per_second").unwrap() > 0.0);
    for name in ["learning_rate", "grad_norm", "images_per_second"] {
        assert_eq!(value(&rows, 1, "valid", name), None);
    }
    assert!(rows.iter().all(|row| row.step == 3 && row.seconds > 0.0));
}

#[test]
fn evaluating_a_model_gives_the_same_numbers() {
    let model = Matrix::new(identity(1.0));
    let batches: Arc<dyn DataLoader<Batch>> = loader(data(), 2);
    let teacher_weight = Tensor::<2>::from_data(teacher(), &device().inner());
    let stats = evaluate(&model, &*batches, |logits, batch| {
        classification(logits, Some(batch.inputs.clone().matmul(teacher_weight.clone())), batch)
    });
    let (metrics, expected) = (stats.unwrap().metrics(), expected());
    for (name, value) in
        [("accuracy", expected.accuracy), ("kl_to_teacher", expected.kl), ("calibration_error", expected.calibration)]
    {
        assert!((metrics[name] - value).abs() < 1e-6, "{name}");
    }
}

/// A run whose total of epoch `n` is the n-th number: one step per epoch, and the vector falls by 1 a step.
fn with_totals(totals: &'static [f64], folder: &std::path::Path) -> OfVector {
    of_vector([0.0], folder)
        .term("table", 1.0, |view| {
            let value = totals[view.step.clamp(1, totals.len()) - 1];
            let fixed = view.student.clone().detach().neg();
            view.student.clone() + fixed.add_scalar(value)
        })
        .optimizer(burn_distill_train::OptimizerConfig::new(burn_distill_train::OptimizerRule::Sgd {
            momentum: 0.0,
            nesterov: false,
        }))
        .learning_rate(1.0)
}

#[test]
fn the_best_epoch_is_exported_not_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let trained = with_totals(&[3.0, 1.0, 2.0, 1.0], folder.path()).epochs(4).run().unwrap();
    assert_eq!(trained.best_epoch, 2); // of equal ones the earliest
    assert_eq!((trained.best("total"), trained.last("total")), (Some(1.0), Some(1.0)));
    assert_eq!(trained.student.numbers(), [-2.0]);
    assert_eq!(numbers_of(folder.path()), [-2.0]);
    let highest = with_totals(&[3.0, 1.0, 2.0, 1.0], tempfile::tempdir().unwrap().path())
        .monitor(Monitor::highest("table"))
        .epochs(4)
        .run()
        .unwrap();
    assert_eq!((highest.best_epoch, highest.best("table"), highest.last("table")), (1, Some(3.0), Some(1.0)));
    assert_eq!(highest.student.numbers(), [-1.0]);
}

#[test]
fn early_stopping_waits_as_long_as_it_was_told() {
    const TOTALS: &[f64] = &[5.0, 4.0, 3.0, 4.0, 3.5, 9.0, 0.0];
    let folder = tempfile::tempdir().unwrap();
    let run = |epochs: usize, patience: usize| {
        with_totals(TOTALS, folder.path()).early_stopping(patience).epochs(epochs).run().unwrap()
    };
    let last = |rows: &[MetricsRow]| rows.iter().map(|row| row.epoch).max().unwrap();
    // Interrupted at an epoch in which it must go on, and in which it must not.
    assert_eq!(last(&run(4, 2).metrics), 4);
    let stopped = run(7, 2);
    assert_eq!((last(&stopped.metrics), stopped.best_epoch, stopped.steps), (5, 3, 5));
    let again = run(7, 2);
    assert_eq!((last(&again.metrics), again.best_epoch, again.steps), (5, 3, 5));
    // With more patience it goes on, and finds the better epoch.
    let patient = run(7, 4);
    assert_eq!((last(&patient.metrics), patient.best_epoch), (7, 7));
}
