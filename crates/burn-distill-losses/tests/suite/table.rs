//! One row per loss; every other file of the suite goes through these rows.
//!
//! # Adding a loss
//!
//! 1. `src/<name>.rs`: `<Name>LossConfig` with `init()`, `<Name>Loss` with `forward_no_reduction` and `forward`
//!    (and `at_temperature` if it has one), documented in the order of `kd.rs`.
//! 2. `src/lib.rs`: `mod <name>;`. `src/catalogue.rs`: its row, which re-exports the types.
//! 3. Here: its row, by `logit_loss!` in [`logit_losses`] (its arguments, in the order of `forward`, are fields of
//!    [`Logits`]), by `feature_loss!` in [`feature_losses`] (student and teacher features), or by hand in
//!    [`sample_losses`], in `learned.rs` if it has features and parameters, or in `sequences.rs` if its rows are tokens,
//!    with inputs of any names and ranks; if it takes logits, in [`called_as_logit_losses`] too. A loss with a
//!    temperature joins the list of
//!    `at_temperature_is_the_loss_configured_with_it`.
//! 4. `golden/losses/<name>.py`: cases, the loss from its paper, the authors' code; then
//!    `golden/losses.py --only <name>` writes the `.json` beside it. The suite fails without the file.
//! 5. `benches/benches/losses.rs`: its row.

use burn::{
    config::Config,
    tensor::{Device, Int, Tensor},
};
use burn_distill_dev::device;
use burn_distill_losses::*;
use serde_json::Value;

use crate::{
    learned::learned_losses,
    other::{Inputs, Named, Outcome},
    sequences::sequence_losses,
};

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
    /// Whether a constant added to a row of logits changes nothing.
    pub(crate) shift_invariant: bool,
    pub(crate) non_negative: bool,
    /// Whether the teacher may be sparse.
    pub(crate) sparse: bool,
    /// Whether the gradient is that of the value (weights that count as constants make it another).
    pub(crate) descends: bool,
    pub(crate) rows: fn(&Value, Logits<2>) -> Tensor<1>,
    pub(crate) tokens: fn(&Value, Logits<3>) -> Tensor<1>,
    pub(crate) reduced: fn(&Value, Logits<2>) -> Tensor<1>,
    pub(crate) round_trip: fn(&Value),
}

impl LogitLoss {
    /// A divergence between the rows of a teacher and of a student; rows of the table say where they differ from it.
    const DIVERGENCE: Self = Self {
        name: "",
        settings: &["{}"],
        teacher: true,
        zero_at_equality: true,
        row_by_row: true,
        shift_invariant: true,
        non_negative: true,
        sparse: true,
        descends: true,
        rows: |_, _| unreachable!(),
        tokens: |_, _| unreachable!(),
        reduced: |_, _| unreachable!(),
        round_trip: |_| unreachable!(),
    };

    /// Whether the loss takes such a teacher.
    pub(crate) fn takes(&self, teacher: &TeacherLogits) -> bool {
        self.sparse || matches!(teacher, TeacherLogits::Dense(_))
    }
}

/// A loss of another signature, see `other.rs`.
pub(crate) struct OtherLoss {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static [&'static str],
    /// Inputs of a seed and a batch size.
    pub(crate) inputs: fn(u64, usize) -> Named,
    /// The rows and the reduced loss of a config and inputs.
    pub(crate) run: fn(&Value, &Inputs) -> Outcome,
    pub(crate) round_trip: fn(&Value),
    /// Whether the loss is 0 when each `teacher*` input equals the `student*` input of the same name.
    pub(crate) zero_at_equality: bool,
    pub(crate) non_negative: bool,
    /// Whether the gradient is that of the value (a gradient reversal is not).
    pub(crate) descends: bool,
    /// The largest magnitude of inputs whose gradient F16, which ends at 65,504, can hold.
    pub(crate) largest_in_f16: f64,
    /// By how many rows the mean divides, if not by all.
    pub(crate) rows_that_count: Option<fn(&Inputs) -> usize>,
}

impl OtherLoss {
    /// What most are; rows of the table say where they differ.
    pub(crate) const DISTANCE: Self = Self {
        name: "",
        settings: &["{}"],
        inputs: |_, _| unreachable!(),
        run: |_, _| unreachable!(),
        round_trip: |_| unreachable!(),
        zero_at_equality: true,
        non_negative: true,
        descends: true,
        largest_in_f16: 1e3,
        rows_that_count: None,
    };
}

/// One stage of features `[batch, channels, height, width]`.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) student: Tensor<4>,
    pub(crate) teacher: Tensor<4>,
}

/// A loss on the features of one stage.
pub(crate) struct FeatureLoss {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static [&'static str],
    /// Whether channels, height and width of the teacher may differ from the student's.
    pub(crate) any_teacher_shape: bool,
    pub(crate) rows: fn(&Value, Stage) -> Tensor<1>,
    pub(crate) reduced: fn(&Value, Stage) -> Tensor<1>,
    pub(crate) round_trip: fn(&Value),
}

/// `default` with the fields that `settings` names.
pub(crate) fn configured<C: Config>(default: C, settings: &Value) -> C {
    let mut fields = serde_json::to_value(&default).unwrap();
    for (name, value) in settings.as_object().unwrap() {
        *fields.get_mut(name).unwrap_or_else(|| panic!("the config has no field `{name}`")) = value.clone();
    }
    serde_json::from_value(fields).unwrap()
}

/// Writes the config as JSON, reads it back and compares; the loss it makes can go to another thread.
pub(crate) fn round_trip<C: Config, L: Send + Sync, E>(config: C, init: fn(&C) -> Result<L, E>) {
    let json = serde_json::to_value(&config).unwrap();
    let read: C = serde_json::from_str(&json.to_string()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
    assert!(init(&read).is_ok(), "{json} is not accepted");
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
            $($field: $value,)*
            ..LogitLoss::DIVERGENCE
        }
    }};
}

macro_rules! feature_loss {
    ($name:literal, $config:ident, { $($field:ident: $value:expr),* $(,)? }) => {
        FeatureLoss {
            name: $name,
            rows: |settings, stage: Stage| {
                configured($config::new(), settings).init().unwrap().forward_no_reduction(stage.student, stage.teacher)
            },
            reduced: |settings, stage: Stage| {
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
        }),
        logit_loss!("kd", KdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"temperature": 1.0}"#],
        }),
        logit_loss!("reverse_kl", ReverseKlLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"temperature": 2.0}"#],
        }),
        logit_loss!("jsd", JsdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &[
                r#"{"beta": 0.0, "temperature": 2.0}"#,
                r#"{"beta": 0.1}"#,
                r#"{"temperature": 2.0}"#,
                r#"{"beta": 0.9}"#,
                r#"{"beta": 1.0}"#,
            ],
        }),
        logit_loss!("skew_kl", SkewKlLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"alpha": 0.0}"#, r#"{"alpha": 0.7, "temperature": 2.0}"#],
        }),
        logit_loss!("skew_reverse_kl", SkewReverseKlLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"alpha": 0.0}"#, r#"{"alpha": 0.7, "temperature": 2.0}"#],
        }),
        logit_loss!("tvd", TvdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"temperature": 2.0}"#],
        }),
        logit_loss!("akl", AklLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"mu": 0.8, "temperature": 2.0}"#],
            descends: false,
        }),
        logit_loss!("dkd", DkdLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"alpha": 0.5, "beta": 2.0, "temperature": 1.0}"#],
        }),
        logit_loss!("dist", DistLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"beta": 2.0, "gamma": 0.5, "temperature": 4.0}"#],
            zero_at_equality: false,
            row_by_row: false,
        }),
        logit_loss!("nkd", NkdLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"gamma": 3.5, "temperature": 3.0}"#],
            zero_at_equality: false,
        }),
        logit_loss!("kd_cross_entropy", KdCrossEntropyLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"temperature": 1.0, "soft_weight": 0.5, "hard_weight": 0.5}"#],
            zero_at_equality: false,
        }),
        logit_loss!("wsld", WsldLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"temperature": 1.0}"#],
            descends: false,
        }),
        logit_loss!("ofa", OfaLossConfig, |x| (x.student, x.teacher, x.targets, x.mask), {
            settings: &["{}", r#"{"gamma": 1.5, "temperature": 2.0}"#, r#"{"gamma": 0.5}"#],
            zero_at_equality: false,
        }),
        logit_loss!("mlkd", MlkdLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &[
                r#"{"temperatures": [1.0, 4.0]}"#,
                r#"{"temperatures": [2.0], "instance_weight": 0.0, "batch_weight": 2.0, "class_weight": 0.5}"#,
            ],
            row_by_row: false,
        }),
        logit_loss!("logit_mse", LogitMseLossConfig, |x| (x.student, x.teacher, x.mask), {
            settings: &["{}", r#"{"centred": true}"#],
            shift_invariant: false,
            sparse: false,
        }),
        logit_loss!("tf_kd", TfKdLossConfig, |x| (x.student, x.targets, x.mask), {
            settings: &["{}", r#"{"target_probability": 0.9, "teacher_temperature": 0.2}"#],
            teacher: false,
            zero_at_equality: false,
        }),
    ]
}

/// Rows of [`other_losses`] that can be called with one teacher's logits, for what is checked of every loss on logits;
/// their golden cases, of other inputs, are checked there.
fn called_as_logit_losses() -> Vec<LogitLoss> {
    fn curriculum(settings: &Value, device: &Device) -> CurriculumTemperatureLoss {
        configured(CurriculumTemperatureLossConfig::new(), settings).init(device).unwrap()
    }
    fn standardized<const D: usize>(settings: &Value, x: Logits<D>) -> (KdLoss, Tensor<2>, TeacherLogits, Mask) {
        let kd = configured(KdLossConfig::new(), settings);
        let standardize = StandardizeConfig::new().with_vocabulary(kd.vocabulary).init().unwrap();
        let (student, teacher) = standardize.forward(x.student, x.teacher, x.mask.clone());
        (kd.init().unwrap(), student, teacher, x.mask)
    }
    fn standardized_rows<const D: usize>(settings: &Value, x: Logits<D>) -> Tensor<1> {
        let (kd, student, teacher, mask) = standardized(settings, x);
        kd.forward_no_reduction(student, teacher, mask)
    }
    vec![
        logit_loss!("multi_teacher_kd", MultiTeacherKdLossConfig,
            |x| (x.student, [x.teacher.clone(), x.teacher], x.targets, x.mask), {
            settings: &["{}", r#"{"temperature": 1.0}"#],
        }),
        LogitLoss {
            name: "curriculum_temperature",
            settings: &[r#"{"raw_temperature": -2.0}"#, r#"{"temperature_min": 0.5, "temperature_range": 3.0}"#],
            rows: |settings, x| {
                let loss = curriculum(settings, &x.student.device());
                loss.forward_no_reduction(x.student, x.teacher, x.mask)
            },
            tokens: |settings, x| {
                let loss = curriculum(settings, &x.student.device());
                loss.forward_no_reduction(x.student, x.teacher, x.mask)
            },
            reduced: |settings, x| curriculum(settings, &x.student.device()).forward(x.student, x.teacher, x.mask),
            round_trip: |settings| {
                round_trip(configured(CurriculumTemperatureLossConfig::new(), settings), |config| {
                    config.init(&device())
                });
            },
            ..LogitLoss::DIVERGENCE
        },
        LogitLoss {
            name: "standardize",
            settings: &[r#"{"temperature": 2.0}"#],
            // Mean and deviation need every logit.
            sparse: false,
            rows: standardized_rows::<2>,
            tokens: standardized_rows::<3>,
            reduced: |settings, x| {
                let (kd, student, teacher, mask) = standardized(settings, x);
                kd.forward(student, teacher, mask)
            },
            // `reduction` is of the loss that follows.
            round_trip: |_| round_trip(StandardizeConfig::new(), StandardizeConfig::init),
            ..LogitLoss::DIVERGENCE
        },
    ]
}

pub(crate) fn feature_losses() -> Vec<FeatureLoss> {
    vec![
        feature_loss!("hint", HintLossConfig, { settings: &["{}"], any_teacher_shape: false }),
        feature_loss!("attention_transfer", AttentionTransferLossConfig, {
            settings: &["{}", r#"{"p": 1.0}"#, r#"{"p": 3.0}"#],
            any_teacher_shape: true,
        }),
        feature_loss!("ft", FtLossConfig, {
            settings: &["{}", r#"{"p": 2}"#, r#"{"map_power": 2.0}"#, r#"{"p": 2, "map_power": 3.0}"#],
            any_teacher_shape: false,
        }),
        feature_loss!("sp", SpLossConfig, { settings: &["{}"], any_teacher_shape: true }),
        feature_loss!("rkd", RkdLossConfig, {
            settings: &["{}", r#"{"distance_weight": 1.0, "angle_weight": 0.0}"#],
            any_teacher_shape: true,
        }),
        feature_loss!("pkt", PktLossConfig, { settings: &["{}"], any_teacher_shape: true }),
        // The third kernel depends on the order of the batch.
        feature_loss!("cc", CcLossConfig, {
            settings: &["{}", r#"{"kernel": "Bilinear"}"#],
            any_teacher_shape: true,
        }),
        feature_loss!("ickd", IckdLossConfig, { settings: &["{}"], any_teacher_shape: false }),
        feature_loss!("nst", NstLossConfig, { settings: &["{}", r#"{"kernel": "Linear"}"#], any_teacher_shape: true }),
        feature_loss!("simkd", SimKdLossConfig, { settings: &["{}"], any_teacher_shape: false }),
    ]
}

/// The embeddings of one side; the logit scale plays no part where a case has none.
fn clip_side(x: &Inputs, side: &str) -> ClipEmbeddings {
    let part = |name| format!("{side}_{name}");
    let (images, texts) = (x.float(&part("images")), x.float(&part("texts")));
    if x.has(&part("logit_scale")) {
        ClipEmbeddings { images, texts, logit_scale: x.float(&part("logit_scale")) }
    } else {
        ClipEmbeddings::new(images, texts, 1.0)
    }
}

fn clip_inputs(seed: u64, batch: usize, teacher_width: usize, learned_scale: bool) -> Named {
    let named = Named::default()
        .random("student_images", &[batch, 4], 1.0, seed)
        .random("student_texts", &[batch, 4], 1.0, seed)
        .random("teacher_images", &[batch, teacher_width], 2.0, seed)
        .random("teacher_texts", &[batch, teacher_width], 0.5, seed);
    if learned_scale {
        named.float("student_logit_scale", &[1], vec![5.0]).float("teacher_logit_scale", &[1], vec![8.0])
    } else {
        named
    }
}

macro_rules! clip_loss {
    ($name:literal, $config:ident, { $($field:ident: $value:expr),* $(,)? }) => {
        OtherLoss {
            name: $name,
            run: |settings, x| {
                let loss = configured($config::new(), settings).init().unwrap();
                let (student, teacher) = (clip_side(x, "student"), clip_side(x, "teacher"));
                Outcome::new(loss.forward_no_reduction(student.clone(), teacher.clone()), loss.forward(student, teacher))
            },
            round_trip: |settings| round_trip(configured($config::new(), settings), $config::init),
            $($field: $value,)*
            ..OtherLoss::DISTANCE
        }
    };
}

/// Features of one stage, of the same shape on both sides.
fn one_stage(seed: u64, batch: usize) -> Named {
    let student = Named::default().random("student", &[batch, 3, 2, 2], 1.0, seed);
    student.random("teacher", &[batch, 3, 2, 2], 1.5, seed)
}

pub(crate) fn other_losses() -> Vec<OtherLoss> {
    sample_losses().into_iter().chain(learned_losses()).chain(sequence_losses()).collect()
}

/// Losses with a row for each sample.
fn sample_losses() -> Vec<OtherLoss> {
    vec![
        OtherLoss {
            name: "curriculum_temperature",
            inputs: |seed, batch| {
                Named::default()
                    .random("student_logits", &[batch, 5], 2.0, seed)
                    .random("teacher_logits", &[batch, 5], 2.5, seed)
                    .float("parameter.raw_temperature", &[1], vec![-1.5])
            },
            settings: &["{}", r#"{"temperature_min": 0.5, "temperature_range": 4.0, "reversal": 0.25}"#],
            run: |settings, x| {
                let config = configured(CurriculumTemperatureLossConfig::new(), settings);
                let loss = x.load(config.init(x.device()).unwrap());
                let (student, teacher) = (x.logits("student_logits"), x.logits("teacher_logits"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.mask());
                Outcome::learned(rows, loss.forward(student, teacher, x.mask()), loss)
            },
            round_trip: |settings| {
                round_trip(configured(CurriculumTemperatureLossConfig::new(), settings), |config| {
                    config.init(&device())
                })
            },
            descends: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "standardize",
            inputs: |seed, batch| {
                let targets: Vec<i64> = (0..batch as i64).map(|row| (row * 3 + 1) % 5).collect();
                Named::default()
                    .random("student_logits", &[batch, 5], 2.0, seed)
                    .random("teacher_logits", &[batch, 5], 2.5, seed)
                    .whole("targets", &[batch], &targets)
            },
            settings: &[r#"{"after": "kd"}"#, r#"{"after": "dkd", "temperature": 2.0}"#],
            run: |settings, x| {
                let standardize = StandardizeConfig::new().init().unwrap();
                let (student, teacher) =
                    standardize.forward(x.logits("student_logits"), x.logits("teacher_logits"), x.mask());
                let mut settings = settings.clone();
                let after = settings.as_object_mut().unwrap().remove("after").unwrap();
                if after == "kd" {
                    let kd = configured(KdLossConfig::new(), &settings).init().unwrap();
                    let rows = kd.forward_no_reduction(student.clone(), teacher.clone(), x.mask());
                    return Outcome::new(rows, kd.forward(student, teacher, x.mask()));
                }
                let (dkd, targets) = (configured(DkdLossConfig::new(), &settings).init().unwrap(), x.ids("targets"));
                let rows = dkd.forward_no_reduction(student.clone(), teacher.clone(), targets.clone(), x.mask());
                Outcome::new(rows, dkd.forward(student, teacher, targets, x.mask()))
            },
            round_trip: |_| round_trip(StandardizeConfig::new(), StandardizeConfig::init),
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "multi_teacher_kd",
            settings: &["{}", r#"{"temperature": 1.0}"#],
            inputs: |seed, batch| {
                let targets: Vec<i64> = (0..batch as i64).map(|row| (3 * row + seed as i64) % 5).collect();
                Named::default()
                    .random("student_logits", &[batch, 5], 2.0, seed)
                    .random("teacher_logits", &[batch, 3, 5], 2.0, seed)
                    .whole("targets", &[batch], &targets)
            },
            run: |settings, x| {
                let loss = configured(MultiTeacherKdLossConfig::new(), settings).init().unwrap();
                let [rows, count, classes] = x.dims("teacher_logits");
                let teachers = x.float::<3>("teacher_logits");
                let teacher = |k| teachers.clone().narrow(1, k, 1).reshape([rows, classes]);
                let teachers: Vec<Tensor<2>> = (0..count).map(teacher).collect();
                let (student, targets) = (x.float::<2>("student_logits"), x.int::<1>("targets"));
                let rows = loss.forward_no_reduction(student.clone(), teachers.clone(), targets.clone(), x.mask());
                Outcome::new(rows, loss.forward(student, teachers, targets, x.mask()))
            },
            round_trip: |settings| {
                round_trip(configured(MultiTeacherKdLossConfig::new(), settings), MultiTeacherKdLossConfig::init)
            },
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
        clip_loss!("clip_feature", ClipFeatureLossConfig, { inputs: |seed, batch| clip_inputs(seed, batch, 4, false) }),
        clip_loss!("clip_relation", ClipRelationLossConfig, {
            settings: &["{}", r#"{"temperature": 2.0}"#],
            inputs: |seed, batch| clip_inputs(seed, batch, 4, true),
        }),
        clip_loss!("clip_gradient", ClipGradientLossConfig, { inputs: |seed, batch| clip_inputs(seed, batch, 4, true) }),
        clip_loss!("clip_interactive", ClipInteractiveLossConfig, {
            inputs: |seed, batch| clip_inputs(seed, batch, 4, true),
            zero_at_equality: false,
        }),
        clip_loss!("affinity_mimicking", AffinityMimickingLossConfig, {
            inputs: |seed, batch| clip_inputs(seed, batch, 6, true),
            zero_at_equality: false,
        }),
        OtherLoss {
            name: "clip",
            inputs: |seed, batch| clip_inputs(seed, batch, 4, true),
            run: |settings, x| {
                let loss = configured(ClipLossConfig::new(), settings).init().unwrap();
                let student = clip_side(x, "student");
                Outcome::new(loss.forward_no_reduction(student.clone()), loss.forward(student))
            },
            round_trip: |settings| round_trip(configured(ClipLossConfig::new(), settings), ClipLossConfig::init),
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "clip_augmented",
            settings: &[r#"{"student_width": 4, "teacher_width": 6}"#],
            inputs: |seed, batch| {
                clip_inputs(seed, batch, 6, true)
                    .random("parameter.image_fusion.weight", &[10, 4], 0.5, seed)
                    .random("parameter.image_fusion.bias", &[4], 0.5, seed)
                    .random("parameter.text_fusion.weight", &[10, 4], 0.5, seed)
                    .random("parameter.text_fusion.bias", &[4], 0.5, seed)
            },
            run: |settings, x| {
                let config = configured(ClipAugmentedLossConfig::new(1, 1), settings);
                let loss = x.load(config.init(x.device()).unwrap());
                let (student, teacher) = (clip_side(x, "student"), clip_side(x, "teacher"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone());
                Outcome::learned(rows, loss.forward(student, teacher), loss)
            },
            round_trip: |settings| {
                round_trip(configured(ClipAugmentedLossConfig::new(1, 1), settings), |config| config.init(&device()));
            },
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "review_kd",
            inputs: |seed, batch| {
                Named::default()
                    .random("student_0", &[batch, 2, 5, 5], 1.0, seed)
                    .random("teacher_0", &[batch, 2, 5, 5], 1.5, seed)
                    .random("student_1", &[batch, 3, 2, 3], 1.0, seed)
                    .random("teacher_1", &[batch, 3, 2, 3], 1.5, seed)
            },
            run: |settings, x| {
                let loss = configured(ReviewKdLossConfig::new(), settings).init().unwrap();
                let sides =
                    |stage| (x.float::<4>(&format!("student_{stage}")), x.float::<4>(&format!("teacher_{stage}")));
                let (student, teacher) = sides(0);
                if !x.has("student_1") {
                    let rows = loss.forward_no_reduction(student.clone(), teacher.clone());
                    return Outcome::new(rows, loss.forward(student, teacher));
                }
                let (second, second_teacher) = sides(1);
                if !x.has("student_2") {
                    let (students, teachers) = ([student, second], [teacher, second_teacher]);
                    let rows = loss.forward_stages_no_reduction(students.clone(), teachers.clone());
                    return Outcome::new(rows, loss.forward_stages(students, teachers));
                }
                let (third, third_teacher) = sides(2);
                let (students, teachers) = ([student, second, third], [teacher, second_teacher, third_teacher]);
                let rows = loss.forward_stages_no_reduction(students.clone(), teachers.clone());
                Outcome::new(rows, loss.forward_stages(students, teachers))
            },
            round_trip: |settings| {
                round_trip(configured(ReviewKdLossConfig::new(), settings), ReviewKdLossConfig::init)
            },
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "fsp",
            inputs: |seed, batch| {
                Named::default()
                    .random("student_first", &[batch, 2, 4, 3], 1.0, seed)
                    .random("student_second", &[batch, 3, 2, 2], 1.0, seed)
                    .random("teacher_first", &[batch, 2, 4, 3], 1.5, seed)
                    .random("teacher_second", &[batch, 3, 2, 2], 1.5, seed)
            },
            run: |settings, x| {
                let loss = configured(FspLossConfig::new(), settings).init().unwrap();
                let stages = |side| ["first", "second"].map(|stage| x.float::<4>(&format!("{side}_{stage}")));
                let (student, teacher) = (stages("student"), stages("teacher"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone());
                Outcome::new(rows, loss.forward(student, teacher))
            },
            round_trip: |settings| round_trip(configured(FspLossConfig::new(), settings), FspLossConfig::init),
            // The gradient grows with the third power of the features.
            largest_in_f16: 10.0,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "ab",
            settings: &["{}", r#"{"margin": 0.5}"#],
            inputs: one_stage,
            run: |settings, x| {
                let loss = configured(AbLossConfig::new(), settings).init().unwrap();
                let (student, teacher) = (x.float::<4>("student"), x.float::<4>("teacher"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone());
                Outcome::new(rows, loss.forward(student, teacher))
            },
            round_trip: |settings| round_trip(configured(AbLossConfig::new(), settings), AbLossConfig::init),
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "ofd",
            inputs: |seed, batch| {
                let stage = one_stage(seed, batch).float("fixed_norm_weight", &[3], vec![1.5, -0.75, 0.5]);
                stage.float("fixed_norm_bias", &[3], vec![0.25, -0.5, 2.0])
            },
            run: |settings, x| {
                let loss = configured(OfdLossConfig::new(), settings).init().unwrap();
                let (student, teacher) = (x.float::<4>("student"), x.float::<4>("teacher"));
                let margin = OfdLoss::margin(x.float("fixed_norm_weight"), x.float("fixed_norm_bias"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), margin.clone());
                Outcome::new(rows, loss.forward(student, teacher, margin))
            },
            round_trip: |settings| round_trip(configured(OfdLossConfig::new(), settings), OfdLossConfig::init),
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "srrl",
            settings: &["{}", r#"{"regression_weight": 0.0}"#, r#"{"regression_weight": 5.0}"#],
            inputs: |seed, batch| one_stage(seed, batch).random("fixed_classifier", &[3, 5], 1.0, seed),
            run: |settings, x| {
                let loss = configured(SrrlLossConfig::new(), settings).init().unwrap();
                let (student, teacher) = (x.float::<4>("student"), x.float::<4>("teacher"));
                let classifier = x.float::<2>("fixed_classifier");
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), classifier.clone());
                Outcome::new(rows, loss.forward(student, teacher, classifier))
            },
            round_trip: |settings| round_trip(configured(SrrlLossConfig::new(), settings), SrrlLossConfig::init),
            ..OtherLoss::DISTANCE
        },
    ]
}

/// Calls `check` with every logit loss and each of its settings.
pub(crate) fn each_logit_loss(check: impl Fn(&LogitLoss, &Value)) {
    for loss in logit_losses().into_iter().chain(called_as_logit_losses()) {
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
    let device = device();
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
    check!(MultiTeacherKdLossConfig, student, [teacher.clone(), student.clone()], targets);
    check!(ReverseKlLossConfig, student, teacher);
    check!(JsdLossConfig, student, teacher);
    check!(SkewKlLossConfig, student, teacher);
    check!(SkewReverseKlLossConfig, student, teacher);
    check!(TvdLossConfig, student, teacher);
    check!(AklLossConfig, student, teacher);
    check!(DkdLossConfig, student, teacher, targets);
    check!(DistLossConfig, student, teacher);
    check!(NkdLossConfig, student, teacher, targets);
    check!(WsldLossConfig, student, teacher, targets);
    check!(OfaLossConfig, student, teacher, targets);
    check!(UldLossConfig, student, teacher);

    let embeddings = |seed| {
        let part = |seed| crate::inputs::random(seed, [3, 4], 1.0, &device);
        ClipEmbeddings::new(part(seed), part(seed + 1), 2.0)
    };
    let relation = |temperature| ClipRelationLossConfig::new().with_temperature(temperature).init().unwrap();
    let value = |loss: ClipRelationLoss| loss.forward(embeddings(3), embeddings(5)).into_scalar::<f32>();
    assert_eq!(value(relation(1.5).at_temperature(3.0)), value(relation(3.0)));

    let side = |logits: &Tensor<2>| TokenLogits {
        logits: logits.clone().unsqueeze_dim::<3>(0),
        ids: targets.clone().unsqueeze_dim::<2>(0),
    };
    let gold = |temperature| {
        let map = VocabularyMap::new(vec![(0, 1), (2, 2)], 4, 4).unwrap();
        GoldLossConfig::new().with_temperature(temperature).init(map).unwrap()
    };
    let groups = [(0..3).map(|at| TokenGroup { student: at..at + 1, teacher: at..at + 1 }).collect()];
    let value = |loss: GoldLoss| loss.forward(side(&student), side(&teacher), &groups).into_scalar::<f32>();
    assert_eq!(value(gold(1.5).at_temperature(3.0)), value(gold(3.0)));
}
