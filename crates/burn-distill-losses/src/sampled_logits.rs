use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    ConfigError, LossError,
    floor::{FLOOR, log_softmax},
    precision::{constant, widen},
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
        check_draws(shape[1])?;
        let temperature = ConfigError::check_temperature(temperature)?;
        let (log_probs, weights) = (log_probs.without_autodiff(), weights.without_autodiff());
        Ok(Self { indices: indices.without_autodiff(), log_probs, weights, vocabulary, temperature })
    }

    /// `draws` classes for each row of dense logits `[rows, classes]`, drawn with replacement from `p^power`, normalised, at
    /// `temperature`.
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
    pub fn draw(logits: Tensor<2>, draws: usize, temperature: f64, power: f64, seed: u64) -> Result<Self, LossError> {
        let [rows, vocabulary] = logits.dims();
        check_draws(draws)?;
        let temperature = ConfigError::check_temperature(temperature)?;
        ConfigError::check_weight("power", power)?;
        let device = logits.device();
        let log_probs = log_softmax(widen(logits.without_autodiff()), temperature);
        // The power is the temperature's inverse; power 0 is uniform.
        let proposal = log_softmax(log_probs.clone().mul_scalar(power), 1.0);
        let uniforms = constant(uniforms(seed, [rows, draws], &device), proposal.dtype());
        let indices = invert(proposal.clone().exp(), uniforms);
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

fn check_draws(draws: usize) -> Result<(), ConfigError> {
    ConfigError::unless(draws > 0, "draws", "[1, inf)", draws as f64)?;
    Ok(())
}

/// The class of each row in whose share of the cumulated probabilities each of `uniforms` `[rows, draws]` falls, by
/// bisection.
fn invert(probs: Tensor<2>, uniforms: Tensor<2>) -> Tensor<2, Int> {
    let classes = probs.dims()[1];
    let shape = uniforms.dims();
    let cumulated = probs.cumsum(1);
    let total = cumulated.clone().narrow(1, classes - 1, 1).expand(shape);
    let points = uniforms * total.clone();
    let mut low = Tensor::<2, Int>::zeros(shape, &cumulated.device());
    let mut high = low.clone().add_scalar(classes as i64 - 1);
    for _ in 0..usize::BITS - (classes - 1).leading_zeros() {
        let middle = (low.clone() + high.clone()).div_scalar(2);
        let below = cumulated.clone().gather(1, middle.clone());
        // Rounding must not draw a class after the last one that has a share.
        let after = below.clone().lower_equal(points.clone()).bool_and(below.lower(total.clone()));
        high = middle.clone().mask_where(after.clone(), high);
        low = low.mask_where(after, middle.add_scalar(1));
    }
    low
}

/// Uniform numbers in (0, 1), a function of the seed and their position (SplitMix64), exact in f32.
fn uniforms(seed: u64, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let number = |position: usize| {
        let mut bits = seed.wrapping_add((position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 41) as f32 + 0.5) / (1u32 << 23) as f32
    };
    let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(number).collect();
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
    fn the_last_class_with_a_share_takes_what_rounding_leaves() {
        let device = Device::flex();
        let probs = Tensor::<2>::from_floats([[0.25, 0.75, 0.0]], &device);
        let uniforms = Tensor::<2>::from_floats([[0.0, 0.2499, 0.2501, 0.9999999, 1.0]], &device);
        let ids = invert(probs, uniforms).into_data_as::<i64>().try_to_vec::<i64>().unwrap();
        assert_eq!(ids, [0, 0, 1, 1, 1]);
        let one = Tensor::<2>::ones([1, 1], &device);
        assert_eq!(invert(one.clone(), one.div_scalar(2.0)).into_scalar::<i64>(), 0);
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
