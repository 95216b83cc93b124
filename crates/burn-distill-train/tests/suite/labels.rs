//! With labels, without, and mixed; per sample and per token.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Tensor;
use burn_distill_losses::KdLossConfig;
use burn_distill_models::{Frozen, NoTeacher, Student};
use burn_distill_train::{Classification, Distillation, Monitor, Progress};

use crate::fixture::*;

#[test]
fn teacher_signal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut unlabelled = samples(16, 5);
    unlabelled.iter_mut().for_each(|sample| sample.target = None);
    let trained = from_teacher(Mlp::plain(1), loader(unlabelled, 4), folder.path())
        .term("kd", 1.0, soft)
        .classification(|view| Classification { targets: None, labelled: None, ..rows(view) })
        .temperature(2.0)
        .learning_rate(0.05)
        .epochs(6)
        .run()
        .unwrap();
    let rows = &trained.metrics;
    for name in ["accuracy", "accuracy_top5", "calibration_error", "teacher_accuracy"] {
        assert_eq!(value(rows, 1, "valid", name), None, "{name}");
    }
    let kl = |epoch| value(rows, epoch, "valid", "kl_to_teacher").unwrap();
    assert!(kl(6) < 0.5 * kl(1), "{} to {}", kl(1), kl(6));
    assert!(value(rows, 6, "valid", "agreement").is_some());
    // Without accuracy the divergence from the teacher decides, and it fell all the way.
    assert_eq!(trained.best_epoch, 6);
}

#[test]
fn labels_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = || loader(samples(32, 5), 8);
    let trained = Distillation::new(Mlp::plain(1), NoTeacher::new(), data(), data())
        .folder(folder.path())
        .progress(Progress::Silent)
        .term("hard", 1.0, hard)
        .classification(|view| Classification {
            student_logits: view.student.logits.clone(),
            teacher_logits: None,
            targets: Some(view.batch.targets.clone()),
            labelled: None,
        })
        .learning_rate(0.05)
        .epochs(8)
        .run()
        .unwrap();
    assert!(trained.best("accuracy").unwrap() > 0.8, "{:?}", trained.best("accuracy"));
    for name in ["agreement", "kl_to_teacher", "teacher_accuracy"] {
        assert_eq!(trained.best(name), None, "{name}");
    }
    assert!(trained.last("hard").unwrap() < value(&trained.metrics, 1, "valid", "hard").unwrap());
}

#[test]
fn labels_of_some_samples() {
    // What stands where a label is missing must not matter: the batcher puts class 0 there.
    let run = |missing: usize, folder: &Path| {
        let mut mixed = samples(12, 5);
        mixed.iter_mut().skip(1).step_by(3).for_each(|sample| sample.target = None);
        mixed[4..8].iter_mut().for_each(|sample| sample.target = None); // a whole batch
        let valid = mixed.clone();
        let targets = move |batch: &Batch| {
            let filler = batch.targets.clone().mul_scalar(0).add_scalar(missing as i64);
            filler.mask_where(batch.labelled.clone(), batch.targets.clone())
        };
        let teacher = Frozen::new(Mlp::new(9, false, 0.0, 1000, &device()));
        Distillation::new(Mlp::plain(1), teacher, loader(mixed, 4), loader(valid, 5))
            .folder(folder)
            .progress(Progress::Silent)
            .term("hard", 0.5, move |view| {
                let loss = burn_distill_losses::CrossEntropyLossConfig::new().init().unwrap();
                loss.forward(view.student.logits.clone(), targets(view.batch), Some(view.batch.labelled.clone()))
            })
            .term("kd", 0.5, soft)
            .classification(move |view| Classification { targets: Some(targets(view.batch)), ..rows(view) })
            .epochs(2)
            .run()
            .unwrap()
    };
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = run(0, first.path());
    run(2, second.path());
    assert_eq!(timeless(first.path()), timeless(second.path()));
    assert_eq!(student_of(first.path()), student_of(second.path()));
    // 6 of 12 samples have labels: accuracy counts sixths, agreement twelfths.
    for (name, parts) in [("accuracy", 6.0), ("teacher_accuracy", 6.0), ("agreement", 12.0)] {
        let count = parts * trained.best(name).unwrap();
        assert!((count - count.round()).abs() < 1e-9, "{name}: {count} of {parts}");
    }
}

/// One token per input feature.
#[derive(Module, Debug)]
struct PerToken {
    layer: Linear,
}

impl Student<Batch> for PerToken {
    type Output = Tensor<3>;

    fn forward(&self, batch: &Batch) -> Tensor<3> {
        self.layer.forward(batch.inputs.clone().unsqueeze_dim(2))
    }
}

#[test]
fn logits_per_token() {
    let folder = tempfile::tempdir().unwrap();
    let model = |seed| with_weights(PerToken { layer: LinearConfig::new(1, 5).init(&device()) }, seed);
    let data = || loader(samples(6, 5), 4);
    let trained = Distillation::new(model(1), Frozen::new(model(2)), data(), data())
        .folder(folder.path())
        .progress(Progress::Silent)
        .term("kd", 1.0, |view| {
            let loss = KdLossConfig::new().with_temperature(1.0).init().unwrap();
            loss.forward(view.student.clone(), view.teacher.clone(), None)
        })
        .classification(|view| Classification {
            student_logits: view.student.clone().reshape([-1, 5]),
            teacher_logits: Some(view.teacher.clone().reshape([-1, 5])),
            targets: None,
            labelled: None,
        })
        .monitor(Monitor::lowest("kl_to_teacher"))
        .epochs(2)
        .run()
        .unwrap();
    // 6 samples of 4 tokens: the loss, averaged over tokens at temperature 1, is the divergence of the metrics.
    let (kd, kl) = (trained.best("kd").unwrap(), trained.best("kl_to_teacher").unwrap());
    assert!((kd - kl).abs() < 1e-6 && kd > 0.0, "{kd} and {kl}");
    let tokens = 24.0 * trained.best("agreement").unwrap();
    assert!((tokens - tokens.round()).abs() < 1e-9);
}
