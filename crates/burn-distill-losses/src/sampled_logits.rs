use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    ConfigError, LossError,
    align::flatten_rows,
    floor::{FLOOR, log_softmax},
    precision::constant,
};

/// Classes drawn from a teacher's distribution with the weights that make them stand for the whole of it: a sparse teacher
/// whose gradient is, in expectation, that of the dense one.
///
/// ```text
/// p = softmax(logits / temperature),  r ∝ p^power
/// draws i.i.d. c_1 .. c_n from r, with weights  w_j = p(c_j) / (n r(c_j));  Σ_j w_j [c_j = c] has expectation p(c)
/// ```
///
/// A top-k ([`SparseLogits`](crate::SparseLogits)) says nothing about the tail and is wrong about it in every row alike;
/// draws are wrong in each row differently, and right on average. [`RandomKdLoss`](crate::RandomKdLoss) compares a student
/// with them. The same class may be drawn more than once in a row.
///
/// At power 1 every weight is 1/n, a class's weight is how often it was drawn, and weights sum to 1. A smaller power draws
/// from the tail more often; then the weights sum to 1 only in expectation. They are not normalised: that would bring back
/// a bias.
#[derive(Debug, Clone)]
pub struct SampledLogits {
    indices: Tensor<2, Int>,
    log_probs: Tensor<2>,
    weights: Tensor<2>,
    vocabulary: usize,
    temperature: f64,
}

impl SampledLogits {
    /// Sampled logits from parts, as a cache holds them: drawn class ids, their natural-log probabilities under the
    /// teacher at `temperature` and their weights, each `[rows, draws]`, and the number of classes.
    ///
    /// A draw of weight 0 says nothing: rows with fewer draws are padded with it, any index in range and any finite
    /// log-probability.
    ///
    /// # Errors
    /// If the shapes differ, there is no draw, or the temperature is not in (0, inf).
    pub fn new(
        indices: Tensor<2, Int>,
        log_probs: Tensor<2>,
        weights: Tensor<2>,
        vocabulary: usize,
        temperature: f64,
    ) -> Result<Self, LossError> {
        let shape = indices.dims();
        for (part, given) in [("log_probs", log_probs.dims()), ("weights", weights.dims())] {
            if shape != given {
                return Err(LossError::SampledShape { part, indices: shape, given });
            }
        }
        ConfigError::check_count("draws", shape[1])?;
        let temperature = ConfigError::check_temperature(temperature)?;
        let (log_probs, weights) = (log_probs.without_autodiff(), weights.without_autodiff());
        Ok(Self { indices: indices.without_autodiff(), log_probs, weights, vocabulary, temperature })
    }

    /// `draws` classes for each row of dense logits `[.., classes]`, leading dimensions are rows; drawn with replacement from
    /// `p^power`, normalised, at `temperature`.
    ///
    /// A class is drawn with its probability to the relative precision of f32, however small that is: the tail of a large
    /// vocabulary is not lost in the rounding of a running sum. Time and memory are those of `2 · rows · classes` numbers and
    /// of `rows · draws` for each of log2(classes) levels.
    ///
    /// A function of its arguments: the same `seed` draws the same classes, on every device up to rounding. Use another
    /// seed for each batch (the batch's number, say), or its errors repeat.
    ///
    /// # Errors
    /// If `draws` is 0, the temperature is not in (0, inf) or `power` is not in [0, inf).
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_distill_losses::SampledLogits;
    ///
    /// // Probabilities 3/4 and 1/4: of 1000 draws about 750 are class 0.
    /// let teacher = Tensor::<2>::from_floats([[3f32.ln(), 0.0]], &Device::flex());
    /// let sampled = SampledLogits::draw(teacher, 1000, 1.0, 1.0, 7)?;
    /// let second = sampled.indices().clone().sum().into_scalar::<i32>();
    /// assert!((200..300).contains(&second));
    /// # Ok::<(), burn_distill_losses::LossError>(())
    /// ```
    ///
    /// # Panics
    /// If `logits` have one dimension.
    pub fn draw<const D: usize>(
        logits: Tensor<D>,
        draws: usize,
        temperature: f64,
        power: f64,
        seed: u64,
    ) -> Result<Self, LossError> {
        ConfigError::check_count("draws", draws)?;
        let temperature = ConfigError::check_temperature(temperature)?;
        ConfigError::check_weight("power", power)?;
        let logits = flatten_rows(logits.without_autodiff());
        let [rows, vocabulary] = logits.dims();
        let log_probs = log_softmax(logits, temperature);
        // The power is the temperature's inverse; power 0 is uniform.
        let proposal = log_softmax(log_probs.clone().mul_scalar(power), 1.0);
        let shape = [rows, draws];
        let indices = descend(proposal.clone().exp(), shape, |level| {
            constant(uniforms(seed, level, shape, &proposal.device()), proposal.dtype())
        });
        let log_probs = log_probs.gather(1, indices.clone());
        let weights = (log_probs.clone() - proposal.gather(1, indices.clone())).exp().div_scalar(draws as f64);
        // A sum that a device rounds out of order might draw a class of probability 0: it says nothing.
        let impossible = log_probs.clone().lower_elem(FLOOR / 2.0);
        let (log_probs, weights) = (log_probs.mask_fill(impossible.clone(), 0.0), weights.mask_fill(impossible, 0.0));
        Self::new(indices, log_probs, weights, vocabulary, temperature)
    }

    /// Drawn class ids `[rows, draws]`.
    pub fn indices(&self) -> &Tensor<2, Int> {
        &self.indices
    }

    /// Natural-log probabilities of the drawn classes `[rows, draws]` at [`SampledLogits::temperature`].
    pub fn log_probs(&self) -> &Tensor<2> {
        &self.log_probs
    }

    /// Weights of the draws `[rows, draws]`.
    pub fn weights(&self) -> &Tensor<2> {
        &self.weights
    }

    /// Number of classes of the teacher.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The temperature at which the classes were drawn.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.indices.dims()[0]
    }
}

/// Classes `[rows, draws]` drawn from `probs` `[rows, classes]`, which need not sum to 1.
///
/// Down a tree of pairwise sums, with new uniform numbers in (0, 1) at each level. The smaller side of a pair is where the
/// numbers are near 0, and dense: no share is too small to be hit, as it is in a running sum, whose rounding is that of the
/// largest.
fn descend(probs: Tensor<2>, shape: [usize; 2], uniforms: impl Fn(usize) -> Tensor<2>) -> Tensor<2, Int> {
    let mut levels = Vec::new();
    let mut sums = probs;
    while sums.dims()[1] > 1 {
        let [rows, width] = sums.dims();
        if width % 2 == 1 {
            sums = Tensor::cat(vec![sums.clone(), Tensor::zeros([rows, 1], (&sums.device(), sums.dtype()))], 1);
        }
        levels.push(sums.clone());
        sums = sums.reshape([rows, width.div_ceil(2), 2]).sum_dim(2).squeeze_dim(2);
    }
    let mut drawn = Tensor::<2, Int>::zeros(shape, &sums.device());
    for (level, sums) in levels.into_iter().enumerate().rev() {
        let first = drawn.mul_scalar(2);
        let second = first.clone().add_scalar(1);
        let (left, right) = (sums.clone().gather(1, first.clone()), sums.gather(1, second.clone()));
        let points = uniforms(level) * (left.clone() + right.clone());
        let left_is_smaller = left.clone().lower_equal(right.clone());
        let smaller = left.min_pair(right);
        let in_smaller = points.lower(smaller);
        drawn = first.mask_where(in_smaller.not_equal(left_is_smaller), second);
    }
    drawn
}

/// Uniform numbers in (0, 1], a function of the seed, the level and their position (SplitMix64). Near 0 they are as dense as
/// f32 is, down to 2^-65; 1 is what rounds to it.
fn uniforms(seed: u64, level: usize, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let count = shape[0] * shape[1];
    let number = |position: usize| {
        let position = (level * count + position) as u64 + 1;
        let mut bits = seed.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits as f64 + 0.5) / 2f64.powi(64)) as f32
    };
    let numbers: Vec<f32> = (0..count).map(number).collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_the_proposal_and_weights_undo_it() {
        let device = Device::flex();
        let probs = [0.6, 0.25, 0.1, 0.05];
        let logits = Tensor::<2>::from_floats([probs.map(f32::ln)], &device);
        let draws = 40_000;
        for power in [1.0, 0.5, 0.0, 2.0] {
            let sampled = SampledLogits::draw(logits.clone(), draws, 1.0, power, 3).unwrap();
            let ids = sampled.indices().clone().into_data_as::<i64>().try_to_vec::<i64>().unwrap();
            let weights = sampled.weights().clone().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
            let total: f32 = probs.iter().map(|p| p.powf(power as f32)).sum();
            for (class, p) in probs.into_iter().enumerate() {
                let drawn = || ids.iter().zip(&weights).filter(|(id, _)| **id == class as i64);
                let (share, weight) = (drawn().count() as f32 / draws as f32, drawn().map(|(_, w)| w).sum::<f32>());
                // Four standard deviations of a share are at most 2 / sqrt(draws) = 0.01.
                assert!((share - p.powf(power as f32) / total).abs() < 0.01, "power {power}, class {class}: {share}");
                assert!((weight - p).abs() < 0.02 * p.sqrt(), "power {power}, class {class}: {weight}, not {p}");
            }
        }
    }

    #[test]
    fn classes_without_probability_are_never_drawn() {
        let device = Device::flex();
        let infinity = f32::NEG_INFINITY;
        let logits = Tensor::<2>::from_floats([[infinity, 0.0, infinity, 0.0, infinity]], &device);
        for power in [1.0, 0.3] {
            let sampled = SampledLogits::draw(logits.clone(), 2000, 2.0, power, 11).unwrap();
            let ids = sampled.indices().clone().into_data_as::<i64>().try_to_vec::<i64>().unwrap();
            assert!(ids.iter().all(|id| [1, 3].contains(id)));
            assert!(ids.contains(&1) && ids.contains(&3));
            assert!(sampled.weights().clone().into_data().iter::<f32>().all(|weight| (weight - 5e-4).abs() < 1e-8));
        }
    }

    #[test]
    fn a_long_tail_is_drawn_as_often_as_its_probability_says() {
        let device = Device::flex();
        // One class of 0.998 and 200,000 of 1e-8: in a running sum of f32, none of the latter would move it.
        let (tail, draws) = (200_000, 200_000);
        let head = Tensor::<2>::full([1, 1], (0.998f64 / 1e-8).ln(), &device);
        let logits = Tensor::cat(vec![head, Tensor::zeros([1, tail], &device)], 1);
        let sampled = SampledLogits::draw(logits, draws, 1.0, 1.0, 5).unwrap();
        let mut ids = sampled.indices().clone().into_data_as::<i64>().try_to_vec::<i64>().unwrap();
        ids.retain(|id| *id > 0);
        // 0.002 of the draws, 400, with a deviation of 20.
        assert!((320..480).contains(&ids.len()), "{}", ids.len());
        let mean = ids.iter().sum::<i64>() as f64 / (ids.len() * tail) as f64;
        // Uniform over the tail: a deviation of 0.29 / 20.
        assert!((mean - 0.5).abs() < 0.06, "{mean}");
    }

    #[test]
    fn a_pair_is_divided_at_its_smaller_share_and_zeros_are_never_taken() {
        let device = Device::flex();
        let shape = [1, 5];
        let ids = |probs: &[f32], uniforms: [f32; 5]| {
            let probs = Tensor::<1>::from_floats(probs, &device).unsqueeze();
            let drawn = descend(probs, shape, |_| Tensor::<2>::from_floats([uniforms], &device));
            drawn.into_data_as::<i64>().try_to_vec::<i64>().unwrap()
        };
        let smallest = 2f32.powi(-65);
        assert_eq!(ids(&[0.25, 0.75], [smallest, 0.2499, 0.2501, 0.9999999, 1.0]), [0, 0, 1, 1, 1]);
        assert_eq!(ids(&[0.75, 0.25], [smallest, 0.2499, 0.2501, 0.9999999, 1.0]), [1, 1, 0, 0, 0]);
        // A share far below the spacing of f32 at 1.
        assert_eq!(ids(&[1.0, 1e-12], [smallest, 0.9e-12, 1.1e-12, 0.5, 1.0]), [1, 1, 0, 0, 0]);
        for uniforms in [[smallest, 0.2, 0.5, 0.9999999, 1.0], [1.0, 0.4, smallest, 0.3, 0.7]] {
            assert!(ids(&[0.0, 0.0, 0.3, 0.0, 0.2], uniforms).iter().all(|id| [2, 4].contains(id)));
            assert_eq!(ids(&[0.5], uniforms), [0; 5]);
        }
    }

    #[test]
    fn tokens_are_rows() {
        let logits = Tensor::<3>::from_floats([[[0.3, -1.0], [2.0, 0.1]], [[0.0, 1.0], [0.5, 0.5]]], &Device::flex());
        let ids = |sampled: SampledLogits| sampled.indices().clone().into_data();
        let tokens = SampledLogits::draw(logits.clone(), 9, 1.0, 1.0, 4).unwrap();
        assert_eq!((tokens.rows(), tokens.vocabulary()), (4, 2));
        let rows = SampledLogits::draw(logits.flatten::<2>(0, 1), 9, 1.0, 1.0, 4).unwrap();
        assert_eq!(ids(tokens), ids(rows));
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let logits = Tensor::<2>::from_floats([[0.3, -1.0, 2.0, 0.1], [0.0; 4]], &Device::flex());
        let ids = |seed| {
            let sampled = SampledLogits::draw(logits.clone(), 20, 1.0, 1.0, seed).unwrap();
            sampled.indices().clone().into_data_as::<i64>().try_to_vec::<i64>().unwrap()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        assert_ne!(ids(1)[..20], ids(1)[20..]);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let logits = Tensor::<2>::zeros([1, 3], &device);
        let message = |result: Result<SampledLogits, LossError>| result.unwrap_err().to_string();
        assert_eq!(message(SampledLogits::draw(logits.clone(), 0, 1.0, 1.0, 0)), "`draws` must be in [1, inf), got 0");
        assert_eq!(
            message(SampledLogits::draw(logits.clone(), 2, 1.0, -1.0, 0)),
            "`power` must be in [0, inf), got -1"
        );
        assert!(message(SampledLogits::draw(logits.clone(), 2, 0.0, 1.0, 0)).contains("`temperature`"));
        let indices = Tensor::<2, Int>::zeros([1, 3], &device);
        assert_eq!(
            message(SampledLogits::new(indices, logits, Tensor::zeros([1, 2], &device), 3, 1.0)),
            "`indices` have shape [1, 3] and `weights` [1, 2]; both must be [rows, draws]"
        );
    }
}
