//! Settings outside their range are errors that name them; none is a panic.

use burn_distill_models::NoTeacher;
use burn_distill_schedules::{GapTemperature, PlateauMode, ReduceOnPlateau, Schedule};
use burn_distill_train::{
    Classification, Distillation, LearningRate, Monitor, OptimizerConfig, OptimizerRule, Progress, TrainError,
    WeightDecay,
};

use crate::fixture::*;

fn refused(change: impl FnOnce(OfVector) -> OfVector) -> String {
    let folder = tempfile::tempdir().unwrap();
    let run = change(of_vector([1.0], folder.path()).term("loss", 1.0, |view| view.student.clone()));
    let error = run.run().unwrap_err();
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "{error}: something was written");
    error.to_string()
}

#[test]
fn numbers_outside_their_range() {
    assert_eq!(refused(|run| run.epochs(0)), "`epochs` must be at least 1, got 0");
    assert_eq!(refused(|run| run.accumulate(0)), "`accumulate` must be at least 1, got 0");
    assert_eq!(refused(|run| run.keep_checkpoints(0)), "`keep_checkpoints` must be at least 1, got 0");
    assert_eq!(refused(|run| run.early_stopping(0)), "`early_stopping` must be at least 1, got 0");
    for norm in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            refused(|run| run.clip_grad_norm(norm)),
            format!("`clip_grad_norm` must be in (0, inf), got {norm}")
        );
    }
}

#[test]
fn schedules() {
    for (message, start) in [
        (refused(|run| run.learning_rate(-0.1)), "`learning_rate`: "),
        (refused(|run| run.learning_rate(f64::NAN)), "`learning_rate`: "),
        (refused(|run| run.temperature(0.0)), "`temperature` must be in (0, inf)"),
        (refused(|run| run.temperature(f64::INFINITY)), "`temperature`"),
        (refused(|run| run.temperature(Schedule::linear(1.0, -1.0, 5).unwrap())), "`temperature` must be in (0, inf)"),
        (refused(|run| run.term("other", f64::NAN, |view| view.student.clone())), "`weight:other`: "),
        (refused(|run| run.temperature(GapTemperature::new(1.0, 2.0, 0.5).unwrap())), "`temperature` must be"),
    ] {
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn terms() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        of_vector([1.0], folder.path()).run().unwrap_err().to_string(),
        "`term` must be given at least once, got no term"
    );
    assert!(refused(|run| run.term("loss", 1.0, |view| view.student.clone())).contains("`loss` twice"));
    let names = [
        "",
        "total",
        "temperature",
        "learning_rate",
        "grad_norm",
        "accuracy",
        "accuracy_top5",
        "agreement",
        "kl_to_teacher",
        "calibration_error",
        "teacher_accuracy",
        "weight:loss",
        "samples_per_second",
    ];
    for name in names {
        let message = refused(|run| run.term(name, 1.0, |view| view.student.clone()));
        assert!(
            message.starts_with("`term` must be a name") && message.ends_with(&format!("got `{name}`")),
            "{message}"
        );
    }
}

#[test]
#[should_panic(expected = "the term `wide` must give a tensor of shape [1]")]
fn a_term_that_is_not_a_number_is_a_bug() {
    let folder = tempfile::tempdir().unwrap();
    let _ = of_vector([1.0, 2.0], folder.path()).term("wide", 1.0, |view| view.student.clone()).run();
}

#[test]
fn optimizers() {
    let sgd = |momentum, nesterov| OptimizerConfig::new(OptimizerRule::Sgd { momentum, nesterov });
    let adam = |beta_1, beta_2, epsilon| OptimizerConfig::new(OptimizerRule::Adam { beta_1, beta_2, epsilon });
    let cases = [
        ("momentum", sgd(1.0, false)),
        ("momentum", sgd(-0.1, false)),
        ("momentum", sgd(f64::NAN, false)),
        ("momentum", sgd(0.0, true)),
        ("beta_1", adam(1.0, 0.9, 1e-8)),
        ("beta_2", adam(0.9, -1.0, 1e-8)),
        ("epsilon", adam(0.9, 0.9, 0.0)),
        ("weight_decay", sgd(0.9, false).with_weight_decay(WeightDecay::L2(-1.0))),
        ("weight_decay", sgd(0.9, false).with_weight_decay(WeightDecay::Decoupled(f64::NAN))),
        ("no_decay", sgd(0.9, false).with_no_decay(vec!["[".into()])),
    ];
    for (field, config) in cases {
        let message = refused(|run| run.optimizer(config));
        assert!(message.starts_with(&format!("`{field}` must be ")), "{message}");
    }
}

#[test]
fn loaders_without_items() {
    let empty = || loader(Vec::new(), 2);
    let full = || loader(samples(2, 0), 2);
    for (field, train, valid) in [("train", empty(), full()), ("valid", full(), empty())] {
        let folder = tempfile::tempdir().unwrap();
        let run = Distillation::new(Vector::new([1.0]), NoTeacher::new(), train, valid).folder(folder.path());
        let error = run.term("loss", 1.0, |view| view.student.clone()).progress(Progress::Silent).run().unwrap_err();
        assert_eq!(error.to_string(), format!("`{field}` must be a loader with at least one item, got none"));
    }
}

#[test]
fn monitors() {
    let message = refused(|run| run.monitor(Monitor::highest("acuracy")));
    assert!(
        message.starts_with("`monitor` must be a metric that the validation data gives, got `acuracy`"),
        "{message}"
    );
    assert!(message.contains("total, loss, temperature, weight:loss"), "{message}");
    assert!(refused(|run| run.monitor(Monitor::lowest("accuracy"))).contains("got `accuracy`"));
    // There is a classification, but the data has no targets: the first epoch shows it.
    let folder = tempfile::tempdir().unwrap();
    let error = from_teacher(Mlp::plain(1), loader(samples(4, 0), 2), folder.path())
        .term("kd", 1.0, soft)
        .classification(|view| Classification { targets: None, labelled: None, ..rows(view) })
        .monitor(Monitor::highest("accuracy"))
        .epochs(3)
        .run()
        .unwrap_err();
    assert_eq!(error.to_string(), "`monitor` must be a metric that the validation data gives, got `accuracy`");
    assert!(timeless(folder.path()).iter().all(|row| row.epoch == 1));
}

#[test]
fn plateaus_that_look_the_other_way() {
    let rate = |mode| {
        let plateau = ReduceOnPlateau::new(0.5, 1).unwrap().with_mode(mode);
        LearningRate::Plateau { base: 0.1.into(), plateau }
    };
    let message = refused(|run| run.learning_rate(rate(PlateauMode::Max)));
    assert!(message.starts_with("`learning_rate` must be a plateau with mode Min"), "{message}");
    let message = refused(|run| run.monitor(Monitor::highest("loss")).learning_rate(rate(PlateauMode::Min)));
    assert!(message.starts_with("`learning_rate` must be a plateau with mode Max"), "{message}");
    // The default monitor is the accuracy where there is one, which the first epoch shows.
    let run = |mode| {
        let folder = tempfile::tempdir().unwrap();
        from_teacher(Mlp::plain(1), loader(samples(4, 0), 2), folder.path())
            .term("hard", 1.0, hard)
            .classification(rows)
            .learning_rate(rate(mode))
            .run()
            .map(drop)
    };
    run(PlateauMode::Max).unwrap();
    let message = run(PlateauMode::Min).unwrap_err().to_string();
    assert!(message.ends_with("got Min, while the run monitors `accuracy`"), "{message}");
}

#[test]
fn folders_that_cannot_be_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let run = of_vector([1.0], &file.path().join("inside")).term("loss", 1.0, |view| view.student.clone());
    let error = run.run().unwrap_err();
    assert!(matches!(error, TrainError::Io { .. }), "{error}");
    assert!(error.to_string().starts_with(&file.path().join("inside").display().to_string()), "{error}");
}

#[test]
fn an_export_that_fails_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = of_vector([1.0], folder.path()).term("loss", 1.0, |view| view.student.clone());
    let error = run.export(|_, _| Err::<(), _>("no room")).run().unwrap_err().to_string();
    let path = folder.path().join("student.safetensors");
    assert_eq!(error, format!("cannot export the student to {}: no room", path.display()));
}

#[test]
fn terms_that_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = of_vector([1.0], folder.path()).term("loss", 1.0, |view| view.student.clone().detach());
    let error = run.run().unwrap_err().to_string();
    let expected =
        "`term` must be one through which a gradient reaches the student or a learned part, got none that is";
    assert_eq!(error, expected);
}
