use burn::{
    config::Config,
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Int, Tensor},
};

use crate::{
    ConfigError, Mask, Reduction,
    align::{flatten_rows, flatten_targets},
    divergence::{jensen_shannon, kl, target_cross_entropy},
    error::expect_temperature,
    floor::log_softmax,
    learned::linear,
    precision::{constant, widen},
};

/// A model's last hidden states, its logits, and the output head that leads from one to the other: input of [`DskdLoss`]
/// and [`DskdCmaLoss`](crate::DskdCmaLoss).
#[derive(Debug, Clone)]
pub struct OutputSpace {
    /// Hidden states before the head `[batch, tokens, width]`.
    pub hidden: Tensor<3>,
    /// The model's own logits `[batch, tokens, classes]`.
    pub logits: Tensor<3>,
    /// The head's weight `[width, classes]`, as Burn's `Linear` holds it; a tied embedding's is transposed.
    pub head: Tensor<2>,
}

impl OutputSpace {
    /// `[tokens, width]`, `[tokens, classes]` and `[width, classes]`; masked-out tokens are 0, the head is a constant.
    pub(crate) fn rows(self, mask: &Mask) -> [Tensor<2>; 3] {
        let ([batch, tokens, width], [logit_batch, logit_tokens, classes]) = (self.hidden.dims(), self.logits.dims());
        assert_eq!([batch, tokens], [logit_batch, logit_tokens], "`hidden` and `logits` must have the same tokens");
        assert_eq!(self.head.dims(), [width, classes], "`head` must be [width, classes]");
        let hidden = mask.fill_rows(flatten_rows(self.hidden), 0.0);
        let logits = mask.fill_rows(flatten_rows(self.logits), 0.0);
        let head = constant(self.head, hidden.dtype());
        [hidden, logits, head]
    }

    /// The same without gradient, in the type of the student's.
    pub(crate) fn of_teacher(self, student: &Tensor<3>) -> Self {
        let dtype = widen(student.clone()).dtype();
        Self {
            hidden: constant(self.hidden, dtype),
            logits: constant(self.logits, dtype),
            head: constant(self.head, dtype),
        }
    }
}

/// Configuration of [`DskdLoss`].
#[derive(Config, Debug)]
pub struct DskdLossConfig {
    /// Width of the student's hidden states, in [1, inf).
    pub student_width: usize,
    /// Width of the teacher's hidden states, in [1, inf).
    pub teacher_width: usize,
    /// Temperature of the two divergences, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// Which divergence the student's space takes, in [0, 1], as [`JsdLoss`](crate::JsdLoss): 0 is the forward KL, 1 the
    /// reverse. The teacher's space always takes the forward KL.
    #[config(default = 0.0)]
    pub beta: f64,
    /// How tokens become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl DskdLossConfig {
    /// The loss, with fresh projections on `device`.
    ///
    /// # Errors
    /// If a width is 0, `temperature` is not in (0, inf) or `beta` is not in [0, 1].
    pub fn init(&self, device: &Device) -> Result<DskdLoss, ConfigError> {
        let student = ConfigError::check_count("student_width", self.student_width)?;
        let teacher = ConfigError::check_count("teacher_width", self.teacher_width)?;
        Ok(DskdLoss {
            teacher_to_student: LinearConfig::new(teacher, student).init(device),
            student_to_teacher: LinearConfig::new(student, teacher).init(device),
            temperature: ConfigError::check_temperature(self.temperature)?,
            beta: ConfigError::unless((0.0..=1.0).contains(&self.beta), "beta", "[0, 1]", self.beta)?,
            reduction: self.reduction,
        })
    }
}

/// Dual-space knowledge distillation: each model's hidden states, projected into the other's space, pass through the
/// other's head, and distributions are compared that come from one head.
///
/// ```text
/// student space:  t = head_S(P_t→s(hidden_T))                  loss_S = D(softmax(t / T), q) + cross-entropy(t, target)
/// teacher space:  s = head_T(P_s→t(hidden_S))                  loss_T = KL(p || softmax(s / T))
/// loss = mean over unmasked tokens of  T² D + cross-entropy + T² KL
/// p, q: the models' own distributions at T;  D: forward KL, or another by beta
/// ```
///
/// For two models of one tokenizer; [`DskdCmaLoss`](crate::DskdCmaLoss) is for two. The projections are parameters of the
/// loss, trained with the student: the one into the student's space by the cross-entropy (the divergence does not move
/// it), the other by the teacher's distribution.
///
/// **Scale**: nats; the divergences times temperature squared, which the authors leave out; mean over unmasked tokens. The
/// authors' cross-entropy of the student itself and their weights between it and this are terms of the objective.
///
/// # Shapes
/// - `student`, `teacher`: [`OutputSpace`]s of the same batch and tokens; their classes may differ by padding;
/// - `targets`: the tokens to predict `[batch, tokens]`, in the student's vocabulary;
/// - `mask`: a boolean per token, true = counts. The target of a masked-out token is not read: it may be -100;
/// - value: `[1]`, or `[batch · tokens]` from `forward_no_reduction`, where a masked-out token is 0.
///
/// # Gradients
/// To the student's `hidden` (by the teacher's space) and `logits` (by its own), and to the projections. None to a head: the
/// student's is trained through its logits.
///
/// # Errors
/// [`DskdLossConfig::init`] if a field is out of its range.
///
/// # Panics
/// `forward` if the shapes do not fit.
///
/// # Example
/// ```
/// use burn::{module::Module, tensor::{Device, Int, Tensor}};
/// use burn_distill_losses::{DskdLossConfig, OutputSpace};
///
/// let device = Device::flex();
/// let space = |logits| OutputSpace {
///     hidden: Tensor::zeros([1, 1, 3], &device),
///     logits: Tensor::<3>::from_floats([[logits]], &device),
///     head: Tensor::zeros([3, 2], &device),
/// };
/// let loss = DskdLossConfig::new(3, 3).init(&device)?;
/// let target = Tensor::<2, Int>::from_ints([[0]], &device);
/// // A head of zeros says (1/2, 1/2): KL to the student's (3/4, 1/4) is 0.5 ln (4/3) = 0.143841, the cross-entropy ln 2, and
/// // the KL from the teacher's (3/4, 1/4) is 0.130812.
/// let (student, teacher) = (space([3f32.ln(), 0.0]), space([3f32.ln(), 0.0]));
/// let value = loss.forward(student, teacher, target, None).into_scalar::<f64>();
/// assert!((value - (0.143841 + 0.693147 + 0.130812)).abs() < 1e-5);
/// assert_eq!(loss.num_params(), 24);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Zhang et al., *Dual-Space Knowledge Distillation for Large Language Models*, 2024, arXiv 2406.17328, section 3.1.
/// - Reference code: songmzhang/DSKD `code/criterions/dual_space_kd.py` at 077337ac.
#[derive(Module, Debug)]
pub struct DskdLoss {
    teacher_to_student: Linear,
    student_to_teacher: Linear,
    temperature: f64,
    beta: f64,
    #[module(skip)]
    reduction: Reduction,
}

impl DskdLoss {
    /// The same loss at another temperature, for schedules; its projections are the same parameters.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each token, `[batch · tokens]`.
    pub fn forward_no_reduction(
        &self,
        student: OutputSpace,
        teacher: OutputSpace,
        targets: Tensor<2, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let ([batch, tokens, _], [teacher_batch, teacher_tokens, _]) = (student.hidden.dims(), teacher.hidden.dims());
        assert_eq!(
            [batch, tokens],
            [teacher_batch, teacher_tokens],
            "`student` and `teacher` must have the same batch and tokens"
        );
        let targets = flatten_targets(targets, batch * tokens, &mask);
        let teacher = teacher.of_teacher(&student.hidden);
        let [hidden, logits, head] = student.rows(&mask);
        let [teacher_hidden, teacher_logits, teacher_head] = teacher.rows(&mask);

        let in_student_space = linear(&self.teacher_to_student, teacher_hidden).matmul(head);
        let task = target_cross_entropy(in_student_space.clone(), targets);
        let tempered = |logits| log_softmax(logits, self.temperature);
        let own = jensen_shannon(tempered(logits), tempered(in_student_space.without_autodiff()), self.beta);
        let in_teacher_space = linear(&self.student_to_teacher, hidden).matmul(teacher_head);
        let theirs = kl(tempered(teacher_logits), tempered(in_teacher_space));
        mask.zero((own + theirs).mul_scalar(self.temperature.powi(2)) + task)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(
        &self,
        student: OutputSpace,
        teacher: OutputSpace,
        targets: Tensor<2, Int>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student, teacher, targets, mask.clone()), &mask)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn the_divergence_in_the_students_space_does_not_move_the_projection() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let loss = DskdLossConfig::new(2, 3).init(&device).unwrap();
        let random = |shape| Tensor::<3>::random(shape, Distribution::Default, &device);
        let student = OutputSpace {
            hidden: random([1, 2, 2]).require_grad(),
            logits: random([1, 2, 4]).require_grad(),
            head: random([1, 2, 4]).squeeze_dim::<2>(0).require_grad(),
        };
        let teacher = OutputSpace {
            hidden: random([1, 2, 3]).require_grad(),
            logits: random([1, 2, 5]),
            head: random([1, 3, 5]).squeeze_dim::<2>(0).require_grad(),
        };
        let gradient = |scale: f64| {
            let student = OutputSpace { logits: student.logits.clone().mul_scalar(scale), ..student.clone() };
            let targets = Tensor::<2, Int>::from_ints([[1, 3]], &device);
            let gradients = loss.forward(student.clone(), teacher.clone(), targets, None).backward();
            assert!(student.head.grad(&gradients).is_none() && teacher.head.grad(&gradients).is_none());
            assert!(teacher.hidden.grad(&gradients).is_none());
            loss.teacher_to_student.weight.grad(&gradients).unwrap().into_data()
        };
        // The student's logits do not reach the projection: other logits, the same gradient.
        assert_eq!(gradient(1.0), gradient(3.0));
    }

    #[test]
    fn at_another_temperature_the_projections_are_the_same_parameters() {
        let device = Device::flex().autodiff();
        device.seed(2);
        let loss = DskdLossConfig::new(2, 3).init(&device).unwrap();
        let random = |shape| Tensor::<3>::random(shape, Distribution::Default, &device);
        let side = |width| OutputSpace {
            hidden: random([1, 2, width]),
            logits: random([1, 2, 4]),
            head: random([1, width, 4]).squeeze_dim::<2>(0),
        };
        let (student, teacher) = (side(2), side(3));
        let targets = Tensor::<2, Int>::from_ints([[1, 3]], &device);
        let value = |loss: &DskdLoss| loss.forward(student.clone(), teacher.clone(), targets.clone(), None);
        let configured = DskdLoss { temperature: 3.0, ..loss.clone() };
        let moved = value(&loss.at_temperature(3.0));
        assert_eq!(moved.clone().into_scalar::<f64>(), value(&configured).into_scalar::<f64>());
        assert_ne!(moved.clone().into_scalar::<f64>(), value(&loss).into_scalar::<f64>());
        assert!(loss.student_to_teacher.weight.grad(&moved.backward()).is_some());
    }

    #[test]
    fn fields_out_of_range_are_refused() {
        let device = Device::flex();
        let message = |config: DskdLossConfig| config.init(&device).unwrap_err().to_string();
        assert_eq!(message(DskdLossConfig::new(0, 2)), "`student_width` must be in [1, inf), got 0");
        assert_eq!(message(DskdLossConfig::new(2, 0)), "`teacher_width` must be in [1, inf), got 0");
        assert_eq!(message(DskdLossConfig::new(2, 2).with_beta(-0.5)), "`beta` must be in [0, 1], got -0.5");
    }
}
