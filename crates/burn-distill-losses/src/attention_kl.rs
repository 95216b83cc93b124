use burn::{config::Config, tensor::Tensor};

use crate::{
    AttentionMask, ConfigError, HeadPolicy, Reduction,
    attention_mask::assert_attention,
    divergence::kl,
    floor::{FLOOR, log_softmax},
    precision::features,
};

/// Configuration of [`AttentionKlLoss`].
#[derive(Config, Debug)]
pub struct AttentionKlLossConfig {
    /// What to do when the numbers of heads differ.
    #[config(default = "HeadPolicy::Match")]
    pub heads: HeadPolicy,
    /// How tokens (queries) become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl AttentionKlLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<AttentionKlLoss, ConfigError> {
        Ok(AttentionKlLoss { heads: self.heads, reduction: self.reduction })
    }
}

/// Attention of MobileBERT and MiniLM: the Kullback-Leibler divergence from where the teacher's heads look to where the
/// student's do, padding left out.
///
/// ```text
/// p = softmax(teacher_scores),  q = softmax(student_scores)    over the query's unmasked keys
/// loss = mean over unmasked queries of  mean over heads of  Σ_keys p (ln p - ln q)
/// ```
///
/// **Scale**: true KL in nats, no temperature; mean over heads and over unmasked tokens, never over keys. MiniLM's
/// equation has this mean (1 over heads times length); TextBrewer's `attention_ce` is the cross-entropy (the teacher's
/// entropy is not subtracted; the gradient is the same) and leaves masked keys in the softmax, which is the same where
/// the model wrote -10000 over them. Under [`HeadPolicy::Mean`] the *probabilities* are averaged over heads;
/// TextBrewer's `attention_ce_mean` averages the scores before the softmax.
///
/// # Shapes
/// - `student_scores`, `teacher_scores`: attention scores before the softmax `[batch, heads, queries, keys]`; heads may
///   differ under [`HeadPolicy::Mean`]. `forward_probs` takes the probabilities that a model returns instead;
/// - `mask`: which queries and keys count, see [`AttentionMask`];
/// - value: `[1]`, or `[batch · queries]` from the `_no_reduction` forms, where a masked-out query is 0.
///
/// # Gradients
/// To the student only.
///
/// # Panics
/// `forward` if the shapes or the mask do not fit, or if the heads differ in number and the policy is
/// [`HeadPolicy::Match`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::AttentionKlLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[0.5, 0.5]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[0.75, 0.25]]]], &device);
/// // 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812.
/// let value = AttentionKlLossConfig::new().init()?.forward_probs(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Sun et al., *MobileBERT*, 2020, arXiv 2004.02984, section 3.5 (attention transfer); Wang et al., *MiniLM*, 2020,
///   arXiv 2002.10957, equation 5, on the last layer.
/// - Reference code: TextBrewer `src/textbrewer/losses.py` at 2c105fa6 (`att_ce_loss`). MiniLM's training code is not
///   public.
#[derive(Debug, Clone)]
pub struct AttentionKlLoss {
    heads: HeadPolicy,
    reduction: Reduction,
}

impl AttentionKlLoss {
    /// The loss of each query, `[batch · queries]`, of scores before the softmax.
    pub fn forward_no_reduction(
        &self,
        student_scores: Tensor<4>,
        teacher_scores: Tensor<4>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        assert_attention(student_scores.dims(), teacher_scores.dims(), self.heads);
        let (student, teacher) = features(student_scores, teacher_scores);
        compare(student, teacher, &mask.into(), self.heads)
    }

    /// The reduced loss, `[1]`, of scores before the softmax.
    pub fn forward(
        &self,
        student_scores: Tensor<4>,
        teacher_scores: Tensor<4>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let queries = mask.queries();
        self.reduction.apply(self.forward_no_reduction(student_scores, teacher_scores, mask), &queries)
    }

    /// The loss of each query, `[batch · queries]`, of attention probabilities, which are normalised over the unmasked
    /// keys. A probability below 1.2e-38 counts as that and has no gradient.
    pub fn forward_probs_no_reduction(
        &self,
        student_probs: Tensor<4>,
        teacher_probs: Tensor<4>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        assert_attention(student_probs.dims(), teacher_probs.dims(), self.heads);
        let (student, teacher) = features(student_probs, teacher_probs);
        let mask = mask.into();
        // Masked probabilities may be anything: they become 1 before the logarithm and leave after it.
        let log = |probs: Tensor<4>| mask.fill(probs, 1.0).clamp_min(f64::from(f32::MIN_POSITIVE)).log();
        compare(log(student), log(teacher), &mask, self.heads)
    }

    /// The reduced loss, `[1]`, of attention probabilities.
    pub fn forward_probs(
        &self,
        student_probs: Tensor<4>,
        teacher_probs: Tensor<4>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let queries = mask.queries();
        self.reduction.apply(self.forward_probs_no_reduction(student_probs, teacher_probs, mask), &queries)
    }
}

/// The divergence of the softmax of scores `[batch, heads, queries, keys]` for each query, `[batch · queries]`: the mean
/// over heads of the divergences, or the divergence of the means over heads; 0 for queries that do not count.
pub(crate) fn compare(student: Tensor<4>, teacher: Tensor<4>, mask: &AttentionMask, heads: HeadPolicy) -> Tensor<1> {
    let [batch, _, queries, keys] = student.dims();
    let log_probs = |scores: Tensor<4>| {
        let shape = scores.dims();
        let rows = mask.fill(scores, FLOOR).reshape([shape[0] * shape[1] * queries, keys]);
        let log_probs = log_softmax(rows, 1.0).reshape(shape);
        if heads == HeadPolicy::Mean { log_mean_heads(log_probs) } else { log_probs }
    };
    let (student, teacher) = (log_probs(student), log_probs(teacher));
    let compared = student.dims()[1];
    let shape = [batch * compared * queries, keys];
    let by_head = kl(teacher.reshape(shape), student.reshape(shape)).reshape([batch, compared, queries]);
    mask.queries().zero(by_head.mean_dim(1).flatten(0, 2))
}

/// The logarithm of the mean over heads of probabilities whose logarithms are given.
fn log_mean_heads(log_probs: Tensor<4>) -> Tensor<4> {
    let shape = log_probs.dims();
    let max = log_probs.clone().without_autodiff().max_dim(1);
    (log_probs - max.clone().expand(shape)).exp().mean_dim(1).log() + max
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device};

    use super::*;

    #[test]
    fn scores_and_their_softmax_agree_under_a_mask() {
        let device = Device::flex();
        let student = Tensor::<4>::from_floats([[[[1.0, 2.0, 7.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]]]], &device);
        let teacher = Tensor::<4>::from_floats([[[[0.5, -1.0, 4.0], [2.0, 4.0, 3.0], [0.0, 2.0, 0.0]]]], &device);
        let mask = AttentionMask::from(Tensor::<2, Bool>::from_bool([[true, true, false]], &device));
        let loss = AttentionKlLossConfig::new().init().unwrap();
        let scores = loss.forward(student.clone(), teacher.clone(), mask.clone()).into_scalar::<f64>();
        let softmax = |scores| burn::tensor::activation::softmax(scores, 3);
        let probs = loss.forward_probs(softmax(student.clone()), softmax(teacher.clone()), mask).into_scalar::<f64>();
        assert!((scores - probs).abs() < 1e-6, "{scores}, {probs}");
        // By hand over the first two keys: p = sigmoid of the difference of two scores.
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let row = |s: f64, t: f64| {
            let (q, p) = (sigmoid(s), sigmoid(t));
            p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
        };
        let expected = (row(-1.0, 1.5) + row(-3.0, -2.0)) / 2.0;
        assert!((scores - expected).abs() < 1e-5, "{scores}, {expected}");
    }

    #[test]
    fn one_teacher_head_serves_as_the_mean_of_two() {
        let device = Device::flex();
        let student = Tensor::<4>::from_floats([[[[0.9, 0.1]], [[0.3, 0.7]]]], &device);
        let teacher = Tensor::<4>::from_floats([[[[0.6, 0.4]]]], &device);
        let loss = AttentionKlLossConfig::new().with_heads(HeadPolicy::Mean).init().unwrap();
        assert!(loss.forward_probs(student, teacher, None).into_scalar::<f64>().abs() < 1e-6);
    }

    #[test]
    fn probability_zero_has_a_finite_gradient() {
        let device = Device::flex().autodiff();
        let student = Tensor::<4>::from_floats([[[[1.0, 0.0]]]], &device).require_grad();
        let teacher = Tensor::<4>::from_floats([[[[0.0, 1.0]]]], &device);
        let loss = AttentionKlLossConfig::new().init().unwrap().forward_probs(student.clone(), teacher, None);
        let gradient = student.grad(&loss.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
        assert!((loss.into_scalar::<f32>() - 87.3).abs() < 0.1);
    }
}
