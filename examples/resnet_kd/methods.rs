//! The ways of training that are compared.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_distill::losses::{
    AttentionTransferLossConfig, CrossEntropyLoss, CrossEntropyLossConfig, DistLossConfig, DkdLossConfig,
    HintLossConfig, JsdLossConfig, KdLossConfig, ReverseKlLossConfig, ReviewKdLossConfig, RkdLossConfig, SpLossConfig,
};
use burn_distill::models::{
    ConvConnector, ConvConnectorConfig, Frozen, NoTeacher, ReviewConnector, ReviewConnectorConfig, Teacher,
};
use burn_distill::schedules::Schedule;
use burn_distill::train::{CachedOutput, Classification, Distillation, View};
use burn_distill::vision::{ImageBatch, ResNet, ResNetOutput};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Args;

/// Beside the soft targets of `kd`, the methods after it add a term on features.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Method {
    Kd,
    ReverseKl,
    Jsd,
    Dkd,
    Dist,
    KdHint,
    KdAt,
    KdSp,
    KdRkd,
    KdReview,
}

impl Method {
    /// Whether it compares more than logits.
    pub(crate) fn needs_features(self) -> bool {
        matches!(self, Self::KdHint | Self::KdAt | Self::KdSp | Self::KdRkd | Self::KdReview)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kd => "KD",
            Self::ReverseKl => "reverse KL",
            Self::Jsd => "JSD",
            Self::Dkd => "DKD",
            Self::Dist => "DIST",
            Self::KdHint => "KD + FitNets hint",
            Self::KdAt => "KD + attention transfer",
            Self::KdSp => "KD + SP",
            Self::KdRkd => "KD + RKD",
            Self::KdReview => "KD + ReviewKD",
        }
    }
}

/// What is learned beside the student, and thrown away with the teacher.
#[derive(Module, Debug)]
pub(crate) struct Parts {
    hint: Option<ConvConnector>,
    review: Option<ReviewConnector<3>>,
}

impl Parts {
    fn new(method: Method, student: &ResNet, teacher: &ResNet, device: &Device) -> Result<Self> {
        let (student, teacher) = (student.config(), teacher.config());
        let hint = (method == Method::KdHint).then(|| {
            let channels = |widths: &[usize]| widths.last().copied().unwrap_or_default();
            ConvConnectorConfig::new(channels(&student.widths), channels(&teacher.widths)).init(device)
        });
        let review = match method {
            Method::KdReview => {
                let stages = [student.widths.len(), teacher.widths.len()];
                ensure!(stages == [3, 3], "ReviewKD here takes networks of 3 stages, got {stages:?}");
                let config = ReviewConnectorConfig::new(student.widths.clone(), teacher.widths.clone());
                Some(config.with_mid_channels(32).init(device)?)
            }
            _ => None,
        };
        Ok(Self { hint, review })
    }
}

type FromTeacher<T> = Distillation<ResNet, T, ImageBatch, Parts>;
pub(crate) type FromLabels = Distillation<ResNet, NoTeacher, ImageBatch>;

type Seen<'a, O> = View<'a, ResNetOutput, O, ImageBatch, Parts>;

/// What every method needs of a teacher, whether it is asked or read from a cache.
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

/// The student of a teacher: labels, and soft targets at a falling temperature.
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
    let cross_entropy = CrossEntropyLossConfig::new().init()?;
    let run = run
        .parts(Parts::new(method, student, teacher, device)?)
        .temperature(Schedule::cosine(args.temperature[0], args.temperature[1], steps)?)
        .term("hard", 1.0 - soft_weight, move |view| hard(&cross_entropy, view.student, view.batch))
        .classification(|view| rows(view.student, Some(view.teacher.logits()), view.batch));
    soft(run, method, soft_weight)
}

/// Beside what [`from_logits`] compares, features, for the methods that do.
pub(crate) fn with_features(run: FromTeacher<Frozen<ResNet>>, method: Method) -> Result<FromTeacher<Frozen<ResNet>>> {
    Ok(match method {
        Method::KdHint => {
            let loss = HintLossConfig::new().init()?;
            run.term("hint", 1.0, move |view| {
                let connector = view.parts.hint.as_ref().expect("`Parts::new` makes it for this method");
                let student = connector.forward(view.student.last_stage().activation.clone());
                loss.forward(student, view.teacher.last_stage().activation.clone())
            })
        }
        Method::KdAt => {
            let loss = AttentionTransferLossConfig::new().init()?;
            run.term("attention", 500.0, move |view| {
                let stage = |out: fn(&ResNetOutput) -> &Tensor<4>| {
                    loss.forward(out(view.student).clone(), out(view.teacher).clone())
                };
                stage(|out| &out.stage1.activation)
                    + stage(|out| &out.stage2.activation)
                    + stage(|out| &out.stage3.activation)
            })
        }
        Method::KdSp => {
            let loss = SpLossConfig::new().init()?;
            run.term("sp", 100.0, move |view| {
                loss.forward(view.student.last_stage().activation.clone(), view.teacher.last_stage().activation.clone())
            })
        }
        Method::KdRkd => {
            let loss = RkdLossConfig::new().init()?;
            run.term("rkd", 0.1, move |view| loss.forward(view.student.pooled.clone(), view.teacher.pooled.clone()))
        }
        Method::KdReview => {
            let loss = ReviewKdLossConfig::new().init()?;
            run.term("review", 0.5, move |view| {
                let connector = view.parts.review.as_ref().expect("`Parts::new` makes it for this method");
                let stages =
                    |out: &ResNetOutput| [&out.stage1, &out.stage2, &out.stage3].map(|stage| stage.activation.clone());
                let teacher = stages(view.teacher);
                let sizes = [0, 1, 2].map(|stage| {
                    let [_, _, height, width] = teacher[stage].dims();
                    [height, width]
                });
                loss.forward_stages(connector.forward(stages(view.student), sizes), teacher)
            })
        }
        _ => run,
    })
}

/// The term on logits.
fn soft<T>(run: FromTeacher<T>, method: Method, weight: f64) -> Result<FromTeacher<T>>
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
            run.term("dkd", weight, move |view| {
                let (student, teacher) = logits(&view);
                let targets = view.batch.targets.clone();
                loss.at_temperature(view.temperature).forward(student, teacher, targets, view.batch.labelled.clone())
            })
        }
        Method::Dist => {
            let loss = DistLossConfig::new().init()?;
            run.term("dist", weight, move |view| {
                let (student, teacher) = logits(&view);
                loss.at_temperature(view.temperature).forward(student, teacher, None)
            })
        }
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
