//! The terms on features.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_distill::losses::{
    AttentionTransferLossConfig, HintLossConfig, ReviewKdLossConfig, RkdLossConfig, SpLossConfig,
};
use burn_distill::models::{ConvConnector, ConvConnectorConfig, ReviewConnector, ReviewConnectorConfig};
use burn_distill::schedules::Schedule;
use burn_distill::vision::{ResNet, ResNetOutput, Stage};

use crate::methods::{FromTeacher, Method};

/// What is learned beside the student, and thrown away with the teacher.
#[derive(Module, Debug)]
pub(crate) struct Parts {
    hint: Option<ConvConnector>,
    review: Option<ReviewConnector<3>>,
}

impl Parts {
    pub(crate) fn new(method: Method, student: &ResNet, teacher: &ResNet, device: &Device) -> Result<Self> {
        let (student, teacher) = (student.config(), teacher.config());
        let hint = hint_stage(method).map(|stage| {
            let channels = |widths: &[usize]| match stage {
                HintStage::Middle => widths.get(1).copied().unwrap_or_default(),
                HintStage::Last => widths.last().copied().unwrap_or_default(),
            };
            ConvConnectorConfig::new(channels(&student.widths), channels(&teacher.widths)).init(device)
        });
        let review = match method {
            Method::Review | Method::KdReview => {
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

/// Where the hint is taken.
#[derive(Clone, Copy)]
enum HintStage {
    Middle,
    Last,
}

impl HintStage {
    fn of(self, output: &ResNetOutput) -> &Stage {
        match self {
            Self::Middle => &output.stage2,
            Self::Last => output.last_stage(),
        }
    }
}

fn hint_stage(method: Method) -> Option<HintStage> {
    match method {
        Method::Hint => Some(HintStage::Middle),
        Method::KdHint => Some(HintStage::Last),
        _ => None,
    }
}

/// Adds the term on features that a method has. Beside labels alone it has the weight that its authors, or RepDistiller,
/// publish for CIFAR-100, see `docs/src/choosing-a-loss.md`; beside KD a smaller one.
pub(crate) fn features(run: FromTeacher, method: Method, steps: usize) -> Result<FromTeacher> {
    Ok(match method {
        Method::Hint => hint(run, HintStage::Middle, 100.0)?,
        Method::KdHint => hint(run, HintStage::Last, 1.0)?,
        Method::At => attention(run, 1000.0)?,
        Method::KdAt => attention(run, 500.0)?,
        Method::Sp => similarities(run, 3000.0)?,
        Method::KdSp => similarities(run, 100.0)?,
        Method::Rkd => relations(run, 1.0)?,
        Method::KdRkd => relations(run, 0.1)?,
        // Over 20 of 240 epochs.
        Method::Review => review(run, Schedule::constant(0.6)?.with_warmup((steps / 12).max(1))?)?,
        Method::KdReview => review(run, Schedule::constant(0.5)?)?,
        _ => run,
    })
}

fn hint(run: FromTeacher, stage: HintStage, weight: f64) -> Result<FromTeacher> {
    let loss = HintLossConfig::new().init()?;
    Ok(run.term("hint", weight, move |view| {
        let connector = view.parts.hint.as_ref().expect("`Parts::new` makes it for this method");
        let student = connector.forward(stage.of(view.student).activation.clone());
        loss.forward(student, stage.of(view.teacher).activation.clone())
    }))
}

fn attention(run: FromTeacher, weight: f64) -> Result<FromTeacher> {
    let loss = AttentionTransferLossConfig::new().init()?;
    Ok(run.term("attention", weight, move |view| {
        let stage =
            |out: fn(&ResNetOutput) -> &Tensor<4>| loss.forward(out(view.student).clone(), out(view.teacher).clone());
        stage(|out| &out.stage1.activation) + stage(|out| &out.stage2.activation) + stage(|out| &out.stage3.activation)
    }))
}

fn similarities(run: FromTeacher, weight: f64) -> Result<FromTeacher> {
    let loss = SpLossConfig::new().init()?;
    Ok(run.term("sp", weight, move |view| {
        loss.forward(view.student.last_stage().activation.clone(), view.teacher.last_stage().activation.clone())
    }))
}

fn relations(run: FromTeacher, weight: f64) -> Result<FromTeacher> {
    let loss = RkdLossConfig::new().init()?;
    Ok(run.term("rkd", weight, move |view| loss.forward(view.student.pooled.clone(), view.teacher.pooled.clone())))
}

fn review(run: FromTeacher, weight: Schedule) -> Result<FromTeacher> {
    let loss = ReviewKdLossConfig::new().init()?;
    Ok(run.term("review", weight, move |view| {
        let connector = view.parts.review.as_ref().expect("`Parts::new` makes it for this method");
        let stages = |out: &ResNetOutput| [&out.stage1, &out.stage2, &out.stage3].map(|stage| stage.activation.clone());
        let teacher = stages(view.teacher);
        let sizes = [0, 1, 2].map(|stage| {
            let [_, _, height, width] = teacher[stage].dims();
            [height, width]
        });
        loss.forward_stages(connector.forward(stages(view.student), sizes), teacher)
    }))
}
