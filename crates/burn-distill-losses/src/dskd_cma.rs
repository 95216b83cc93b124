use burn::{
    config::Config,
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Bool, DType, Device, Int, Tensor, activation::softmax},
};

use crate::{
    ConfigError, Mask, OutputSpace, Reduction,
    align::flatten_targets,
    divergence::{jensen_shannon, kl, target_cross_entropy},
    error::expect_temperature,
    floor::{FLOOR, log_softmax},
    learned::linear,
    precision::{constant, widen},
};

/// One model's [`OutputSpace`] and the embeddings of its own tokens: input of [`DskdCmaLoss`].
#[derive(Debug, Clone)]
pub struct EmbeddedSpace {
    /// Hidden states, logits and head.
    pub output: OutputSpace,
    /// The model's embeddings of the tokens it reads `[batch, tokens, width]`.
    pub input_embeddings: Tensor<3>,
    /// The model's embeddings of the tokens it is to predict `[batch, tokens, width]`.
    pub target_embeddings: Tensor<3>,
    /// Which tokens count `[batch, tokens]`, true = counts; `None`: all. Each side has its own, for its own tokens.
    pub mask: Option<Tensor<2, Bool>>,
}

/// Configuration of [`DskdCmaLoss`].
#[derive(Config, Debug)]
pub struct DskdCmaLossConfig {
    /// Width of the student's hidden states and embeddings, in [1, inf).
    pub student_width: usize,
    /// Width of the teacher's hidden states and embeddings, in [1, inf).
    pub teacher_width: usize,
    /// Temperature of the two divergences, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// Which divergence the student's space takes, in [0, 1], as [`JsdLoss`](crate::JsdLoss): 0 is the forward KL, 1 the
    /// reverse. The teacher's space always takes the forward KL.
    #[config(default = 0.0)]
    pub beta: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl DskdCmaLossConfig {
    /// The loss, with fresh projections on `device`.
    ///
    /// # Errors
    /// If a width is 0, `temperature` is not in (0, inf) or `beta` is not in [0, 1].
    pub fn init(&self, device: &Device) -> Result<DskdCmaLoss, ConfigError> {
        let student = ConfigError::check_count("student_width", self.student_width)?;
        let teacher = ConfigError::check_count("teacher_width", self.teacher_width)?;
        Ok(DskdCmaLoss {
            teacher_to_student: LinearConfig::new(teacher, student).init(device),
            student_to_teacher: LinearConfig::new(student, teacher).init(device),
            query: LinearConfig::new(2 * student, 2 * teacher).init(device),
            temperature: ConfigError::check_temperature(self.temperature)?,
            beta: ConfigError::unless((0.0..=1.0).contains(&self.beta), "beta", "[0, 1]", self.beta)?,
            reduction: self.reduction,
        })
    }
}

/// Dual-space knowledge distillation by cross-model attention: [`DskdLoss`](crate::DskdLoss) for two tokenizers, whose
/// tokens a learned attention aligns.
///
/// ```text
/// query_S = P_q([embedded input, embedded target]_S)      key_T = [embedded input, embedded target]_T / std
/// A = query_S key_Tᵀ / √(2 teacher width)                  over unmasked tokens
/// student space:  t = head_S(softmax(A) P_t→s(hidden_T / std + target_T / std))
///     loss_S = mean over student tokens of  cross-entropy(t, target) + [argmax t = target] T² D(softmax(t / T), q)
/// teacher space:  s = head_T(softmax(Aᵀ) P_s→t(hidden_S))
///     loss_T = mean over teacher tokens of  T² KL(p || softmax(s / T))
/// loss = loss_S + loss_T;    p, q: the models' own distributions at T;  D: forward KL, or another by beta
/// ```
///
/// A student token learns from the projected teacher only where that predicts the right token. Each std is that of all
/// unmasked numbers of its tensor in the batch, so the samples of a batch are not quite independent.
///
/// **Scale**: nats; the divergences times temperature squared, which the authors leave out. Each space is averaged over its
/// own unmasked tokens; the authors divide the teacher space's sum by the number of *student* tokens too. They take each
/// std over padding as well, where they embed token 0; without padding it is the same. `forward_no_reduction` gives for
/// each sample its share, so that the mean over samples is the loss.
///
/// # Shapes
/// - `student`, `teacher`: [`EmbeddedSpace`]s of the same batch, each with its own tokens, width and classes;
/// - `targets`: the student's tokens to predict `[batch, student tokens]`; masked-out ones are not read;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To the student's `hidden` and `logits` and to the three projections. None to a head or to embeddings.
///
/// # Errors
/// [`DskdCmaLossConfig::init`] if a field is out of its range.
///
/// # Panics
/// `forward` if the shapes do not fit.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::{DskdCmaLossConfig, EmbeddedSpace, OutputSpace};
///
/// let device = Device::flex();
/// let space = |tokens, width, logits: [f32; 2]| EmbeddedSpace {
///     output: OutputSpace {
///         hidden: Tensor::zeros([1, tokens, width], &device),
///         logits: Tensor::<3>::from_floats([[logits]], &device).expand([1, tokens, 2]),
///         head: Tensor::zeros([width, 2], &device),
///     },
///     input_embeddings: Tensor::zeros([1, tokens, width], &device),
///     target_embeddings: Tensor::zeros([1, tokens, width], &device),
///     mask: None,
/// };
/// let loss = DskdCmaLossConfig::new(2, 3).init(&device)?;
/// let target = Tensor::<2, Int>::from_ints([[0, 1, 1]], &device);
/// // Three tokens of the student, five of the teacher. Heads of zeros say (1/2, 1/2), of which the first is the argmax, so
/// // one token of three is right: ln 2, a third of KL to the student's (3/4, 1/4), 0.143841, and the teacher's 0.130812.
/// let (student, teacher) = (space(3, 2, [3f32.ln(), 0.0]), space(5, 3, [3f32.ln(), 0.0]));
/// let value = loss.forward(student, teacher, target).into_scalar::<f64>();
/// assert!((value - (0.693147 + 0.143841 / 3.0 + 0.130812)).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zhang et al., *Dual-Space Knowledge Distillation for Large Language Models*, 2024, arXiv 2406.17328, section 3.2.
/// - Reference code: songmzhang/DSKD `code/criterions/dual_space_kd_with_cross_model_attention.py` at 077337ac.
#[derive(Module, Debug)]
pub struct DskdCmaLoss {
    teacher_to_student: Linear,
    student_to_teacher: Linear,
    query: Linear,
    temperature: f64,
    beta: f64,
    #[module(skip)]
    reduction: Reduction,
}

impl DskdCmaLoss {
    /// The same loss at another temperature, for schedules; its projections are the same parameters.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The share of each sample, `[batch]`.
    pub fn forward_no_reduction(
        &self,
        student: EmbeddedSpace,
        teacher: EmbeddedSpace,
        targets: Tensor<2, Int>,
    ) -> Tensor<1> {
        let (batch, teacher_batch) = (student.output.hidden.dims()[0], teacher.output.hidden.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let dtype = widen(student.output.hidden.clone()).dtype();
        let teacher = EmbeddedSpace { output: teacher.output.of_teacher(&student.output.hidden), ..teacher };
        let (student, teacher) = (Side::new(student, dtype), Side::new(teacher, dtype));
        let targets = flatten_targets(targets, batch * student.tokens, &student.mask);
        let tempered = |logits| log_softmax(logits, self.temperature);
        let squared = self.temperature.powi(2);

        let scores = self.alignment(&student, &teacher);
        let said = teacher.unit(teacher.hidden.clone()) + teacher.unit(teacher.target.clone());
        let projected =
            teacher.attended(scores.clone(), linear(&self.teacher_to_student, said)).matmul(student.head.clone());
        let task = target_cross_entropy(projected.clone(), targets.clone());
        let projected = projected.without_autodiff();
        let predicted = projected.clone().argmax(1);
        let wrong = predicted.clone().not_equal(targets.cast(predicted.dtype())).squeeze_dim::<1>(1);
        let own = jensen_shannon(tempered(student.logits.clone()), tempered(projected), self.beta);
        let own = own.mul_scalar(squared).mask_fill(wrong, 0.0) + task;

        let values = linear(&self.student_to_teacher, student.hidden.clone());
        let projected = student.attended(scores.swap_dims(1, 2), values).matmul(teacher.head.clone());
        let theirs = kl(tempered(teacher.logits.clone()), tempered(projected)).mul_scalar(squared);
        student.share(own) + teacher.share(theirs)
    }

    /// How much each of the student's tokens resembles each of the teacher's, `[batch, student tokens, teacher tokens]`.
    fn alignment(&self, student: &Side, teacher: &Side) -> Tensor<3> {
        let query = linear(&self.query, Tensor::cat(vec![student.input.clone(), student.target.clone()], 1));
        let key = teacher.unit(Tensor::cat(vec![teacher.input.clone(), teacher.target.clone()], 1));
        let width = key.dims()[1] as f64;
        student.in_batch(query).matmul(teacher.in_batch(key).swap_dims(1, 2)).div_scalar(width.sqrt())
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: EmbeddedSpace, teacher: EmbeddedSpace, targets: Tensor<2, Int>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, targets), &Mask::from(None))
    }
}

/// One model's side with its tokens as rows; masked-out rows are 0.
struct Side {
    hidden: Tensor<2>,
    logits: Tensor<2>,
    head: Tensor<2>,
    input: Tensor<2>,
    target: Tensor<2>,
    mask: Mask,
    batch: usize,
    tokens: usize,
}

impl Side {
    #[track_caller]
    fn new(space: EmbeddedSpace, dtype: DType) -> Self {
        let dims = space.output.hidden.dims();
        let [batch, tokens, width] = dims;
        let mask = Mask::from(space.mask.map(|mask| mask.flatten::<1>(0, 1)));
        let embedded = |embeddings: Tensor<3>| {
            assert_eq!(embeddings.dims(), dims, "embeddings must have the shape of `hidden`");
            mask.fill_rows(constant(embeddings, dtype).reshape([batch * tokens, width]), 0.0)
        };
        let (input, target) = (embedded(space.input_embeddings), embedded(space.target_embeddings));
        let [hidden, logits, head] = space.output.rows(&mask);
        Self { hidden, logits, head, input, target, mask, batch, tokens }
    }

    /// `[tokens, width]` as `[batch, tokens, width]`.
    fn in_batch(&self, rows: Tensor<2>) -> Tensor<3> {
        let width = rows.dims()[1];
        rows.reshape([self.batch, self.tokens, width])
    }

    fn unit(&self, rows: Tensor<2>) -> Tensor<2> {
        unit_deviation(rows, &self.mask)
    }

    /// What the other side's tokens read from `values` of this side's unmasked tokens, by scores `[batch, other tokens,
    /// tokens]`, as rows.
    fn attended(&self, scores: Tensor<3>, values: Tensor<2>) -> Tensor<2> {
        let dims = scores.dims();
        let scores = match self.mask.rows() {
            Some(rows) => {
                let hidden = rows.clone().bool_not().reshape([self.batch, 1, self.tokens]);
                scores.mask_fill(hidden.expand(dims), FLOOR)
            }
            None => scores,
        };
        softmax(scores, 2).matmul(self.in_batch(values)).flatten(0, 1)
    }

    /// Of the mean over all unmasked tokens what each sample has part in, times the batch, `[batch]`.
    fn share(&self, rows: Tensor<1>) -> Tensor<1> {
        let rows = self.mask.zero(rows);
        let count = self.mask.count(&rows);
        rows.reshape([self.batch, self.tokens]).sum_dim(1).squeeze_dim::<1>(1).mul_scalar(self.batch as f64) / count
    }
}

/// `rows` over the standard deviation (n - 1) of all their unmasked numbers; masked-out rows are 0 and stay so, as do rows
/// without any deviation.
fn unit_deviation(rows: Tensor<2>, mask: &Mask) -> Tensor<2> {
    let weights = mask.weights(&rows);
    let width = rows.dims()[1] as f64;
    let count = weights.clone().sum().mul_scalar(width);
    let mean = rows.clone().sum() / count.clone().clamp_min(1.0);
    let centred = (rows.clone() - mean.unsqueeze()) * weights;
    let variance = centred.square().sum() / count.sub_scalar(1.0).clamp_min(1.0);
    let flat = variance.clone().equal_scalar(0.0);
    rows / variance.mask_fill(flat, 1.0).sqrt().unsqueeze()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn space(tokens: usize, width: usize, classes: usize, device: &Device) -> EmbeddedSpace {
        let random = |shape| Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), device);
        EmbeddedSpace {
            output: OutputSpace {
                hidden: random([2, tokens, width]),
                logits: random([2, tokens, classes]),
                head: random([1, width, classes]).squeeze_dim(0),
            },
            input_embeddings: random([2, tokens, width]),
            target_embeddings: random([2, tokens, width]),
            mask: None,
        }
    }

    #[test]
    fn padding_may_hold_anything_and_changes_nothing() {
        let device = Device::flex();
        device.seed(9);
        let loss = DskdCmaLossConfig::new(3, 4).init(&device).unwrap();
        let (student, teacher) = (space(3, 3, 5, &device), space(4, 4, 6, &device));
        let targets = Tensor::<2, Int>::from_ints([[1, 0, 4], [2, 2, 3]], &device);
        let expected = loss.forward_no_reduction(student.clone(), teacher.clone(), targets.clone());
        let padded = |space: EmbeddedSpace| {
            let pad = |tensor: Tensor<3>| {
                let [batch, _, width] = tensor.dims();
                Tensor::cat(vec![tensor, Tensor::full([batch, 2, width], f32::NAN, &device)], 1)
            };
            let tokens = space.input_embeddings.dims()[1];
            let flags = Tensor::cat(vec![Tensor::<2>::ones([2, tokens], &device), Tensor::zeros([2, 2], &device)], 1);
            let OutputSpace { hidden, logits, head } = space.output;
            let output = OutputSpace { hidden: pad(hidden), logits: pad(logits), head };
            EmbeddedSpace {
                output,
                input_embeddings: pad(space.input_embeddings),
                target_embeddings: pad(space.target_embeddings),
                mask: Some(flags.bool()),
            }
        };
        let longer = Tensor::cat(vec![targets, Tensor::full([2, 2], -100, &device)], 1);
        let got = loss.forward_no_reduction(padded(student), padded(teacher), longer);
        let apart = (got - expected).abs().max().into_scalar::<f64>();
        assert!(apart < 1e-5, "{apart}");
    }

    #[test]
    fn at_another_temperature_it_is_the_loss_configured_with_it() {
        let device = Device::flex();
        device.seed(3);
        let loss = DskdCmaLossConfig::new(3, 4).init(&device).unwrap();
        let (student, teacher) = (space(3, 3, 5, &device), space(4, 4, 6, &device));
        let targets = Tensor::<2, Int>::from_ints([[1, 0, 4], [2, 2, 3]], &device);
        let value =
            |loss: &DskdCmaLoss| loss.forward(student.clone(), teacher.clone(), targets.clone()).into_scalar::<f64>();
        let configured = DskdCmaLoss { temperature: 3.0, ..loss.clone() };
        assert_eq!(value(&loss.at_temperature(3.0)), value(&configured));
        assert_ne!(value(&configured), value(&loss));
    }

    #[test]
    fn equal_numbers_have_no_deviation_to_divide_by() {
        let device = Device::flex();
        let rows = unit_deviation(Tensor::<2>::full([2, 3], 4.0, &device), &Mask::from(None));
        assert!(rows.into_data().iter::<f32>().all(|number| number == 4.0));
        let rows = unit_deviation(Tensor::<2>::from_floats([[1.0, 3.0]], &device), &Mask::from(None));
        // Mean 2, squares 1 + 1 over n - 1.
        let deviation = 2f64.sqrt();
        let expected = [1.0 / deviation, 3.0 / deviation];
        assert!(rows.into_data().iter::<f64>().zip(expected).all(|(got, want)| (got - want).abs() < 1e-5));
    }
}
