//! A value that is not finite stops the run, or its batch leaves no trace.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_distill_losses::{CrdLoss, CrdLossConfig, CrdNegatives};
use burn_distill_models::{Frozen, MeanTeacher};
use burn_distill_schedules::{GapTemperature, Schedule};
use burn_distill_train::{Distillation, Monitor, NonFinite, OptimizerConfig, Progress, TrainError, Trained};

use crate::fixture::*;

/// NaN for the batch of four with this sample, 0 otherwise; the validation data has it in a batch of three.
fn bad<T>(
    index: usize,
) -> impl Fn(burn_distill_train::View<'_, Out, T, Batch, burn_distill_train::NoParts>) -> Tensor<1> {
    move |view| {
        let value = if touches(view.batch, index) { f64::NAN } else { 0.0 };
        view.student.logits.clone().sum().mul_scalar(0.0).add_scalar(value)
    }
}

#[test]
fn stops_with_step_term_and_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = |epochs| {
        from_teacher(Mlp::normed(1), loader(samples(12, 5), 4), folder.path())
            .term("hard", 1.0, hard)
            .term("late", 1.0, |view| {
                let value = if view.step == 5 { f64::INFINITY } else { 0.0 };
                view.student.logits.clone().sum().mul_scalar(0.0).add_scalar(value)
            })
            .epochs(epochs)
            .run()
    };
    run(1).unwrap();
    let before = student_of(folder.path());
    let error = run(4).unwrap_err();
    let last_good = folder.path().join("checkpoint/epoch-0001.json");
    match &error {
        TrainError::NonFinite { step: 5, term, value, checkpoint: Some(path) } => {
            assert_eq!((term.as_str(), *value, path), ("late", f64::INFINITY, &last_good));
            assert!(path.exists());
        }
        other => panic!("{other:?}"),
    }
    let expected = format!("step 5: `late` is inf; the last good checkpoint is {}", last_good.display());
    assert_eq!(error.to_string(), expected);
    // The run that stopped wrote no row, no checkpoint and no student of the bad epoch.
    assert!(!folder.path().join("checkpoint/epoch-0002.json").exists());
    assert_eq!(student_of(folder.path()), before);
    assert!(timeless(folder.path()).iter().all(|row| row.epoch == 1));
    assert!(run(1).unwrap().metrics.len() == 2);
}

#[test]
fn without_a_checkpoint_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = from_teacher(Mlp::plain(1), loader(samples(12, 5), 4), folder.path()).term("bad", 1.0, bad(0));
    let error = run.run().unwrap_err().to_string();
    assert_eq!(error, "step 0: `bad` is NaN; there is no checkpoint yet");
}

#[test]
fn a_gradient_that_is_not_finite_while_losses_are() {
    let folder = tempfile::tempdir().unwrap();
    // The square root of 0 is 0, and its slope infinite.
    let run = from_teacher(Mlp::plain(1), loader(samples(12, 5), 4), folder.path())
        .term("root", 1.0, |view| view.student.logits.clone().sum().mul_scalar(0.0).sqrt());
    match run.run().unwrap_err() {
        TrainError::NonFinite { step: 0, term, value, checkpoint: None } => {
            assert_eq!(term, "gradient");
            assert!(!value.is_finite());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_validation_loss_that_is_not_finite() {
    let run = |policy, folder: &Path| {
        // Only the validation data has a batch of 3.
        from_teacher(Mlp::plain(1), loader(samples(12, 5), 4), folder)
            .term("hard", 1.0, hard)
            .term("small", 1.0, |view| {
                let value = if view.batch.indices.len() == 3 { f64::NAN } else { 0.0 };
                view.student.logits.clone().sum().mul_scalar(0.0).add_scalar(value)
            })
            .monitor(Monitor::lowest("hard"))
            .non_finite(policy)
            .run()
    };
    let folder = tempfile::tempdir().unwrap();
    let error = run(NonFinite::Stop, folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("step 3: `small` is NaN"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let trained = run(NonFinite::Skip, folder.path()).unwrap();
    assert_eq!(trained.skipped_batches, 0);
    assert!(trained.best("small").unwrap().is_nan() && trained.best("hard").unwrap().is_finite());
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert!(text.lines().last().unwrap().contains("\"small\":null"), "{text}");
}

/// A run whose middle batch (samples 4 to 7 of 12) is bad in its own way, or is not there at all.
fn skipping(folder: &Path, whole: bool, accumulate: usize, add: impl FnOnce(Skipping) -> Skipping) -> Trained<Mlp> {
    let mut samples = samples(12, 5);
    if !whole {
        samples.drain(4..8);
    }
    let student = Mlp::normed(1);
    let teacher = MeanTeacher::new(&student, 0.9).unwrap();
    let valid = loader(crate::fixture::samples(7, 99), 4);
    let run = Distillation::new(student, teacher, loader(samples, 4), valid)
        .folder(folder)
        .progress(Progress::Silent)
        .term("hard", Schedule::linear(1.0, 0.5, 4).unwrap(), hard)
        .term("kd", 0.5, soft)
        .classification(rows)
        .temperature(GapTemperature::new(1.0, 6.0, 0.1).unwrap())
        .optimizer(OptimizerConfig::sgd())
        .learning_rate(Schedule::linear(0.3, 0.1, 6).unwrap())
        .accumulate(accumulate)
        .non_finite(NonFinite::Skip)
        .epochs(2);
    add(run).run().unwrap()
}

type Skipping = Distillation<Mlp, MeanTeacher<Mlp>, Batch>;

#[test]
fn a_skipped_batch_leaves_no_trace() {
    // With groups of two, the bad batch leaves the first alone in its group, and the third is the last group.
    for accumulate in [1, 2] {
        let (with, gradient, without) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
        let (with, gradient, without) = (with.unwrap(), gradient.unwrap(), without.unwrap());
        let skipped = skipping(with.path(), true, accumulate, |run| run.term("bad", 1.0, bad(5)));
        // A square root of 0 only in the bad batch: the loss is finite, the gradient is not.
        let skipped_gradient = skipping(gradient.path(), true, accumulate, |run| {
            run.term("bad", 1.0, |view| {
                let offset = if touches(view.batch, 5) { 0.0 } else { 1.0 };
                view.student.logits.clone().sum().mul_scalar(0.0).add_scalar(offset).sqrt().sub_scalar(offset)
            })
        });
        let never = skipping(without.path(), false, 1, |run| run.term("bad", 1.0, bad(1000)));
        for (trained, folder) in [(skipped, &with), (skipped_gradient, &gradient)] {
            assert_eq!((trained.skipped_batches, trained.steps), (2, never.steps));
            assert_eq!(student_of(folder.path()), student_of(without.path()), "accumulate {accumulate}");
            assert_eq!(timeless(folder.path()), timeless(without.path()), "accumulate {accumulate}");
        }
        assert_eq!(never.skipped_batches, 0);
    }
}

#[test]
fn skipped_batches_are_counted_across_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = |epochs| {
        from_teacher(Mlp::normed(1), loader(samples(12, 5), 4), folder.path())
            .term("hard", 1.0, hard)
            .term("bad", 1.0, bad::<Out>(5))
            .non_finite(NonFinite::Skip)
            .epochs(epochs)
            .run()
            .unwrap()
    };
    assert_eq!(
        [run(1), run(3), run(3)].map(|trained| (trained.skipped_batches, trained.steps)),
        [(1, 2), (3, 6), (3, 6)]
    );
    assert!(numbers_of(folder.path()).iter().all(|number| number.is_finite()));
    let report = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(report.contains("3 batches were skipped"));
}

/// What a loss with a memory of 12 samples, of width 3, remembers: the student's and the teacher's rows, and ln Z.
fn remembered(crd: &CrdLoss) -> Vec<Vec<f32>> {
    struct Remembered(Vec<Vec<f32>>);
    impl ModuleVisitor for Remembered {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let dims = param.val().dims();
            if dims[..] == [12, 3] || dims[..] == [2] {
                self.0.push(param.val().into_data().try_to_vec().unwrap());
            }
        }
    }
    let mut remembered = Remembered(Vec::new());
    crd.visit(&mut remembered);
    assert_eq!(remembered.0.len(), 3);
    remembered.0
}

#[test]
fn a_skipped_batch_is_not_remembered() {
    let run = |bad: fn(&Batch) -> bool| {
        let crd = CrdLossConfig::new(5, 9, 12).with_width(3).with_negatives(4).init(&device()).unwrap();
        let before = remembered(&crd);
        let folder = tempfile::tempdir().unwrap();
        let trained = from_teacher(Mlp::normed(1), loader(samples(12, 5), 4), folder.path())
            .parts(crd)
            .term("crd", 0.1, move |view| {
                let (student, teacher) = (view.student.hidden.clone(), view.teacher.hidden.clone());
                let negatives = CrdNegatives::at_step(view.step);
                let value = view.parts.forward(student, teacher, &view.batch.indices, negatives);
                // The memory has moved already where the value is bad; validation has no batch of four that is.
                if bad(view.batch) && value.device().is_autodiff() { value.mul_scalar(f64::NAN) } else { value }
            })
            .monitor(Monitor::lowest("crd"))
            .non_finite(NonFinite::Skip)
            .run()
            .unwrap();
        (before, remembered(&trained.parts), trained.skipped_batches)
    };
    let (before, after, skipped) = run(|batch| touches(batch, 5));
    assert_eq!(skipped, 1);
    for side in 0..2 {
        for row in 0..12 {
            let moved = before[side][3 * row..3 * row + 3] != after[side][3 * row..3 * row + 3];
            assert_eq!(moved, !(4..8).contains(&row), "row {row} of side {side}");
        }
    }
    // Measured by the batches that were not skipped: far from the value that stands for "not yet".
    assert!(after[2].iter().all(|z| z.abs() < 100.0), "{after:?}");
    let (before, after, skipped) = run(|_| true);
    assert_eq!((before, skipped), (after, 3));
}

#[test]
fn a_term_of_weight_zero_may_be_nan() {
    let (with, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |folder: &Path| {
        from_teacher(Mlp::normed(1), loader(samples(12, 5), 4), folder)
            .term("hard", 1.0, hard)
            .monitor(Monitor::lowest("hard"))
    };
    let trained =
        run(with.path()).term("bad", 0.0, |view| view.student.logits.clone().sum().mul_scalar(f64::NAN)).run().unwrap();
    run(without.path()).run().unwrap();
    assert_eq!(student_of(with.path()), student_of(without.path()));
    assert!(trained.best("bad").unwrap().is_nan());
    assert_eq!(trained.best("total"), trained.best("hard"));
}

#[test]
fn a_distiller_in_a_loop_of_its_own_stops_it() {
    use burn::train::{Interrupter, TrainStep};
    use burn_distill_train::{Distiller, Objective};

    let interrupter = Interrupter::new();
    let objective = Objective::new().term("bad", 1.0, bad::<Out>(0));
    let teacher = Frozen::new(Mlp::plain(2));
    let distiller = Distiller::new(Mlp::plain(1), teacher, objective).unwrap().with_interrupter(&interrupter);
    let batch = || loader(samples(4, 0), 4).to_device(&device()).iter().next().unwrap().unwrap();
    distiller.check().unwrap();
    let output = TrainStep::step(&distiller, batch());
    assert!(output.grads.is_empty() && interrupter.should_stop());
    assert_eq!(distiller.check().unwrap_err().to_string(), "step 0: `bad` is NaN; there is no checkpoint yet");
}
