use burn::{
    config::Config,
    module::{Module, RunningState},
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor, activation::softplus},
};

use crate::{
    ConfigError, CrdNegatives, Mask, Reduction,
    floor::{FLOOR, log_sum_exp},
    learned::{in_type, linear},
    memory::Memory,
    negatives::Pool,
    norm::l2_normalize,
    precision::features,
    sp::flatten_samples,
};

/// What the authors' code adds to the probability of noise.
const EPSILON: f64 = 1e-7;

/// Configuration of [`CrdLoss`].
#[derive(Config, Debug)]
pub struct CrdLossConfig {
    /// Elements of a student's embedding, in [1, inf).
    pub student_width: usize,
    /// Elements of a teacher's embedding, in [1, inf).
    pub teacher_width: usize,
    /// Samples of the training set, in [1, inf): the memory has a row for each.
    pub samples: usize,
    /// Elements of an embedding after the projection, in [1, inf).
    #[config(default = 128)]
    pub width: usize,
    /// How many negatives are drawn for each sample, in [1, inf).
    #[config(default = 16384)]
    pub negatives: usize,
    /// Temperature that divides similarities, in (0, inf).
    #[config(default = 0.07)]
    pub temperature: f64,
    /// How much of a remembered embedding stays when its sample is seen again, in [0, 1].
    #[config(default = 0.5)]
    pub momentum: f64,
    /// Seed of the negatives.
    #[config(default = 0)]
    pub seed: u64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl CrdLossConfig {
    /// The loss, with fresh weights and a random memory on `device`, and negatives from all samples.
    ///
    /// # Errors
    /// If a number is 0, `temperature` is not in (0, inf), or `momentum` is not in [0, 1].
    pub fn init(&self, device: &Device) -> Result<CrdLoss, ConfigError> {
        let student = ConfigError::check_count("student_width", self.student_width)?;
        let teacher = ConfigError::check_count("teacher_width", self.teacher_width)?;
        let samples = ConfigError::check_count("samples", self.samples)?;
        let width = ConfigError::check_count("width", self.width)?;
        let negatives = ConfigError::check_count("negatives", self.negatives)?;
        let temperature = ConfigError::check_temperature(self.temperature)?;
        let valid = (0.0..=1.0).contains(&self.momentum);
        let momentum = ConfigError::unless(valid, "momentum", "[0, 1]", self.momentum)?;
        Ok(CrdLoss {
            student_projection: LinearConfig::new(student, width).init(device),
            teacher_projection: LinearConfig::new(teacher, width).init(device),
            student_memory: Memory::new(samples, width, device),
            teacher_memory: Memory::new(samples, width, device),
            log_partition: RunningState::new(Tensor::full([2], FLOOR, device)),
            negatives,
            temperature,
            momentum,
            seed: self.seed,
            pool: Pool::all(samples),
            reduction: self.reduction,
        })
    }
}

/// Contrastive representation distillation (CRD): a sample's student embedding should be told by its teacher embedding
/// from those of many other samples, and the reverse.
///
/// ```text
/// s, t    = projection(embedding) / |projection(embedding)|₂ of student and teacher, one projection each
/// p(a, b) = exp(a · b / temperature) / Z
/// side(a, memory) = ln(1 + c / p(a, memory_own)) + Σ over m negatives j of ln((p(a, memory_j) + c) n / m)
/// loss    = mean over samples of  side(s, teacher memory) + side(t, student memory)
/// c = m / n + 1e-7,  n samples in the training set
/// ```
///
/// `memory_own` is the sample's own row. After each batch of the training the rows of its samples move to the new
/// embeddings: `momentum · row + (1 - momentum) · embedding`, at length 1 again. `Z`, one for each side, is `n` times the
/// mean of `exp(a · b / temperature)` over the first batch, and stays.
///
/// **Scale**: nats of a noise-contrastive classifier, summed over the negatives and over the two sides, averaged over
/// samples, as in the authors' code (the 1e-7 is theirs). The temperature is not squared and is no schedule's: it divides
/// similarities, not logits.
///
/// It holds the two projections, the two memories and Z: put it among the objective's parts, where they are saved and
/// resumed with the run, and where a batch that is skipped leaves no trace in them. The memories take
/// `2 · samples · width` numbers on the device and in each checkpoint.
///
/// Training is where the student's embeddings are on a device with gradients, as for batch normalisation. Elsewhere, in
/// validation, nothing moves, and as the samples have no row their own embedding on the other side stands for it;
/// `samples` then only seeds the draw. On several devices Burn averages their memories, so that a row moves by a part of
/// what it does on one.
///
/// # Negatives
/// [`CrdNegatives::at_step`] draws them from all samples, with replacement, and the sample itself may be among them: the
/// paper's product of the marginals, and the authors' code where it is given none. After
/// [`other_classes`](Self::other_classes) they come from other classes alone, none twice if there are enough, which the
/// authors' results have. A given tensor is taken as it is.
///
/// # Shapes
/// - `student`: `[batch, ..]`, `student_width` elements a sample; `teacher`: the same batch, `teacher_width` elements;
/// - `samples`: for each of the batch, its index in the training set;
/// - `negatives`: `[batch, any number]` if given;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` and both projections; none to the memories.
///
/// # Errors
/// [`CrdLossConfig::init`] if a number is 0, the temperature is not in (0, inf), or the momentum is not in [0, 1].
///
/// # Panics
/// `forward` if the batches differ, widths are not those of the configuration, or in training an index is not below
/// `samples`.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_distill_losses::{CrdLossConfig, CrdNegatives};
///
/// let device = Device::flex();
/// let config = CrdLossConfig::new(8, 16, 100).with_negatives(4).with_temperature(1e6);
/// let loss = config.init(&device)?;
/// let random = |width| Tensor::<2>::random([2, width], Distribution::Default, &device);
/// let value = loss.forward(random(8), random(16), &[3, 42], CrdNegatives::at_step(0)).into_scalar::<f64>();
/// // At so high a temperature nothing is told from anything: ln(1 + 4) + 4 ln(1 + 1/4) on each side.
/// assert!((value - 2.0 * (5f64.ln() + 4.0 * 1.25f64.ln())).abs() < 1e-4);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Tian, Krishnan, Isola, *Contrastive Representation Distillation*, 2020, arXiv 1910.10699, equations 17 to 19.
/// - Reference code: RepDistiller `crd/criterion.py`, `crd/memory.py` at b84f547c; negatives of other classes are those of
///   its `dataset/cifar100.py` (mode `exact`). It computes in probabilities where this stays in log space.
#[derive(Module, Debug)]
pub struct CrdLoss {
    student_projection: Linear,
    teacher_projection: Linear,
    student_memory: Memory,
    teacher_memory: Memory,
    /// ln Z of the student's and of the teacher's side, `[2]`; very negative until the first batch.
    log_partition: RunningState<Tensor<1>>,
    negatives: usize,
    temperature: f64,
    momentum: f64,
    #[module(skip)]
    seed: u64,
    #[module(skip)]
    pool: Pool,
    #[module(skip)]
    reduction: Reduction,
}

impl CrdLoss {
    /// The same loss with negatives from other classes than the sample's. `targets` are the classes of all training
    /// samples, in the order of their indices.
    ///
    /// # Panics
    /// If there is not one class for each sample, or all are the same.
    pub fn other_classes(self, targets: &[usize]) -> Self {
        let (given, samples) = (targets.len(), self.student_memory.samples());
        assert_eq!(given, samples, "`targets` has {given} classes for {samples} samples");
        Self { pool: Pool::other_classes(targets), ..self }
    }

    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student: Tensor<D>,
        teacher: Tensor<D>,
        samples: &[usize],
        negatives: impl Into<CrdNegatives>,
    ) -> Tensor<1> {
        let (batch, teacher_batch, indices) = (student.dims()[0], teacher.dims()[0], samples.len());
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        assert_eq!(batch, indices, "`student` has {batch} samples and `samples` {indices}");
        let device = student.device();
        let training = device.is_autodiff();
        let (student, teacher) = features(student, teacher);
        let student = l2_normalize(linear(&self.student_projection, flatten_samples(student)), 1);
        let teacher = l2_normalize(linear(&self.teacher_projection, flatten_samples(teacher)), 1);
        let dtype = student.dtype();
        let (own_student, own_teacher) = if training {
            (self.student_memory.of(samples, dtype), self.teacher_memory.of(samples, dtype))
        } else {
            (student.clone(), teacher.clone())
        };
        let negatives = match negatives.into() {
            CrdNegatives::Drawn { step } => {
                self.pool.draw(samples, training, self.negatives, (self.seed, step), &device)
            }
            CrdNegatives::Given(indices) => indices,
        };
        let given = negatives.dims()[0];
        assert_eq!(batch, given, "`student` has {batch} samples and `negatives` {given}");
        let scores = |anchor: &Tensor<2>, own: Tensor<2>, memory: &Memory| {
            let own = (anchor.clone() * own).sum_dim(1);
            let others = memory.products(anchor.clone(), negatives.clone());
            Tensor::cat(vec![own, others], 1).div_scalar(self.temperature)
        };
        let by_student = scores(&student, own_teacher, &self.teacher_memory);
        let by_teacher = scores(&teacher, own_student, &self.student_memory);
        let size = self.student_memory.samples();
        let log_partition = self.log_partition([&by_student, &by_teacher], size);
        if training {
            self.log_partition.update(log_partition.clone());
            self.student_memory.remember(samples, student, self.momentum);
            self.teacher_memory.remember(samples, teacher, self.momentum);
        }
        let log_partition = in_type(log_partition, dtype).reshape([1, 2]);
        let side = |scores, index| told_apart(scores - log_partition.clone().narrow(1, index, 1), size);
        side(by_student, 0) + side(by_teacher, 1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(
        &self,
        student: Tensor<D>,
        teacher: Tensor<D>,
        samples: &[usize],
        negatives: impl Into<CrdNegatives>,
    ) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, samples, negatives), &Mask::from(None))
    }

    /// ln Z of both sides, `[2]`, in the memory's type: as remembered, or that of these first scores.
    fn log_partition(&self, scores: [&Tensor<2>; 2], size: usize) -> Tensor<1> {
        let known = self.log_partition.value_sync();
        let estimates = scores.map(|scores| {
            let scores = scores.clone().detach();
            let count = scores.dims().iter().product::<usize>();
            log_sum_exp(scores.reshape([1, count])).add_scalar((size as f64 / count as f64).ln()).reshape([1])
        });
        let unknown = known.clone().lower_elem(FLOOR / 2.0);
        let estimates = in_type(Tensor::cat(estimates.to_vec(), 0), known.dtype());
        known.mask_where(unknown, estimates).detach()
    }
}

/// How well the own sample, first in `[batch, 1 + m]`, is told from the others by ln p, `[batch]`.
fn told_apart(log_p: Tensor<2>, size: usize) -> Tensor<1> {
    let [_, width] = log_p.dims();
    let others = width - 1;
    let noise = others as f64 / size as f64;
    let log_noise = (noise + EPSILON).ln();
    let own = softplus(log_p.clone().narrow(1, 0, 1).neg().add_scalar(log_noise), 1.0);
    let rest = softplus(log_p.narrow(1, 1, others).sub_scalar(log_noise), 1.0).sum_dim(1);
    let constant = others as f64 * (EPSILON / noise).ln_1p();
    (own + rest).add_scalar(constant).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::{
        module::{ModuleMapper, Param},
        tensor::{DType, Int, TensorData},
    };

    use super::*;

    /// Weights and memories that depend on their shape alone: tests that run beside each other share Burn's generator.
    fn loss(device: &Device) -> CrdLoss {
        struct Known;
        impl ModuleMapper for Known {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let (shape, options) = (tensor.dims(), (&tensor.device(), tensor.dtype()));
                    let count = shape.iter().product::<usize>();
                    if D == 1 && count == 2 {
                        return tensor; // ln Z, not known yet
                    }
                    let numbers: Vec<f64> = (0..count).map(|index| 0.5 * (1.0 + 1.7 * index as f64).sin()).collect();
                    Tensor::from_data(TensorData::new(numbers, shape), options)
                })
            }
        }
        let config = CrdLossConfig::new(3, 2, 6).with_width(4).with_negatives(5);
        config.init(device).unwrap().map(&mut Known)
    }

    fn batch(device: &Device) -> (Tensor<2>, Tensor<2>) {
        let student = Tensor::from_floats([[1.0, -0.5, 2.0], [0.3, 0.7, -1.0]], device);
        (student, Tensor::from_floats([[0.2, 1.0], [-1.5, 0.4]], device))
    }

    /// Everything the loss remembers.
    fn remembered(loss: &CrdLoss) -> [Vec<f32>; 3] {
        let rows = |memory: &Memory| memory.of(&[0, 1, 2, 3, 4, 5], DType::F32).into_data().try_to_vec().unwrap();
        let log_partition = loss.log_partition.value_sync().into_data().try_to_vec().unwrap();
        [rows(&loss.student_memory), rows(&loss.teacher_memory), log_partition]
    }

    #[test]
    fn rejects_what_is_out_of_range() {
        let message = |config: CrdLossConfig| config.init(&Device::flex()).unwrap_err().to_string();
        let config = CrdLossConfig::new(3, 2, 6);
        assert_eq!(message(CrdLossConfig::new(0, 2, 6)), "`student_width` must be in [1, inf), got 0");
        assert_eq!(message(CrdLossConfig::new(3, 0, 6)), "`teacher_width` must be in [1, inf), got 0");
        assert_eq!(message(CrdLossConfig::new(3, 2, 0)), "`samples` must be in [1, inf), got 0");
        assert_eq!(message(config.clone().with_width(0)), "`width` must be in [1, inf), got 0");
        assert_eq!(message(config.clone().with_negatives(0)), "`negatives` must be in [1, inf), got 0");
        assert_eq!(message(config.clone().with_temperature(0.0)), "`temperature` must be in (0, inf), got 0");
        assert_eq!(message(config.clone().with_momentum(1.5)), "`momentum` must be in [0, 1], got 1.5");
    }

    #[test]
    fn training_moves_the_rows_of_the_batch_and_no_other() {
        let device = Device::flex().autodiff();
        let loss = loss(&device);
        let before = remembered(&loss);
        let (student, teacher) = batch(&device);
        loss.forward(student, teacher, &[4, 1], CrdNegatives::at_step(0));
        let after = remembered(&loss);
        for side in 0..2 {
            for row in 0..6 {
                let row_of = |memory: &[Vec<f32>; 3]| memory[side][4 * row..4 * row + 4].to_vec();
                assert_eq!(row_of(&before) != row_of(&after), [1, 4].contains(&row), "row {row}");
                if [1, 4].contains(&row) {
                    let length: f32 = row_of(&after).iter().map(|x| x * x).sum();
                    assert!((length - 1.0).abs() < 1e-5, "{length}");
                }
            }
        }
        assert!(before[2].iter().all(|z| *z < -1e29) && after[2].iter().all(|z| z.abs() < 20.0), "{after:?}");
    }

    #[test]
    fn validation_moves_nothing_and_knows_no_index() {
        let device = Device::flex();
        let loss = loss(&device);
        let before = remembered(&loss);
        let (student, teacher) = batch(&device);
        let value = loss.forward(student, teacher, &[1000, 1], CrdNegatives::at_step(0)).into_scalar::<f32>();
        assert!(value.is_finite());
        assert_eq!(remembered(&loss), before);
    }

    #[test]
    fn validation_takes_the_other_side_for_the_own_row() {
        let device = Device::flex().autodiff();
        let training = loss(&device);
        let (student, teacher) = batch(&device);
        // Remember nothing but this batch, so that its rows are its embeddings.
        let training = CrdLoss { momentum: 0.0, ..training };
        training.forward(student.clone(), teacher.clone(), &[4, 1], CrdNegatives::at_step(0));
        let negatives = Tensor::<2, Int>::from_ints([[0, 2, 3], [5, 0, 2]], &device);
        let validation = training.valid();
        let inner = |tensor: &Tensor<2>| tensor.clone().inner();
        let validated = validation.forward(inner(&student), inner(&teacher), &[9, 9], negatives.clone().inner());
        let trained = training.forward(student, teacher, &[4, 1], negatives);
        let (validated, trained) = (validated.into_scalar::<f32>(), trained.into_scalar::<f32>());
        assert!((validated - trained).abs() < 1e-5, "{validated}, {trained}");
    }

    #[test]
    fn of_a_sample_that_is_twice_in_the_batch_the_last_one_counts() {
        let device = Device::flex().autodiff();
        let run = |samples: &[usize], rows: [i32; 2]| {
            let loss = loss(&device);
            let (student, teacher) = batch(&device);
            let rows = Tensor::<1, Int>::from_ints(&rows[..samples.len()], &device);
            let (student, teacher) = (student.select(0, rows.clone()), teacher.select(0, rows));
            loss.forward(student, teacher, samples, CrdNegatives::at_step(0));
            let [student, teacher, _] = remembered(&loss);
            [student, teacher]
        };
        let (twice, last) = (run(&[3, 3], [0, 1]), run(&[3], [1, 0]));
        for (twice, last) in twice.iter().flatten().zip(last.iter().flatten()) {
            assert!((twice - last).abs() < 1e-6);
        }
    }

    #[test]
    fn steps_draw_other_negatives() {
        let device = Device::flex();
        let loss = loss(&device);
        let value = |step| {
            let (student, teacher) = batch(&device);
            loss.forward(student, teacher, &[4, 1], CrdNegatives::at_step(step)).into_scalar::<f32>()
        };
        assert_eq!(value(3), value(3));
        assert_ne!(value(3), value(4));
    }

    #[test]
    #[should_panic(expected = "`samples` must be below 6, the number of samples of the configuration, got 6")]
    fn an_index_beyond_the_memory_is_refused_in_training() {
        let device = Device::flex().autodiff();
        let (student, teacher) = batch(&device);
        loss(&device).forward(student, teacher, &[6, 1], CrdNegatives::at_step(0));
    }

    #[test]
    #[should_panic(expected = "`targets` has 2 classes for 6 samples")]
    fn classes_of_other_samples_are_refused() {
        loss(&Device::flex()).other_classes(&[0, 1]);
    }
}
