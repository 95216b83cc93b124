use burn::{config::Config, tensor::Tensor};

use crate::{AttentionMask, ConfigError, HeadPolicy, Reduction, attention_mask::assert_attention, precision::features};

/// Configuration of [`AttentionMseLoss`].
#[derive(Config, Debug)]
pub struct AttentionMseLossConfig {
    /// What to do when the numbers of heads differ.
    #[config(default = "HeadPolicy::Match")]
    pub heads: HeadPolicy,
    /// How tokens (queries) become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl AttentionMseLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<AttentionMseLoss, ConfigError> {
        Ok(AttentionMseLoss { heads: self.heads, reduction: self.reduction })
    }
}

/// TinyBERT's attention: the mean squared difference of the unnormalised attention scores, padding left out.
///
/// ```text
/// loss = mean over unmasked queries of  mean over heads and the query's unmasked keys of  (student - teacher)²
/// ```
///
/// **Scale**: each unmasked token counts the same, whatever the length of its sequence. TextBrewer's `attention_mse`
/// divides by the number of unmasked pairs instead, which is the same where all sequences are as long; TinyBERT's own
/// code takes the mean over all pairs with scores up to -100 set to 0, so that padding only enlarges the divisor.
/// TextBrewer's sum over heads (`attention_mse_sum`) is [`HeadPolicy::Mean`] times the squared number of heads. Without a
/// mask TextBrewer sets every score up to -0.001 to 0, valid negative ones too; here a score counts as it is.
///
/// # Shapes
/// - `student`, `teacher`: attention scores before the softmax `[batch, heads, queries, keys]`; heads may differ under
///   [`HeadPolicy::Mean`];
/// - `mask`: which queries and keys count, see [`AttentionMask`]. What a model writes over masked scores (-10000, `-inf`)
///   must be covered by it;
/// - value: `[1]`, or `[batch · queries]` from `forward_no_reduction`, where a masked-out query is 0.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if the shapes or the mask do not fit, or if the heads differ in number and the policy is
/// [`HeadPolicy::Match`].
///
/// # Example
/// ```
/// use burn::tensor::{Bool, Device, Tensor};
/// use burn_distill_losses::AttentionMseLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[1.0, 2.0, 9.0], [0.0, 3.0, 9.0], [9.0, 9.0, 9.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[1.0, 0.0, -1e4], [0.0, 4.0, -1e4], [0.0, 0.0, -1e4]]]], &device);
/// let mask = Tensor::<2, Bool>::from_bool([[true, true, false]], &device);
/// // Two tokens and a padding: ((0 + 4) / 2 + (0 + 1) / 2) / 2.
/// let value = AttentionMseLossConfig::new().init()?.forward(student, teacher, mask).into_scalar::<f64>();
/// assert!((value - 1.25).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Jiao et al., *TinyBERT: Distilling BERT for Natural Language Understanding*, 2020, arXiv 1909.10351, equation 7: the
///   scores before the softmax, which converged faster there than the probabilities.
/// - Reference code: TextBrewer `src/textbrewer/losses.py` at 2c105fa6 (`att_mse_loss`, `att_mse_sum_loss`);
///   huawei-noah/Pretrained-Language-Model `TinyBERT/general_distill.py` at 1bb9b3e4.
#[derive(Debug, Clone)]
pub struct AttentionMseLoss {
    heads: HeadPolicy,
    reduction: Reduction,
}

impl AttentionMseLoss {
    /// The loss of each query, `[batch · queries]`.
    pub fn forward_no_reduction(
        &self,
        student: Tensor<4>,
        teacher: Tensor<4>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        assert_attention(student.dims(), teacher.dims(), self.heads);
        let (student, teacher) = features(student, teacher);
        let side = |scores: Tensor<4>| {
            let scores = mask.fill(scores, 0.0);
            if self.heads == HeadPolicy::Mean { scores.mean_dim(1) } else { scores }
        };
        let difference = side(student) - side(teacher);
        let counts = mask.key_counts(&difference);
        let by_query = difference.square().mean_dim(1).sum_dim(3) / counts;
        by_query.flatten(0, 3)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>, mask: impl Into<AttentionMask>) -> Tensor<1> {
        let mask = mask.into();
        let queries = mask.queries();
        self.reduction.apply(self.forward_no_reduction(student, teacher, mask), &queries)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device};

    use super::*;

    #[test]
    fn scores_of_minus_infinity_under_the_mask_do_no_harm() {
        let device = Device::flex().autodiff();
        let infinity = f32::NEG_INFINITY;
        let student = Tensor::<4>::from_floats([[[[1.0, infinity], [0.5, 2.0]]]], &device).require_grad();
        let teacher = Tensor::<4>::from_floats([[[[0.0, infinity], [0.5, 0.0]]]], &device);
        let mask = AttentionMask::causal(Tensor::<2, Bool>::from_bool([[true, true]], &device));
        let loss = AttentionMseLossConfig::new().init().unwrap().forward(student.clone(), teacher, mask);
        let gradient = student.grad(&loss.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        // (1 / 1 + (0 + 4) / 2) / 2.
        assert_eq!(loss.into_scalar::<f32>(), 1.5);
        assert_eq!(gradient, [1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "`student` has 2 heads and `teacher` 4; choose `HeadPolicy::Mean`")]
    fn heads_that_differ_are_refused() {
        let device = Device::flex();
        let loss = AttentionMseLossConfig::new().init().unwrap();
        loss.forward(Tensor::zeros([1, 2, 3, 3], &device), Tensor::zeros([1, 4, 3, 3], &device), None);
    }

    #[test]
    fn means_of_heads_forgive_what_cancels() {
        let device = Device::flex();
        let student = Tensor::<4>::from_floats([[[[1.0]], [[3.0]]]], &device);
        let teacher = Tensor::<4>::from_floats([[[[2.0]], [[0.0]], [[4.0]]]], &device);
        let loss = AttentionMseLossConfig::new().with_heads(HeadPolicy::Mean).init().unwrap();
        assert_eq!(loss.forward(student, teacher, None).into_scalar::<f32>(), 0.0);
    }
}
