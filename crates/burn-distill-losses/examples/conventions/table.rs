//! Every constructor named after another library, and one batch under all of them. The suite compares the constructors
//! with what the libraries themselves give (`tests/suite/conventions.rs`), and the tables with those of the book.

use std::fmt::Write;

use burn::tensor::{Bool, Device, Tensor};
use burn_distill_losses::{
    Convention, Denominator, JsdLoss, JsdLossConfig, KdForm, KdLoss, KdLossConfig, Mask, ReverseKlLoss,
    ReverseKlLossConfig, SkewKlLoss, SkewKlLossConfig, SkewReverseKlLoss, SkewReverseKlLossConfig, SparseLogits, Tail,
    TeacherLogits, TemperatureScale, TvdLoss, TvdLossConfig,
};

/// What constructors ask for, and the temperature to set after them.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) temperature: f64,
    pub(crate) beta: f64,
    pub(crate) lambda: f64,
    pub(crate) set: Option<f64>,
}

/// A constructor of a library's convention.
pub(crate) struct Constructor {
    /// As in `KdLossConfig::trl`.
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) make: fn(&Arguments) -> Made,
}

/// The loss of a constructor, and this library's own of the same divergence at the same temperature.
pub(crate) struct Made {
    pub(crate) loss: Loss,
    pub(crate) house: Loss,
    pub(crate) convention: Convention,
    pub(crate) form: &'static str,
}

pub(crate) enum Loss {
    Kd(KdLoss),
    ReverseKl(ReverseKlLoss),
    Jsd(JsdLoss),
    Tvd(TvdLoss),
    SkewKl(SkewKlLoss),
    SkewReverseKl(SkewReverseKlLoss),
}

impl Loss {
    pub(crate) fn forward(&self, student: Tensor<3>, teacher: TeacherLogits, mask: Mask) -> Tensor<1> {
        match self {
            Self::Kd(loss) => loss.forward(student, teacher, mask),
            Self::ReverseKl(loss) => loss.forward(student, teacher, mask),
            Self::Jsd(loss) => loss.forward(student, teacher, mask),
            Self::Tvd(loss) => loss.forward(student, teacher, mask),
            Self::SkewKl(loss) => loss.forward(student, teacher, mask),
            Self::SkewReverseKl(loss) => loss.forward(student, teacher, mask),
        }
    }
}

/// What a config says of itself beside its convention, and the same divergence in this library's own.
trait Divergence {
    fn form(&self) -> &'static str;
    fn house(&self) -> Self;
}

impl Divergence for KdLossConfig {
    fn form(&self) -> &'static str {
        match self.form {
            KdForm::Divergence => "KL",
            KdForm::CrossEntropy => "cross-entropy",
        }
    }

    fn house(&self) -> Self {
        Self::new()
    }
}

impl Divergence for ReverseKlLossConfig {
    fn form(&self) -> &'static str {
        "reverse KL"
    }

    fn house(&self) -> Self {
        Self::new()
    }
}

impl Divergence for JsdLossConfig {
    fn form(&self) -> &'static str {
        "JSD"
    }

    fn house(&self) -> Self {
        Self::new().with_beta(self.beta)
    }
}

impl Divergence for TvdLossConfig {
    fn form(&self) -> &'static str {
        "TVD"
    }

    fn house(&self) -> Self {
        Self::new()
    }
}

impl Divergence for SkewKlLossConfig {
    fn form(&self) -> &'static str {
        match self.form {
            KdForm::Divergence => "skew KL",
            KdForm::CrossEntropy => "skew cross-entropy",
        }
    }

    fn house(&self) -> Self {
        Self::new().with_alpha(self.alpha)
    }
}

impl Divergence for SkewReverseKlLossConfig {
    fn form(&self) -> &'static str {
        "skew reverse KL"
    }

    fn house(&self) -> Self {
        Self::new().with_alpha(self.alpha)
    }
}

macro_rules! constructors {
    ($($loss:ident $config:ident: $($name:ident($($argument:ident)?)),+;)+) => {
        vec![$($(Constructor {
            name: concat!(stringify!($config), "::", stringify!($name)),
            arguments: &[$(stringify!($argument))?],
            make: |arguments| {
                let config = $config::$name($(arguments.$argument)?);
                let config = match arguments.set {
                    Some(temperature) => config.with_temperature(temperature),
                    None => config,
                };
                let house = config.house().with_temperature(config.temperature);
                Made {
                    loss: Loss::$loss(config.init().expect("the arguments are in range")),
                    house: Loss::$loss(house.init().expect("the arguments are in range")),
                    convention: config.convention,
                    form: config.form(),
                }
            },
        }),+),+]
    };
}

/// This library's own convention first, for each loss.
pub(crate) fn constructors() -> Vec<Constructor> {
    constructors![
        Kd KdLossConfig: new(), torchdistill(temperature), torchdistill_without_targets(temperature), trl(),
            trl_without_labels(), torchtune(), liger(), distillkit(temperature), axolotl(), axolotl_topk(),
            textbrewer(), model_optimizer(), model_optimizer_megatron(), easydistill(), mdistiller(), repdistiller(),
            distillm();
        ReverseKl ReverseKlLossConfig: new(), trl(), trl_without_labels(), torchtune(), liger(), axolotl(),
            model_optimizer_megatron(), easydistill(), distillm();
        Jsd JsdLossConfig: new(), trl(beta), trl_without_labels(beta), liger(beta), distillkit(temperature),
            axolotl(beta), distillm(lambda);
        Tvd TvdLossConfig: new(), distillkit(temperature), liger(), distillm();
        SkewKl SkewKlLossConfig: new(), distillm();
        SkewReverseKl SkewReverseKlLossConfig: new(), distillm();
    ]
}

/// Whether the library's function has a temperature.
fn has_temperature(name: &str) -> bool {
    let without = ["torchtune", "easydistill", "distillm", "TvdLossConfig::liger"];
    !without.iter().any(|library| name.ends_with(library))
}

/// Two sequences of three tokens over four classes, one token masked out.
fn batch(device: &Device) -> (Tensor<3>, Tensor<3>, Mask) {
    let student = [
        [[2.0, 0.5, -1.0, 0.0], [0.0, 1.0, 0.5, -0.5], [1.5, 1.0, -2.0, 0.5]],
        [[-1.0, 0.5, 0.0, 2.0], [0.5, 0.0, 1.0, -1.0], [3.0, -3.0, 0.0, 0.0]],
    ];
    let teacher = [
        [[1.0, 2.0, -2.0, 0.5], [-0.5, 3.0, 0.0, 1.0], [0.0, 2.5, -1.0, 1.0]],
        [[0.0, 1.0, -1.0, 4.0], [2.0, 0.5, 1.0, -3.0], [0.0, 0.0, 1.0, 2.0]],
    ];
    let mask = Tensor::<2, Bool>::from_bool([[true, true, true], [true, true, false]], device);
    (Tensor::from_floats(student, device), Tensor::from_floats(teacher, device), mask.into())
}

/// Value and length of the gradient.
fn value(loss: &Loss, teacher: TeacherLogits) -> (f64, f64) {
    let device = Device::flex().autodiff();
    let (student, _, mask) = batch(&device);
    let student = student.require_grad();
    let value = loss.forward(student.clone(), teacher, mask);
    let gradient = student.grad(&value.backward()).expect("the loss depends on the student");
    let length = gradient.powi_scalar(2).sum().sqrt().into_scalar();
    (value.into_scalar(), length)
}

fn dense() -> TeacherLogits {
    batch(&Device::flex()).1.into()
}

/// The table of the conventions, in Markdown.
pub(crate) fn conventions() -> String {
    let mut table = String::from(
        "| constructor | form | T² | divided by | T = 1 | T = 2 | gradient |\n|---|---|---|---|---|---|---|\n",
    );
    for constructor in constructors() {
        let arguments = Arguments { temperature: 2.0, beta: 0.5, lambda: 0.9, set: None };
        let at = |temperature: f64| (constructor.make)(&Arguments { set: Some(temperature), ..arguments });
        let tempered = has_temperature(constructor.name);
        let highest = if tempered { 2.0 } else { 1.0 };
        let made = at(highest);
        let scale = match made.convention.temperature_scale {
            TemperatureScale::Squared => "yes",
            TemperatureScale::One if tempered => "no",
            TemperatureScale::One => "no T",
        };
        let denominator = match made.convention.denominator {
            Denominator::Rows => "rows",
            Denominator::Batch => "batch",
            Denominator::Entries => "rows · classes",
        };
        let call = match constructor.arguments {
            [] => format!("{}()", constructor.name),
            ["beta"] => format!("{}(0.5)", constructor.name),
            ["lambda"] => format!("{}(0.9)", constructor.name),
            arguments => format!("{}({})", constructor.name, arguments.join(", ").replace("temperature", "T")),
        };
        let (one, (last, gradient)) = (value(&at(1.0).loss, dense()).0, value(&made.loss, dense()));
        let last = if tempered { format!("{last:.4}") } else { "-".into() };
        let gradient = gradient / value(&made.house, dense()).1;
        let form = made.form;
        writeln!(table, "| `{call}` | {form} | {scale} | {denominator} | {one:.4} | {last} | {gradient:.4} |")
            .expect("a string takes all");
    }
    table
}

/// The table of what becomes of a top k's tail, in Markdown.
pub(crate) fn tails() -> String {
    let mut table = String::from("| teacher | T = 1 | T = 2 |\n|---|---|---|\n");
    let logits = batch(&Device::flex()).1.flatten::<2>(0, 1);
    let sparse = |tail| SparseLogits::from_dense(logits.clone(), 2, tail).expect("2 of 4 classes");
    let mut row = |name: &str, teacher: TeacherLogits| {
        let at = |temperature: f64| {
            let loss = KdLossConfig::new().with_temperature(temperature).init().expect("a temperature in range");
            value(&Loss::Kd(loss), teacher.clone()).0
        };
        writeln!(table, "| {name} | {:.4} | {:.4} |", at(1.0), at(2.0)).expect("a string takes all");
    };
    row("all four classes", dense());
    for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
        row(&format!("`Tail::{tail:?}`"), sparse(tail).into());
    }
    table
}
