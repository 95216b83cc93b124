//! One row per loss; every other file of the suite goes through these rows.
//!
//! # Adding a loss
//!
//! 1. `src/<name>.rs`: `<Name>LossConfig` with `init()`, `<Name>Loss` with `forward_no_reduction` and `forward`
//!    (and `at_temperature` if it has one), documented in the order of `kd.rs`.
//! 2. `src/lib.rs`: `mod <name>;`, its `pub use`, and the row of the crate's table.
//! 3. Here: the row, in [`logit_losses`] by `logit_loss!` (its arguments, in the order of `forward`, are fields of
//!    [`Logits`]) or in [`feature_losses`] by `feature_loss!`. A loss with a temperature joins the list of
//!    `at_temperature_is_the_loss_configured_with_it`.
//! 4. `golden/losses/<name>.json`: the loss in `golden/definitions.py`, its inputs in `golden/cases.py`, its name in
//!    `LOSSES` of `golden/losses.py`, the authors' code in `golden/comparisons.py`; then `golden/generate`. The suite
//!    fails without the file.
//! 5. `benches/benches/losses.rs`: one `bench_function`.
//!
//! A loss that takes something else (several stages, as ReviewKD; two pairs of tensors) writes its row by hand, with
//! functions that read what they need from the stages.

use burn::{
    config::Config,
    tensor::{Int, Tensor},
};
use burn_distill_losses::{
    AttentionTransferLossConfig, CrossEntropyLossConfig, DistLossConfig, DkdLossConfig, HintLossConfig, JsdLossConfig,
    KdLossConfig, Mask, ReverseKlLossConfig, ReviewKdLossConfig, RkdLossConfig, SpLossConfig, TeacherLogits,
};
use serde_json::Value;

/// What a logit loss may be given.
pub(crate) struct Logits<const D: usize> {
    pub(crate) student: Tensor<D>,
    pub(crate) teacher: TeacherLogits,
    pub(crate) targets: Tensor<1, Int>,
    pub(crate) mask: Mask,
}

/// A loss on logits. The functions take the fields of the config that differ from its defaults.
pub(crate) struct LogitLoss {
    pub(crate) name: &'static str,
    /// Configurations under which the properties are checked.
    pub(crate) settings: &'static [&'static str],
    /// Whether there is a teacher to take a vocabulary, a sparse form or equality from.
    pub(crate) teacher: bool,
    /// Whether the loss is 0 when the student equals the teacher, for any logits and number of rows.
    pub(crate) zero_at_equality: bool,
    /// Whether each row's value depends on that row alone.
    pub(crate) row_by_row: bool,
    pub(crate) rows: fn(&Value, Logits<2>) -> Tensor<1>,
    pub(crate) tokens: fn(&Value, Logits<3>) -> Tensor<1>,
    pub(crate) reduced: fn(&Value, Logits<2>) -> Tensor<1>,
    pub(crate) round_trip: fn(&Value),
}

/// One stage of features `[batch, channels, height, width]`.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) student: Tensor<4>,
    pub(crate) teacher: Tensor<4>,
}

/// A loss on features; all but ReviewKD take one stage.
pub(crate) struct FeatureLoss {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static [&'static str],
    /// Whether channels, height and width of the teacher may differ from the student's.
    pub(crate) any_teacher_shape: bool,
    pub(crate) rows: fn(&Value, Vec<Stage>) -> Tensor<1>,
    pub(crate) reduced: fn(&Value, Vec<Stage>) -> Tensor<1>,
    pub(crate) round_trip: fn(&Value),
}

/// `default` with the fields that `settings` names.
fn configured<C: Config>(default: C, settings: &Value) -> C {
    let mut fields = serde_json::to_value(&default).unwrap();
    for (name, value) in settings.as_object().unwrap() {
        *fields.get_mut(name).unwrap_or_else(|| panic!("the config has no field `{name}`")) = value.clone();
    }
    serde_json::from_value(fields).unwrap()
}

/// Writes the config as JSON, reads it back and compares; the loss it makes can go to another thread.
fn round_trip<C: Config, L: Send + Sync, E>(config: C, init: fn(&C) -> Result<L, E>) {
    let json = serde_json::to_value(&config).unwrap();
    let read: C = serde_json::from_str(&json.to_string()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
    assert!(init(&read).is_ok(), "{json} is not accepted");
}

fn only(stages: Vec<Stage>) -> Stage {
    let [stage] = stages.try_into().unwrap_or_else(|_| panic!("this loss takes one stage"));
    stage
}

fn students<const N: usize>(stages: &[Stage]) -> [Tensor<4>; N] {
    assert_eq!(stages.len(), N);
    std::array::from_fn(|stage| stages[stage].student.clone())
}

fn teachers<const N: usize>(stages: &[Stage]) -> [Tensor<4>; N] {
    assert_eq!(stages.len(), N);
    std::array::from_fn(|stage| stages[stage].teacher.clone())
}

macro_rules! logit_loss {
    ($name:literal, $config:ident, |$x:ident| $arguments:tt, { $($field:ident: $value:expr),* $(,)? }) => {{
        fn rows<const D: usize>(settings: &Value, $x: Logits<D>) -> Tensor<1> {
            configured($config::new(), settings).init().unwrap().forward_no_reduction $arguments
        }
        fn reduced(settings: &Value, $x: Logits<2>) -> Tensor<1> {
            configured($config::new(), settings).init().unwrap().forward $arguments
        }
        LogitLoss {
            name: $name,
            rows: rows::<2>,
            tokens: rows::<3>,
            reduced,
            round_trip: |settings| round_trip(configured($config::new(), settings), $config::init),
            $($field: $value),*
        }
    }};
}

macro_rules! feature_loss {
    ($name:literal, $config:ident, { $($field:ident: $value:expr),* $(,)? }) => {
        FeatureLoss {
            name: $name,
            rows: |settings, stages| {
                let stage = only(stages);
                configured($config::new(), settings).init().unwrap().forward_no_reduction(stage.student, stage.teacher)
            },
            reduced: |settings, stages| {
                let stage = only(stages);
                configured($config::new(), settings).init().unwrap().forward(stage.student, stage.teacher)
            },
            round_trip: |settings| round_trip(configured($config::new(), settings), $config::init),
            $($field: $value),*
        }
    };
}

pub(crate) fn logit_losses() -> Vec<LogitLoss> {
    vec![
        logit_loss!("cross_entropy", CrossEntropyLossConfig, |x| (x.student, x.targets, x.mask), {
            settings: &["{}", r#"{"label_smoothing": 0.2}"#],
            teacher: false,
            zero_at_equality: false,
            row_by_row: true,
        }),
        logit_loss!("kd", KdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"temperature": 1.0}"#],
            teacher: true,
            zero_at_equality: true,
            row_by_row: true,
        }),
        logit_loss!("reverse_kl", ReverseKlLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"temperature": 2.0}"#],
            teacher: true,
            zero_at_equality: true,
            row_by_row: true,
        }),
        logit_loss!("jsd", JsdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &[
                r#"{"beta": 0.0, "temperature": 2.0}"#,
                r#"{"beta": 0.1}"#,
                r#"{"temperature": 2.0}"#,
                r#"{"beta": 0.9}"#,
                r#"{"beta": 1.0}"#,
            ],
            teacher: true,
            zero_at_equality: true,
            row_by_row: true,
        }),
        logit_loss!("dkd", DkdLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"alpha": 0.5, "beta": 2.0, "temperature": 1.0}"#],
            teacher: true,
            zero_at_equality: true,
            row_by_row: true,
        }),
        logit_loss!("dist", DistLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"beta": 2.0, "gamma": 0.5, "temperature": 4.0}"#],
            teacher: true,
            zero_at_equality: false,
            row_by_row: false,
        }),
    ]
}

pub(crate) fn feature_losses() -> Vec<FeatureLoss> {
    vec![
        feature_loss!("hint", HintLossConfig, { settings: &["{}"], any_teacher_shape: false }),
        feature_loss!("attention_transfer", AttentionTransferLossConfig, {
            settings: &["{}", r#"{"p": 1.0}"#, r#"{"p": 3.0}"#],
            any_teacher_shape: true,
        }),
        feature_loss!("sp", SpLossConfig, { settings: &["{}"], any_teacher_shape: true }),
        feature_loss!("rkd", RkdLossConfig, {
            settings: &["{}", r#"{"distance_weight": 1.0, "angle_weight": 0.0}"#],
            any_teacher_shape: true,
        }),
        FeatureLoss {
            name: "review_kd",
            settings: &["{}"],
            any_teacher_shape: false,
            rows: |settings, stages| {
                let loss = configured(ReviewKdLossConfig::new(), settings).init().unwrap();
                match stages.len() {
                    1 => loss.forward_no_reduction(stages[0].student.clone(), stages[0].teacher.clone()),
                    2 => loss.forward_stages_no_reduction(students::<2>(&stages), teachers(&stages)),
                    _ => loss.forward_stages_no_reduction(students::<3>(&stages), teachers(&stages)),
                }
            },
            reduced: |settings, stages| {
                let loss = configured(ReviewKdLossConfig::new(), settings).init().unwrap();
                match stages.len() {
                    1 => loss.forward(stages[0].student.clone(), stages[0].teacher.clone()),
                    2 => loss.forward_stages(students::<2>(&stages), teachers(&stages)),
                    _ => loss.forward_stages(students::<3>(&stages), teachers(&stages)),
                }
            },
            round_trip: |settings| {
                round_trip(configured(ReviewKdLossConfig::new(), settings), ReviewKdLossConfig::init)
            },
        },
    ]
}

/// Calls `check` with every logit loss and each of its settings.
pub(crate) fn each_logit_loss(check: impl Fn(&LogitLoss, &Value)) {
    for loss in logit_losses() {
        for settings in loss.settings {
            check(&loss, &serde_json::from_str(settings).unwrap());
        }
    }
}

/// Calls `check` with every feature loss and each of its settings.
pub(crate) fn each_feature_loss(check: impl Fn(&FeatureLoss, &Value)) {
    for loss in feature_losses() {
        for settings in loss.settings {
            check(&loss, &serde_json::from_str(settings).unwrap());
        }
    }
}

/// `settings` with one more field.
pub(crate) fn with(settings: &Value, field: &str, value: &str) -> Value {
    let mut settings = settings.clone();
    settings[field] = value.into();
    settings
}

#[test]
fn every_config_survives_json_and_every_loss_is_send_and_sync() {
    each_logit_loss(|loss, settings| (loss.round_trip)(&with(settings, "reduction", "Sum")));
    each_feature_loss(|loss, settings| (loss.round_trip)(&with(settings, "reduction", "Sum")));
    for loss in logit_losses().iter().filter(|loss| loss.teacher) {
        (loss.round_trip)(&with(&serde_json::json!({}), "vocabulary", "MaskPadding"));
    }
}

#[test]
fn at_temperature_is_the_loss_configured_with_it() {
    let device = burn::tensor::Device::flex();
    let student = crate::inputs::random(1, [3, 4], 2.0, &device);
    let teacher = crate::inputs::random(2, [3, 4], 2.0, &device);
    let targets = crate::inputs::targets(3, 4, &device);
    macro_rules! check {
        ($config:ident, $($arguments:expr),*) => {
            let moved = $config::new().with_temperature(1.5).init().unwrap().at_temperature(3.0);
            let made = $config::new().with_temperature(3.0).init().unwrap();
            let (moved, made) = (moved.forward($($arguments.clone()),*, None), made.forward($($arguments.clone()),*, None));
            assert_eq!(moved.into_scalar::<f32>(), made.into_scalar::<f32>(), stringify!($config));
        };
    }
    check!(KdLossConfig, student, teacher);
    check!(ReverseKlLossConfig, student, teacher);
    check!(JsdLossConfig, student, teacher);
    check!(DkdLossConfig, student, teacher, targets);
    check!(DistLossConfig, student, teacher);
}
