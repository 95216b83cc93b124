//! The ways of training that are compared.

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use burn_distill::losses::{
    CrossEntropyLoss, CrossEntropyLossConfig, DistLossConfig, DkdLossConfig, JsdLossConfig, KdLossConfig,
    ReverseKlLossConfig,
};
use burn_distill::models::{Frozen, NoTeacher, Teacher};
use burn_distill::schedules::Schedule;
use burn_distill::train::{CachedOutput, Classification, Distillation, View};
use burn_distill::vision::{ImageBatch, ResNet, ResNetOutput};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Args;
use crate::features::Parts;

/// `hint` to `review` have a term on features and labels, `kd-hint` to `kd-review` the soft targets of `kd` as well.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Method {
    Kd,
    /// The temperature falls to 1, whatever `--temperature` has last.
    KdFalling,
    ReverseKl,
    Jsd,
    Dkd,
    Dist,
    Hint,
    At,
    Sp,
    Rkd,
    Review,
    KdHint,
    KdAt,
    KdSp,
    KdRkd,
    KdReview,
}

impl Method {
    /// Whether a teacher's logits are all that it compares.
    pub(crate) fn needs_logits_only(self) -> bool {
        matches!(self, Self::Kd | Self::KdFalling | Self::ReverseKl | Self::Jsd | Self::Dkd | Self::Dist)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kd => "KD",
            Self::KdFalling => "KD, falling temperature",
            Self::ReverseKl => "reverse KL",
            Self::Jsd => "JSD",
            Self::Dkd => "DKD",
            Self::Dist => "DIST",
            Self::Hint => "FitNets hint",
            Self::At => "attention transfer",
            Self::Sp => "SP",
            Self::Rkd => "RKD",
            Self::Review => "ReviewKD",
            Self::KdHint => "KD + FitNets hint",
            Self::KdAt => "KD + attention transfer",
            Self::KdSp => "KD + SP",
            Self::KdRkd => "KD + RKD",
            Self::KdReview => "KD + ReviewKD",
        }
    }

    /// Whether labels and soft targets are shares of one, by `--soft-weight`. Otherwise the labels have weight 1.
    fn shares_with_labels(self) -> bool {
        !matches!(self, Self::Dkd | Self::Dist | Self::Hint | Self::At | Self::Sp | Self::Rkd | Self::Review)
    }
}

pub(crate) type FromTeacher<T = Frozen<ResNet>> = Distillation<ResNet, T, ImageBatch, Parts>;
pub(crate) type FromLabels = Distillation<ResNet, NoTeacher, ImageBatch>;

type Seen<'a, O> = View<'a, ResNetOutput, O, ImageBatch, Parts>;

/// What every method compares or measures, whether the teacher is asked or read from a cache.
pub(crate) trait Logits {
    fn logits(&self) -> &Tensor<2>;
}

impl Logits for ResNetOutput {
    fn logits(&self) -> &Tensor<2> {
        &self.logits
    }
}

impl Logits for CachedOutput {
    fn logits(&self) -> &Tensor<2> {
        &self.logits
    }
}

/// Cross-entropy on the labels that there are, mixed ones included.
pub(crate) fn hard(loss: &CrossEntropyLoss, student: &ResNetOutput, batch: &ImageBatch) -> Tensor<1> {
    match &batch.target_probs {
        Some(probs) => loss.forward_probs(student.logits.clone(), probs.clone(), batch.labelled.clone()),
        None => loss.forward(student.logits.clone(), batch.targets.clone(), batch.labelled.clone()),
    }
}

/// The baseline: the same student, labels alone.
pub(crate) fn from_labels(run: FromLabels) -> Result<FromLabels> {
    let cross_entropy = CrossEntropyLossConfig::new().init()?;
    Ok(run
        .term("hard", 1.0, move |view| hard(&cross_entropy, view.student, view.batch))
        .classification(|view| rows(view.student, None, view.batch)))
}

/// The student of a teacher: labels, and the term on logits where the method has one. What it has on features,
/// [`features`](crate::features::features) adds.
pub(crate) fn from_logits<T>(
    run: Distillation<ResNet, T, ImageBatch>,
    method: Method,
    (student, teacher): (&ResNet, &ResNet),
    args: &Args,
    steps: usize,
    device: &Device,
) -> Result<FromTeacher<T>>
where
    T: Teacher<ImageBatch> + 'static,
    T::Output: Logits + 'static,
{
    let soft_weight = args.soft_weight;
    ensure!((0.0..=1.0).contains(&soft_weight), "`--soft-weight` must be in [0, 1], got {soft_weight}");
    let last = if method == Method::KdFalling { 1.0 } else { args.temperature[1] };
    let cross_entropy = CrossEntropyLossConfig::new().init()?;
    let run = run
        .parts(Parts::new(method, student, teacher, device)?)
        .temperature(Schedule::cosine(args.temperature[0], last, steps)?)
        .term("hard", if method.shares_with_labels() { 1.0 - soft_weight } else { 1.0 }, move |view| {
            hard(&cross_entropy, view.student, view.batch)
        })
        .classification(|view| rows(view.student, Some(view.teacher.logits()), view.batch));
    soft(run, method, soft_weight, steps)
}

/// The term on logits, where the method has one. DKD and DIST have the weights that their authors use on CIFAR-100.
fn soft<T>(run: FromTeacher<T>, method: Method, weight: f64, steps: usize) -> Result<FromTeacher<T>>
where
    T: Teacher<ImageBatch> + 'static,
    T::Output: Logits + 'static,
{
    fn logits<O: Logits>(view: &Seen<'_, O>) -> (Tensor<2>, Tensor<2>) {
        (view.student.logits.clone(), view.teacher.logits().clone())
    }
    Ok(match method {
        Method::ReverseKl => {
            let loss = ReverseKlLossConfig::new().init()?;
            run.term("reverse_kl", weight, move |view| {
                let (student, teacher) = logits(&view);
                loss.at_temperature(view.temperature).forward(student, teacher, None)
            })
        }
        Method::Jsd => {
            let loss = JsdLossConfig::new().init()?;
            run.term("jsd", weight, move |view| {
                let (student, teacher) = logits(&view);
                loss.at_temperature(view.temperature).forward(student, teacher, None)
            })
        }
        Method::Dkd => {
            let loss = DkdLossConfig::new().init()?;
            let weight = Schedule::constant(1.0)?.with_warmup((steps / 12).max(1))?; // over 20 of 240 epochs
            run.term("dkd", weight, move |view| {
                let (student, teacher) = logits(&view);
                let targets = view.batch.targets.clone();
                loss.at_temperature(view.temperature).forward(student, teacher, targets, view.batch.labelled.clone())
            })
        }
        Method::Dist => {
            let loss = DistLossConfig::new().init()?;
            run.term("dist", 2.0, move |view| {
                let (student, teacher) = logits(&view);
                loss.at_temperature(view.temperature).forward(student, teacher, None)
            })
        }
        Method::Hint | Method::At | Method::Sp | Method::Rkd | Method::Review => run,
        _ => {
            let loss = KdLossConfig::new().init()?;
            run.term("kd", weight, move |view| {
                let (student, teacher) = logits(&view);
                loss.at_temperature(view.temperature).forward(student, teacher, None)
            })
        }
    })
}

/// What the metrics compare.
pub(crate) fn rows(student: &ResNetOutput, teacher: Option<&Tensor<2>>, batch: &ImageBatch) -> Classification {
    Classification {
        student_logits: student.logits.clone(),
        teacher_logits: teacher.cloned(),
        targets: Some(batch.targets.clone()),
        labelled: Some(batch.labelled.clone()),
    }
}
