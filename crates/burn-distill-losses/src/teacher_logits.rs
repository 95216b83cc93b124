use burn::tensor::{DType, Int, Tensor, activation::log_softmax};

use crate::{
    ConfigError, LossError, Mask,
    align::flatten_rows,
    floor::{FLOOR, add_at, log_sum_exp},
    precision::constant,
};

/// What a teacher says about each row (sample or token): all logits, or the top-k log-probabilities.
///
/// Losses on logits take `impl Into<TeacherLogits>`, so one objective serves a live teacher and a cached one:
/// `Tensor<2>` and `Tensor<3>` convert as dense logits (leading dimensions become rows), [`SparseLogits`] as sparse.
/// No gradient ever flows to a teacher, even when its tensors are tracked.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time: tensor handles, moved once per step")]
pub enum TeacherLogits {
    /// Unnormalised logits `[rows, classes]`, not divided by a temperature.
    Dense(Tensor<2>),
    /// The k most probable classes of each row.
    Sparse(SparseLogits),
}

impl TeacherLogits {
    /// Number of rows and of the teacher's classes.
    pub(crate) fn dims(&self) -> (usize, usize) {
        match self {
            Self::Dense(logits) => logits.dims().into(),
            Self::Sparse(logits) => (logits.rows(), logits.vocabulary()),
        }
    }
}

impl From<Tensor<2>> for TeacherLogits {
    fn from(logits: Tensor<2>) -> Self {
        Self::Dense(logits)
    }
}

impl From<Tensor<3>> for TeacherLogits {
    fn from(logits: Tensor<3>) -> Self {
        Self::Dense(logits.flatten(0, 1))
    }
}

impl From<SparseLogits> for TeacherLogits {
    fn from(logits: SparseLogits) -> Self {
        Self::Sparse(logits)
    }
}

/// What becomes of the probability that a sparse teacher's top-k leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Tail {
    /// It is one more class, "any other": the loss sees k + 1 classes.
    Bucket,
    /// It is dropped from both sides and the k probabilities are renormalised: the loss sees k classes.
    Renormalise,
    /// The teacher gives the classes outside its top k no probability, and its k probabilities are renormalised; the
    /// student keeps all of its classes. The loss is not 0 when the student equals the teacher, which gave this up, and
    /// costs what a dense teacher does. DistillKit's `missing_probability_handling: zero`, and axolotl's default.
    Zero,
    /// The terms of the other classes are left out of the sum over classes, and nothing is renormalised. That is no
    /// divergence but a part of one: it may be negative, and a student that equals its teacher still has a gradient,
    /// towards the top k. At a temperature other than that of the log-probabilities they are tempered as with
    /// [`Tail::Bucket`]. EasyDistill's. [`DistLoss`](crate::DistLoss), no sum over classes, takes it for a bucket.
    Drop,
}

/// The k most probable classes of each row, as a cache or an inference server gives them.
///
/// A loss against it compares two *coarse* distributions: student and teacher are both reduced to the teacher's k
/// classes (and the tail, see [`Tail`]) at the temperature of these log-probabilities, then tempered to the loss's
/// temperature. So the loss is 0 when the student equals the teacher, and at k = vocabulary it is the dense loss.
/// [`Tail::Zero`] and [`Tail::Drop`], which other libraries have, are exceptions.
///
/// # Padding
/// Rows with fewer than k classes are padded with log-probability `-inf` and any index in range, also a repeated
/// one; padding belongs to no class of its own. Indices of the entries that are not padding are distinct within a
/// row and smaller than the vocabulary (not checked: that would read the tensor back from the device).
#[derive(Debug, Clone)]
pub struct SparseLogits {
    indices: Tensor<2, Int>,
    log_probs: Tensor<2>,
    vocabulary: usize,
    temperature: f64,
    tail: Tail,
    /// Log-probability of everything that is not listed, `[rows, 1]`, where it is known better than as the rest to 1.
    rest: Option<Tensor<2>>,
}

impl SparseLogits {
    /// Sparse logits from parts: class ids and natural-log probabilities `[rows, k]`, the number of classes, the
    /// temperature at which the probabilities were taken (1 for an inference server), and the tail.
    ///
    /// # Errors
    /// If the shapes differ, k is not in [1, vocabulary], or the temperature is not in (0, inf).
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use burn_distill_losses::{SparseLogits, Tail};
    ///
    /// let device = Device::flex();
    /// let indices = Tensor::<2, Int>::from_ints([[4, 0], [1, 2]], &device);
    /// let log_probs = Tensor::<2>::from_floats([[0.7, 0.2], [0.5, 0.4]], &device).log();
    /// let teacher = SparseLogits::new(indices, log_probs, 5, 1.0, Tail::Bucket)?;
    /// assert_eq!((teacher.rows(), teacher.k()), (2, 2));
    /// # Ok::<(), burn_distill_losses::LossError>(())
    /// ```
    pub fn new(
        indices: Tensor<2, Int>,
        log_probs: Tensor<2>,
        vocabulary: usize,
        temperature: f64,
        tail: Tail,
    ) -> Result<Self, LossError> {
        let k = log_probs.dims()[1];
        if indices.dims() != log_probs.dims() {
            return Err(LossError::SparseShape { indices: indices.dims(), log_probs: log_probs.dims() });
        }
        if k == 0 || k > vocabulary {
            return Err(LossError::SparseSize { k, vocabulary });
        }
        let temperature = ConfigError::check_temperature(temperature)?;
        let (indices, log_probs) = (indices.without_autodiff(), log_probs.without_autodiff());
        Ok(Self { indices, log_probs, vocabulary, temperature, tail, rest: None })
    }

    /// The `k` largest of dense logits `[.., classes]`, leading dimensions are rows, at temperature 1, with the tail's exact log-probability.
    ///
    /// # Errors
    /// If `k` is not in [1, classes].
    ///
    /// # Panics
    /// If `logits` have one dimension.
    pub fn from_dense<const D: usize>(logits: Tensor<D>, k: usize, tail: Tail) -> Result<Self, LossError> {
        let logits = flatten_rows(logits.without_autodiff());
        let vocabulary = logits.dims()[1];
        if k == 0 || k > vocabulary {
            return Err(LossError::SparseSize { k, vocabulary });
        }
        let all = log_softmax(logits, 1);
        let (log_probs, indices) = all.clone().topk_with_indices(k, 1);
        let listed = add_at(all.dims(), indices.clone(), log_probs.ones_like()).greater_elem(0.5);
        let rest = log_sum_exp(all.clamp_min(FLOOR).mask_fill(listed, FLOOR));
        let nothing = rest.clone().lower_elem(FLOOR / 2.0);
        let rest = rest.mask_fill(nothing, f64::NEG_INFINITY).squeeze_dim(1);
        Self::new(indices, log_probs, vocabulary, 1.0, tail)?.with_tail_log_probs(rest)
    }

    /// The same teacher with another view of its tail.
    pub fn with_tail(self, tail: Tail) -> Self {
        Self { tail, ..self }
    }

    /// The same teacher with a known log-probability of its tail, `[rows]`.
    ///
    /// Without it the tail's probability is 1 minus the sum of the listed ones, which in f32 is known to about 1e-7:
    /// enough at the temperature of the log-probabilities, but a loss at temperature 4 takes the fourth root of it.
    ///
    /// # Errors
    /// If there is not one value per row.
    pub fn with_tail_log_probs(self, tail_log_probs: Tensor<1>) -> Result<Self, LossError> {
        let (rows, [given]) = (self.rows(), tail_log_probs.dims());
        if given != rows {
            return Err(LossError::TailRows { rows, given });
        }
        Ok(Self { rest: Some(tail_log_probs.without_autodiff().reshape([rows, 1])), ..self })
    }

    /// Class ids `[rows, k]`.
    pub fn indices(&self) -> &Tensor<2, Int> {
        &self.indices
    }

    /// Natural-log probabilities `[rows, k]` at [`SparseLogits::temperature`].
    pub fn log_probs(&self) -> &Tensor<2> {
        &self.log_probs
    }

    /// Number of classes of the teacher.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The temperature at which the log-probabilities were taken.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// What becomes of the probability outside the top k.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.log_probs.dims()[0]
    }

    /// Listed classes of each row.
    pub fn k(&self) -> usize {
        self.log_probs.dims()[1]
    }

    /// `count` rows from `start`.
    pub(crate) fn narrow(&self, start: usize, count: usize) -> Self {
        Self {
            indices: self.indices.clone().narrow(0, start, count),
            log_probs: self.log_probs.clone().narrow(0, start, count),
            rest: self.rest.clone().map(|rest| rest.narrow(0, start, count)),
            ..self.clone()
        }
    }

    /// The same teacher in `dtype`, with masked-out rows replaced by harmless ones.
    pub(crate) fn masked(&self, mask: &Mask, dtype: DType) -> Self {
        let uniform = -(self.vocabulary as f64).ln();
        Self {
            indices: mask.fill_rows(self.indices.clone(), 0),
            log_probs: mask.fill_rows(constant(self.log_probs.clone(), dtype), uniform),
            rest: self.rest.clone().map(|rest| mask.fill_rows(constant(rest, dtype), uniform)),
            ..self.clone()
        }
    }

    /// The log-probability of everything that is not listed, `[rows, 1]`.
    pub(crate) fn tail_log_probs(&self) -> Tensor<2> {
        self.rest.clone().unwrap_or_else(|| {
            let rest = self.log_probs.clone().exp().sum_dim(1).neg().add_scalar(1.0);
            rest.clamp_min(f64::from(f32::MIN_POSITIVE)).log()
        })
    }

    /// The dense logits `[rows, vocabulary]`; `-inf` for the classes that a row does not list.
    pub(crate) fn to_dense(&self) -> Tensor<2> {
        let log_probs = self.log_probs.clone().mul_scalar(self.temperature);
        let padding = log_probs.clone().equal_scalar(f64::NEG_INFINITY);
        let shape = [self.rows(), self.vocabulary];
        let listed = padding.clone().bool_not().float().cast(log_probs.dtype());
        let unlisted = add_at(shape, self.indices.clone(), listed).lower_elem(0.5);
        add_at(shape, self.indices.clone(), log_probs.mask_fill(padding, 0.0)).mask_fill(unlisted, f64::NEG_INFINITY)
    }
}
