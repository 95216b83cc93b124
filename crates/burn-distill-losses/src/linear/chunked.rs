//! The loop over chunks of tokens.

use burn::tensor::{DType, Int, Tensor};

use super::{LinearHead, LinearTeacher};
use crate::{
    ConfigError, Convention, KernelPath, Mask, Reduction, TeacherLogits, VocabularyPolicy,
    align::{assert_rows, flatten_targets},
    convention::Divisor,
    divergence::target_cross_entropy,
    fused::{Divergence, row_weights, with_gradient},
    precision::widen,
    tempered::Tempered,
};

/// A divergence on logits, as the loop needs it.
pub(super) trait LogitDivergence {
    /// What a kernel computes.
    fn kernel(&self) -> Divergence;

    /// The rows composed of tensor operations, times temperature squared; 0 for masked-out rows.
    fn composed(&self, student_logits: Tensor<2>, teacher_logits: TeacherLogits, mask: &Mask) -> Tensor<1>;
}

/// The settings that all linear losses share.
#[derive(Debug, Clone)]
pub(super) struct Chunked {
    tempered: Tempered,
    reduction: Reduction,
    soft_weight: f64,
    hard_weight: f64,
    chunk_tokens: Option<usize>,
}

/// Gradients of the student's side; sums over chunks are in f32 at least.
#[derive(Default)]
struct Gradients {
    hidden: Vec<Tensor<2>>,
    weight: Option<Tensor<2>>,
    bias: Option<Tensor<1>>,
}

impl Chunked {
    pub(super) fn new(
        temperature: f64,
        [soft_weight, hard_weight]: [f64; 2],
        reduction: Reduction,
        vocabulary: VocabularyPolicy,
        chunk_tokens: Option<usize>,
    ) -> Result<Self, ConfigError> {
        ConfigError::unless(chunk_tokens != Some(0), "chunk_tokens", "[1, inf)", 0.0)?;
        Ok(Self {
            tempered: Tempered::new(temperature, reduction, vocabulary)?.under(Convention::default()),
            reduction,
            soft_weight: ConfigError::check_weight("soft_weight", soft_weight)?,
            hard_weight: ConfigError::check_weight("hard_weight", hard_weight)?,
            chunk_tokens,
        })
    }

    #[track_caller]
    pub(super) fn at(&self, temperature: f64) -> Self {
        Self { tempered: self.tempered.at(temperature), ..self.clone() }
    }

    pub(super) fn forward(
        &self,
        divergence: &impl LogitDivergence,
        student: LinearHead,
        teacher: LinearTeacher,
        targets: Option<Tensor<1, Int>>,
        mask: &Mask,
    ) -> Tensor<1> {
        let [tokens, width, _] = student.dims();
        assert_rows(tokens, teacher.rows());
        mask.check_height(tokens);
        assert!(
            targets.is_some() || self.hard_weight == 0.0,
            "`targets` are needed where `hard_weight` is not 0, got {}",
            self.hard_weight
        );
        let targets = targets.map(|targets| flatten_targets(targets, tokens, mask).reshape([tokens]));
        let weights = row_weights(mask, &student.hidden.device());
        let weights = Divisor::EachRow(1.0).weights(weights, tokens, self.reduction, mask);

        let wanted = Wanted {
            hidden: student.hidden.is_tracked(),
            weight: student.weight.is_tracked(),
            bias: student.bias.as_ref().is_some_and(|bias| bias.is_tracked()),
        };
        let (own, teacher) = (student.clone().without_autodiff(), teacher.without_autodiff());
        let mut gradients = Gradients::default();
        let mut value: Option<Tensor<1>> = None;
        // A chunk of `width` tokens has logits as large as the gradient of the projection, which is there anyway: a
        // smaller one would save little and add to that gradient more often.
        let most = self.chunk_tokens.unwrap_or(width.max(64)).max(1);
        let chunk = tokens.div_ceil(tokens.div_ceil(most).max(1)).max(1);
        for start in (0..tokens).step_by(chunk) {
            let count = chunk.min(tokens - start);
            let rows = Rows {
                student: own.logits(start, count),
                teacher: teacher.logits(start, count),
                targets: targets.clone().map(|targets| targets.narrow(0, start, count)),
                weights: if weights.dims()[0] == 1 { weights.clone() } else { weights.clone().narrow(0, start, count) },
                mask: mask.narrow(start, count),
            };
            let (sum, gradient) = self.rows(divergence, rows, wanted.any());
            value = Some(match value {
                Some(value) => value + sum,
                None => sum,
            });
            if let Some(gradient) = gradient {
                gradients.add(&wanted, &own, gradient, start, count);
            }
        }
        let value = value.unwrap_or_else(|| Tensor::zeros([1], (&own.hidden.device(), DType::F32)));
        gradients.attach(value, student)
    }

    /// The weighted sum of some rows, `[1]`, and its gradient to their logits.
    fn rows(&self, divergence: &impl LogitDivergence, rows: Rows, gradient: bool) -> (Tensor<1>, Option<Tensor<2>>) {
        let weights = [self.soft_weight, self.hard_weight];
        let classes = self.tempered.classes(rows.student.dims()[1], &rows.teacher);
        let kernel = self.tempered.kernel(&rows.student, &rows.teacher, Some(divergence.kernel()), weights);
        log::debug!("linear distillation: {}", KernelPath::from(&kernel));
        match kernel {
            Ok(kernel) if gradient => {
                let (values, gradient) = kernel.gradient(rows.student, rows.teacher, rows.weights, rows.targets);
                (values.sum(), Some(gradient))
            }
            Ok(kernel) => (kernel.rows(rows.student, rows.teacher, rows.weights, rows.targets).sum(), None),
            Err(_) => {
                let logits = if gradient { rows.student.autodiff().require_grad() } else { rows.student };
                let mut values =
                    divergence.composed(logits.clone(), rows.teacher, &rows.mask).mul_scalar(self.soft_weight);
                if let Some(targets) = rows.targets.filter(|_| self.hard_weight != 0.0) {
                    let compared = logits.clone().narrow(1, 0, classes);
                    let filled = rows.mask.fill_rows(widen(compared), 0.0);
                    let hard = rows.mask.zero(target_cross_entropy(filled, targets.unsqueeze_dim(1)));
                    values = values + hard.mul_scalar(self.hard_weight);
                }
                let weights = rows.weights.cast(values.dtype());
                let sum = (values * weights).sum();
                if !gradient {
                    return (sum, None);
                }
                let gradient = logits.grad(&sum.backward()).map(Tensor::without_autodiff);
                (sum.without_autodiff(), gradient)
            }
        }
    }
}

/// A chunk of rows.
struct Rows {
    student: Tensor<2>,
    teacher: TeacherLogits,
    targets: Option<Tensor<1, Int>>,
    weights: Tensor<1>,
    mask: Mask,
}

/// Which of the student's tensors take a gradient.
struct Wanted {
    hidden: bool,
    weight: bool,
    bias: bool,
}

impl Wanted {
    fn any(&self) -> bool {
        self.hidden || self.weight || self.bias
    }
}

impl Gradients {
    /// Adds what the gradient `[count, vocabulary]` of the logits of a chunk says.
    fn add(&mut self, wanted: &Wanted, own: &LinearHead, gradient: Tensor<2>, start: usize, count: usize) {
        if wanted.hidden {
            self.hidden.push(gradient.clone().matmul(own.weight.clone()));
        }
        if wanted.bias {
            let part = widen(gradient.clone().sum_dim(0).squeeze_dim(0));
            self.bias = Some(plus(self.bias.take(), part));
        }
        if wanted.weight {
            let hidden = own.hidden.clone().narrow(0, start, count);
            let part = widen(gradient.transpose().matmul(hidden));
            self.weight = Some(plus(self.weight.take(), part));
        }
    }

    /// `value` with these gradients.
    fn attach(self, value: Tensor<1>, student: LinearHead) -> Tensor<1> {
        let none = value.zeros_like();
        let mut loss = value;
        if !self.hidden.is_empty() {
            let gradient = Tensor::cat(self.hidden, 0);
            loss = with_gradient(loss, student.hidden, gradient);
        }
        if let Some(gradient) = self.weight {
            let gradient = gradient.cast(student.weight.dtype());
            loss = loss + with_gradient(none.clone(), student.weight, gradient);
        }
        if let (Some(gradient), Some(bias)) = (self.bias, student.bias) {
            let gradient = gradient.cast(bias.dtype());
            loss = loss + with_gradient(none, bias, gradient);
        }
        loss
    }
}

fn plus<const D: usize>(sum: Option<Tensor<D>>, part: Tensor<D>) -> Tensor<D> {
    match sum {
        Some(sum) => sum + part,
        None => part,
    }
}
