//! Several tasks: what balances them, rows of some of them alone, their metrics, and what is refused.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill_models::{
    Branch, Frozen, HeadOutput, LinearHead, LinearHeadConfig, MultiTaskOutput, MultiTaskStudent, NoTeacher, Student,
};
use burn_distill_train::{
    Balance, Classification, Distillation, Monitor, OptimizerConfig, OptimizerRule, Progress, Task, View, WeightDecay,
};
use serde_json::Value;

use crate::fixture::*;

pub(crate) const BALANCES: [Balance; 3] =
    [Balance::Fixed, Balance::Uncertainty, Balance::GradNorm { alpha: 1.5, learning_rate: 0.1 }];

fn plain_sgd() -> OptimizerConfig {
    OptimizerConfig::new(OptimizerRule::Sgd { momentum: 0.0, nesterov: false })
}

/// A vector that three tasks share.
#[derive(Module, Debug)]
struct Shared {
    values: Param<Tensor<1>>,
}

#[derive(Debug)]
struct Three {
    tasks: [Branch<1>; 3],
}

impl Student<Batch> for Shared {
    type Output = Three;

    fn forward(&self, _batch: &Batch) -> Three {
        Three { tasks: std::array::from_fn(|_| Branch::new(&self.values.val())) }
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// `golden/balance.py`: the vector, the weights, the losses and the total, step by step.
#[test]
fn every_step_is_that_of_the_papers_formulas() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/balance.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let start = numbers(&golden["start"]);
        let values = Param::from_data(TensorData::new(start.clone(), [start.len()]), &device());
        let one = || loader(samples(2, 0), 2);
        let mut run = Distillation::new(Shared { values }, NoTeacher::new(), one(), one());
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            let task = &golden["tasks"][index];
            let [scale, floor] = ["scale", "floor"].map(|field| task[field].as_f64().unwrap());
            let target = numbers(&task["target"]);
            run = run.task(name, |task| {
                task.branch(move |out: &Three| &out.tasks[index]).term("distance", 1.0, move |view| {
                    let features = view.student.tasks[index].features();
                    let target = Tensor::<1>::from_floats(target.as_slice(), &features.device());
                    (features - target).square().mean().mul_scalar(scale).add_scalar(floor)
                })
            });
        }
        let steps = case["steps"].as_array().unwrap();
        let trained = run
            .balance(serde_json::from_value(case["balance"].clone()).unwrap())
            .optimizer(plain_sgd())
            .learning_rate(golden["learning_rate"].as_f64().unwrap())
            .epochs(steps.len())
            .monitor(Monitor::lowest("temperature"))
            .folder(folder.path())
            .progress(Progress::Silent)
            .run()
            .unwrap();
        for (epoch, step) in (1..).zip(steps) {
            let found = |name: &str| value(&trained.metrics, epoch, "train", name).unwrap() as f32;
            let all = |prefix: &str| ["a", "b", "c"].map(|name| found(&format!("{prefix}{name}")));
            assert_close(&all("weight:"), &numbers(&step["weights"]), 1e-5);
            assert_close(&all(""), &numbers(&step["losses"]), 2e-5);
            assert_close(&[found("total")], &[step["total"].as_f64().unwrap() as f32], 5e-5);
        }
        // Every epoch is as good as the first by a temperature that stays, so the student is that after one step.
        let end: Vec<f32> = trained.student.values.val().into_data().try_to_vec().unwrap();
        assert_close(&end, &numbers(&steps[1]["h"]), 1e-5);
    }
}

/// Losses that stay where they are, for one task each.
fn fixed_losses(losses: [f64; 2], balance: Balance, folder: &Path) -> OfVector {
    let many = loader(samples(300, 0), 1);
    let term = |name: &'static str, loss: f64| {
        move |task: Task<Tensor<1>, (), Batch, _>| {
            task.term(name, 1.0, move |view| view.student.clone().mul_scalar(0.0).add_scalar(loss))
        }
    };
    Distillation::new(Vector::new([1.0]), NoTeacher::new(), many, loader(samples(2, 0), 2))
        .task("large", term("value", losses[0]))
        .task("small", term("value", losses[1]))
        .balance(balance)
        .folder(folder)
        .progress(Progress::Silent)
}

#[test]
fn learned_uncertainty_ends_at_one_half_over_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let trained = fixed_losses([5.0, 0.2], Balance::Uncertainty, folder.path())
        // A decay of the log-variances would move the optimum.
        .optimizer(plain_sgd().with_weight_decay(WeightDecay::L2(0.5)).with_no_decay(vec![]))
        .learning_rate(0.1)
        .run()
        .unwrap();
    for (name, expected) in [("weight:large", 0.1), ("weight:small", 2.5)] {
        let found = trained.last(name).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-3, "{name}: {found} instead of {expected}");
    }
    // 1/2 for each, and ln σ² / 2.
    let total = 1.0 + 0.5 * (10f64.ln() + 0.4f64.ln());
    assert!((trained.last("total").unwrap() - total).abs() < 1e-3);
}

#[derive(Module, Debug)]
pub(crate) struct Trunk {
    layer: Linear,
}

impl Student<Batch> for Trunk {
    type Output = Tensor<2>;

    fn forward(&self, batch: &Batch) -> Tensor<2> {
        self.layer.forward(batch.inputs.clone()).tanh()
    }
}

pub(crate) type Two = MultiTaskStudent<Trunk, (LinearHead, LinearHead)>;
pub(crate) type TwoOut = MultiTaskOutput<Tensor<2>, (HeadOutput, HeadOutput)>;

/// Three classes as the fixture has them, and whether the first number is above zero.
pub(crate) fn two_tasks(width: usize, seed: u64) -> Two {
    let head = |classes| LinearHeadConfig::new(width, classes).init(&device());
    let trunk = Trunk { layer: LinearConfig::new(FEATURES, width).init(&device()) };
    with_weights(MultiTaskStudent::new(trunk, (head(CLASSES), head(2))), seed)
}

fn sides(batch: &Batch) -> Tensor<1, Int> {
    let [rows, _] = batch.inputs.dims();
    batch.inputs.clone().without_autodiff().slice([0..rows, 0..1]).flatten::<1>(0, 1).greater_elem(0.0).int()
}

type OfTwo<P> = Task<TwoOut, TwoOut, Batch, P>;

fn class_rows<P>(view: &View<'_, TwoOut, TwoOut, Batch, P>) -> Classification {
    Classification {
        student_logits: view.student.heads.0.logits.clone(),
        teacher_logits: Some(view.teacher.heads.0.logits.clone()),
        targets: Some(view.batch.targets.clone()),
        labelled: view.mask.clone(),
    }
}

/// Cross-entropy and KD on the classes, of the rows that the task has.
pub(crate) fn class_task<P: 'static>(task: OfTwo<P>) -> OfTwo<P> {
    let (hard, kd) = (CrossEntropyLossConfig::new().init().unwrap(), KdLossConfig::new().init().unwrap());
    task.branch(|out: &TwoOut| &out.heads.0.branch)
        .term("hard", 0.5, move |view| {
            hard.forward(view.student.heads.0.logits.clone(), view.batch.targets.clone(), view.mask)
        })
        .term("kd", 1.0, move |view| {
            kd.forward(view.student.heads.0.logits.clone(), view.teacher.heads.0.logits.clone(), view.mask)
        })
        .classification(|view| class_rows(&view))
}

pub(crate) fn side_task<P: 'static>(task: OfTwo<P>) -> OfTwo<P> {
    let hard = CrossEntropyLossConfig::new().init().unwrap();
    task.branch(|out: &TwoOut| &out.heads.1.branch)
        .term("hard", 1.0, move |view| hard.forward(view.student.heads.1.logits.clone(), sides(view.batch), None))
        .classification(|view| Classification {
            student_logits: view.student.heads.1.logits.clone(),
            teacher_logits: Some(view.teacher.heads.1.logits.clone()),
            targets: Some(sides(view.batch)),
            labelled: None,
        })
}

fn of_two(train: Loader, folder: &Path) -> Distillation<Two, Frozen<Two>, Batch> {
    let valid = loader(samples(30, 99), 8);
    Distillation::new(two_tasks(5, 1), Frozen::new(two_tasks(9, 2)), train, valid)
        .optimizer(plain_sgd())
        .learning_rate(0.3)
        .folder(folder)
        .progress(Progress::Silent)
}

fn partly_labelled(count: usize, every: usize) -> Vec<Sample> {
    let mut samples = samples(count, 7);
    samples.iter_mut().step_by(every).for_each(|sample| sample.target = None);
    samples
}

#[test]
fn a_masked_task_has_the_gradient_of_its_rows_alone() {
    let train = || loader(partly_labelled(24, 3), 6);
    let rows = |batch: &Batch| {
        let labelled: Vec<bool> = batch.labelled.to_data().iter().collect();
        let rows: Vec<i64> = (0..).zip(labelled).filter(|(_, labelled)| *labelled).map(|(row, _)| row).collect();
        Tensor::<1, Int>::from_ints(rows.as_slice(), &batch.labelled.device())
    };
    for balance in BALANCES {
        let [masked, dropped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        of_two(train(), masked.path())
            .task("class", |task| class_task(task.mask(|view| view.batch.labelled.clone())))
            .task("side", side_task)
            .balance(balance)
            .run()
            .unwrap();
        let (hard, kd) = (CrossEntropyLossConfig::new().init().unwrap(), KdLossConfig::new().init().unwrap());
        of_two(train(), dropped.path())
            .task("class", |task| {
                task.branch(|out: &TwoOut| &out.heads.0.branch)
                    .term("hard", 0.5, move |view| {
                        let (rows, logits) = (rows(view.batch), view.student.heads.0.logits.clone());
                        hard.forward(logits.select(0, rows.clone()), view.batch.targets.clone().select(0, rows), None)
                    })
                    .term("kd", 1.0, move |view| {
                        let (rows, logits) = (rows(view.batch), view.student.heads.0.logits.clone());
                        let teacher = view.teacher.heads.0.logits.clone().select(0, rows.clone());
                        kd.forward(logits.select(0, rows), teacher, None)
                    })
            })
            .task("side", side_task)
            .balance(balance)
            .run()
            .unwrap();
        assert_close(&numbers_of(masked.path()), &numbers_of(dropped.path()), 2e-6);
        let [masked, dropped] = [masked, dropped].map(|folder| timeless(folder.path()));
        for name in ["weight:class", "weight:side", "class", "side"] {
            let [masked, dropped] = [&masked, &dropped].map(|rows| value(rows, 1, "train", name).unwrap());
            assert!((masked - dropped).abs() < 1e-5, "{name} under {balance:?}: {masked} and {dropped}");
        }
    }
}

#[test]
fn a_task_without_a_row_is_as_if_it_were_not_there() {
    let train = || {
        let mut samples = samples(16, 7);
        samples.iter_mut().for_each(|sample| sample.target = None);
        loader(samples, 4)
    };
    let alone = tempfile::tempdir().unwrap();
    of_two(train(), alone.path()).task("side", side_task).monitor(Monitor::lowest("temperature")).run().unwrap();
    for balance in BALANCES {
        let folder = tempfile::tempdir().unwrap();
        of_two(train(), folder.path())
            .task("class", |task| class_task(task.mask(|view| view.batch.labelled.clone())))
            .task("side", side_task)
            .balance(balance)
            .monitor(Monitor::lowest("temperature"))
            .run()
            .unwrap();
        let rows = timeless(folder.path());
        let train = |name| value(&rows, 1, "train", name);
        assert_eq!(train("weight:class"), Some(1.0), "{balance:?}");
        assert_eq!([train("class"), train("class/kd"), train("class/accuracy")], [None; 3]);
        assert!(train("side/accuracy").is_some());
        assert_eq!(train("accuracy"), train("side/accuracy"));
        match balance {
            // Its own log-variance moves.
            Balance::Uncertainty => assert_ne!(train("weight:side"), Some(1.0)),
            _ => assert_eq!(numbers_of(folder.path()), numbers_of(alone.path()), "{balance:?}"),
        }
    }
}

#[test]
fn tasks_have_metrics_of_their_own_and_their_mean_chooses_the_best_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let trained = of_two(loader(samples(24, 7), 6), folder.path())
        .task("class", |task| class_task(task).weight(0.25))
        .task("side", side_task)
        .term("size", 0.125, |view| view.student.features.clone().square().mean())
        .epochs(6)
        .run()
        .unwrap();
    for row in &trained.metrics {
        let of = |name: &str| row.metrics.get(name).copied().unwrap_or_else(|| panic!("no {name} in {row:?}"));
        let near = |left: f64, right: f64| assert!((left - right).abs() < 1e-6, "{left} and {right}");
        near(of("class"), 0.5 * of("class/hard") + of("class/kd"));
        near(of("total"), 0.25 * of("class") + of("side") + 0.125 * of("size"));
        near(of("accuracy"), (of("class/accuracy") + of("side/accuracy")) / 2.0);
        near(of("kl_to_teacher"), (of("class/kl_to_teacher") + of("side/kl_to_teacher")) / 2.0);
        near(of("teacher_accuracy"), (of("class/teacher_accuracy") + of("side/teacher_accuracy")) / 2.0);
        assert_eq!([of("weight:class"), of("weight:side"), of("weight:class/hard")], [0.25, 1.0, 0.5]);
        assert_ne!(of("class/accuracy"), of("side/accuracy"));
    }
    let valid = trained.metrics.iter().filter(|row| row.split == "valid");
    let best = valid.map(|row| row.metrics["accuracy"]).fold(0.0, f64::max);
    assert_eq!(trained.best("accuracy"), Some(best));

    // By another task's metric, another epoch may be the best.
    let again = of_two(loader(samples(24, 7), 6), tempfile::tempdir().unwrap().path())
        .task("class", |task| class_task(task).weight(0.25))
        .task("side", side_task)
        .term("size", 0.125, |view| view.student.features.clone().square().mean())
        .monitor(Monitor::lowest("side/hard"))
        .epochs(6)
        .run()
        .unwrap();
    let valid = again.metrics.iter().filter(|row| row.split == "valid");
    let lowest = valid.map(|row| row.metrics["side/hard"]).fold(f64::INFINITY, f64::min);
    assert_eq!(again.best("side/hard"), Some(lowest));
}

/// The same number counted by hand, from the model that was trained.
#[test]
fn a_tasks_accuracy_is_that_of_its_head() {
    let folder = tempfile::tempdir().unwrap();
    let trained = of_two(loader(samples(24, 7), 6), folder.path())
        .task("class", class_task)
        .task("side", side_task)
        .run()
        .unwrap();
    let batches = loader(samples(30, 99), 30);
    let batch = batches.iter().next().unwrap().unwrap();
    let out = Frozen::new(trained.student).into_inner().forward(&batch);
    let right = |logits: Tensor<2>, targets: Tensor<1, Int>| {
        let right = logits.argmax(1).flatten::<1>(0, 1).equal(targets);
        f64::from(right.float().mean().into_scalar::<f32>())
    };
    let [class, side] = ["class/accuracy", "side/accuracy"].map(|name| {
        let row = trained.metrics.iter().find(|row| row.split == "valid").unwrap();
        row.metrics[name]
    });
    assert!((class - right(out.heads.0.logits, batch.targets.clone())).abs() < 1e-6);
    assert!((side - right(out.heads.1.logits, sides(&batch))).abs() < 1e-6);
}

#[test]
fn a_large_task_no_longer_drowns_a_small_one() {
    let run = |balance| {
        let folder = tempfile::tempdir().unwrap();
        let trained = of_two(loader(samples(40, 7), 8), folder.path())
            .task("class", class_task)
            .task("side", |task: OfTwo<_>| {
                let hard = CrossEntropyLossConfig::new().init().unwrap();
                task.branch(|out: &TwoOut| &out.heads.1.branch).term("hard", 0.01, move |view| {
                    hard.forward(view.student.heads.1.logits.clone(), sides(view.batch), None)
                })
            })
            .balance(balance)
            .learning_rate(0.05)
            .epochs(30)
            .run()
            .unwrap();
        [
            trained.last("weight:side").unwrap() / trained.last("weight:class").unwrap(),
            trained.last("side/hard").unwrap(),
        ]
    };
    let [fixed, uncertain, grad_norm] = BALANCES.map(run);
    assert_eq!(fixed[0], 1.0);
    assert!(uncertain[0] > 10.0 && grad_norm[0] > 10.0, "{uncertain:?} {grad_norm:?}");
    // Under GradNorm the weights add up to the number of tasks, and plain gradient descent hardly moves by gradients as
    // short as the small one's.
    assert!(uncertain[1] < 0.8 * fixed[1], "{fixed:?} {uncertain:?}");
}

#[test]
fn what_cannot_be_balanced_is_refused_by_name() {
    let refused = |run: Distillation<Two, Frozen<Two>, Batch>| run.run().unwrap_err().to_string();
    let folder = tempfile::tempdir().unwrap();
    let run = || of_two(loader(samples(8, 7), 4), folder.path());
    let both = || run().task("class", class_task).task("side", side_task);
    let unnamed = "has no colon or slash, and is no other metric's, got";
    let cases = [
        (format!("`task` must be a name that is not empty, {unnamed} `a/b`"), run().task("a/b", class_task)),
        (format!("`task` must be a name that is not empty, {unnamed} `accuracy`"), run().task("accuracy", class_task)),
        ("`task` must be named once, got `class` twice".into(), both().task("class", class_task)),
        (
            "`term` must be named once, got `class` twice".into(),
            both().term("class", 1.0, |view| view.student.features.clone().mean()),
        ),
        (
            "`term` must be named once, got `class/kd` twice".into(),
            run().task("class", |task| class_task(task).term("kd", 1.0, |view| view.student.features.clone().mean())),
        ),
        (
            "`task` must be a name with at least one term, got `other` without one".into(),
            both().task("other", |task| task),
        ),
        ("`balance` must be `Fixed`, or one of at least two tasks, got Uncertainty of 1".into(), {
            run().task("class", class_task).balance(Balance::Uncertainty)
        }),
        ("`weight` must be left to the balance unless it is `Fixed`, got that of `other` under Uncertainty".into(), {
            both().task("other", |task| side_task(task).weight(2.0)).balance(Balance::Uncertainty)
        }),
        ("`branch` must be given for every task under `GradNorm`, got `other` without one".into(), {
            both()
                .task("other", |task| task.term("size", 1.0, |view| view.student.features.clone().square().mean()))
                .balance(Balance::grad_norm(1.5))
        }),
        ("`alpha` must be in [0, inf), got -1".into(), both().balance(Balance::grad_norm(-1.0))),
        (
            "`weight:class/late`: ".into(),
            run().task("class", |task| {
                class_task(task).term("late", f64::NAN, |view| view.student.features.clone().mean())
            }),
        ),
    ];
    for (expected, run) in cases {
        let error = refused(run);
        assert!(error.starts_with(&expected), "{error} instead of {expected}");
    }
    let error = refused(both().monitor(Monitor::highest("sides/accuracy")));
    assert!(error.contains("got `sides/accuracy`; there are") && error.contains(" side/accuracy"), "{error}");
}

#[test]
fn a_branch_that_no_head_reads_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = of_two(loader(samples(8, 7), 4), folder.path())
        .task("class", class_task)
        .task("side", |task| {
            // Past its branch.
            task.branch(|out: &TwoOut| &out.heads.1.branch)
                .term("size", 1.0, |view| view.student.features.clone().square().mean())
        })
        .balance(Balance::grad_norm(1.5))
        .run()
        .unwrap_err()
        .to_string();
    assert!(error.contains("`branch` must be") && error.contains("`side`"), "{error}");
}

#[test]
fn another_balance_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = |balance, epochs| {
        let run = of_two(loader(samples(8, 7), 4), folder.path());
        run.task("class", class_task).task("side", side_task).balance(balance).epochs(epochs).run()
    };
    run(Balance::Uncertainty, 1).unwrap();
    let error = run(Balance::Fixed, 2).unwrap_err().to_string();
    assert!(error.contains("`objective.balance` is \"uncertainty\" in the checkpoint and \"fixed\""), "{error}");
    run(Balance::Uncertainty, 2).unwrap();
}

/// A mask in a batch of the fixture, to see that none is needed outside of tasks.
#[test]
fn outside_of_tasks_there_is_no_mask() {
    let folder = tempfile::tempdir().unwrap();
    let rows: fn(Option<Tensor<1, Bool>>) -> f64 = |mask| f64::from(u8::from(mask.is_some()));
    let trained = of_two(loader(samples(8, 7), 4), folder.path())
        .task("class", |task| {
            class_task(task.mask(move |view| {
                assert!(view.mask.is_none());
                view.batch.labelled.clone()
            }))
            .term("masked", 1.0, move |view| view.student.features.clone().mean() * 0.0 + rows(view.mask))
        })
        .term("outside", 1.0, move |view| view.student.features.clone().mean() * 0.0 + rows(view.mask))
        .run()
        .unwrap();
    assert_eq!([trained.last("class/masked"), trained.last("outside")], [Some(1.0), Some(0.0)]);
}
