use burn::{config::Config, tensor::Tensor};

use crate::{AttentionMask, ConfigError, HeadPolicy, Reduction, attention_kl::compare, precision::features};

/// Configuration of [`MiniLmLoss`].
#[derive(Config, Debug)]
pub struct MiniLmLossConfig {
    /// Into how many relation heads the vectors of both sides are split, in [1, inf); must divide both widths. MiniLMv2
    /// takes 48 for a teacher of width 768 and 64 for one of 1024, MiniLM the number of attention heads.
    pub relation_heads: usize,
    /// How tokens become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl MiniLmLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `relation_heads` is 0.
    pub fn init(&self) -> Result<MiniLmLoss, ConfigError> {
        let relation_heads = ConfigError::check_count("relation_heads", self.relation_heads)?;
        Ok(MiniLmLoss { relation_heads, reduction: self.reduction })
    }
}

/// MiniLM's self-attention relations: how much each token's vector resembles the other tokens', compared by
/// Kullback-Leibler divergence.
///
/// ```text
/// X  = queries, keys or values, split into A relation heads of width d = width / A
/// R  = softmax(X_a X_aᵀ / √d)    over the unmasked tokens, for each head a
/// loss = mean over unmasked tokens of  mean over heads of  KL(R(teacher) || R(student))
/// ```
///
/// The relations are tokens by tokens, so widths and numbers of attention heads may differ between student and teacher.
/// MiniLMv2 is the sum of three such terms of one layer: the queries', the keys' and the values'. MiniLM is that of the
/// values of the last layer, beside [`AttentionKlLoss`](crate::AttentionKlLoss) on its attention. Each is a term of the
/// objective.
///
/// **Scale**: true KL in nats, no temperature; mean over relation heads and unmasked tokens, as the 1 over heads times
/// length of the papers' equations.
///
/// # Shapes
/// - `student` `[batch, tokens, student width]`, `teacher` `[batch, tokens, teacher width]`: queries, keys or values with
///   the attention heads side by side, as the projection layer gives them;
/// - `mask`: which tokens count, see [`AttentionMask`];
/// - value: `[1]`, or `[batch · tokens]` from `forward_no_reduction`, where a masked-out token is 0.
///
/// # Gradients
/// To `student` only.
///
/// # Errors
/// [`MiniLmLossConfig::init`] if `relation_heads` is 0.
///
/// # Panics
/// `forward` if batch or tokens differ, or `relation_heads` does not divide both widths.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::MiniLmLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<3>::from_floats([[[0.0], [0.0]]], &device);
/// let teacher = Tensor::<3>::from_floats([[[3f32.ln().sqrt(), 0.0, 0.0, 0.0], [0.0; 4]]], &device);
/// // One head, d = 4: scores ln 3 / 2 and 0 for the first token, 0 and 0 for the second; p = (√3, 1) / (√3 + 1).
/// // KL to (1/2, 1/2): 0.633975 ln 1.267949 + 0.366025 ln 0.732051 = 0.036339, and 0.
/// let loss = MiniLmLossConfig::new(1).init()?;
/// let value = loss.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 0.036339 / 2.0).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Wang et al., *MiniLM: Deep Self-Attention Distillation*, 2020, arXiv 2002.10957, section 3.2 (values).
/// - Wang et al., *MiniLMv2: Multi-Head Self-Attention Relation Distillation*, 2021, arXiv 2012.15828, section 3.1.
/// - Reference code: none is public (microsoft/unilm `minilm/` at 768a3c87 holds models and their fine-tuning). The
///   numbers of the tests are the papers' formula in PyTorch.
#[derive(Debug, Clone)]
pub struct MiniLmLoss {
    relation_heads: usize,
    reduction: Reduction,
}

impl MiniLmLoss {
    /// The loss of each token, `[batch · tokens]`.
    pub fn forward_no_reduction(
        &self,
        student: Tensor<3>,
        teacher: Tensor<3>,
        mask: impl Into<AttentionMask>,
    ) -> Tensor<1> {
        let ([batch, tokens, _], [teacher_batch, teacher_tokens, _]) = (student.dims(), teacher.dims());
        assert_eq!(
            [batch, tokens],
            [teacher_batch, teacher_tokens],
            "`student` and `teacher` must have the same batch and tokens"
        );
        let mask = mask.into();
        let (student, teacher) = features(student, teacher);
        let relations = |vectors| self.relations(mask.fill_tokens(vectors));
        compare(relations(student), relations(teacher), &mask, HeadPolicy::Match)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<3>, teacher: Tensor<3>, mask: impl Into<AttentionMask>) -> Tensor<1> {
        let mask = mask.into();
        let tokens = mask.queries();
        self.reduction.apply(self.forward_no_reduction(student, teacher, mask), &tokens)
    }

    /// Scaled dot products of all pairs of tokens, `[batch, relation heads, tokens, tokens]`.
    #[track_caller]
    fn relations(&self, vectors: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = vectors.dims();
        let heads = self.relation_heads;
        assert!(width.is_multiple_of(heads), "`relation_heads` {heads} must divide the width {width}");
        let size = width / heads;
        // Half of the scale on each side: the square root of its square root.
        let vectors = vectors.div_scalar((size as f64).powf(0.25));
        let vectors = vectors.reshape([batch, tokens, heads, size]).swap_dims(1, 2);
        vectors.clone().matmul(vectors.swap_dims(2, 3))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device, Distribution};

    use super::*;

    #[test]
    fn a_rotation_within_the_heads_changes_nothing() {
        let device = Device::flex();
        device.seed(5);
        let teacher = Tensor::<3>::random([2, 4, 6], Distribution::Default, &device);
        // Heads of width 2: their two numbers are swapped and negated, alone a rotation.
        let student = teacher.clone().reshape([2, 4, 3, 2]).flip([3]).neg().reshape([2, 4, 6]);
        let loss = |heads| MiniLmLossConfig::new(heads).init().unwrap();
        let value = |heads| loss(heads).forward(student.clone(), teacher.clone(), None).into_scalar::<f64>();
        assert!(value(3).abs() < 1e-6);
        // Heads of width 1 keep each number to itself, so the swap is seen.
        assert!(value(6) > 1e-4);
    }

    #[test]
    fn padding_may_hold_anything_and_equals_a_shorter_sequence() {
        let device = Device::flex().autodiff();
        let mut numbers: Vec<f32> = (0..12).map(|i| ((i * 7 % 5) as f32 - 2.0) / 2.0).collect();
        let short = Tensor::<1>::from_floats(&numbers[..8], &device).reshape([1, 2, 4]);
        numbers[8..].fill(f32::NAN);
        let long = Tensor::<1>::from_floats(numbers.as_slice(), &device).reshape([1, 3, 4]).require_grad();
        let teacher = Tensor::<3>::from_floats([[[1.0, 0.5], [-0.5, 2.0], [f32::INFINITY, 0.0]]], &device);
        let mask = Tensor::<2, Bool>::from_bool([[true, true, false]], &device);
        let loss = MiniLmLossConfig::new(2).init().unwrap();
        let padded = loss.forward(long.clone(), teacher.clone(), mask);
        let gradient = long.grad(&padded.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(gradient[..8].iter().all(|slope| slope.is_finite()), "{gradient:?}");
        assert_eq!(gradient[8..], [0.0; 4]);
        let expected = loss.forward(short, teacher.narrow(1, 0, 2), None).into_scalar::<f64>();
        assert!((padded.into_scalar::<f64>() - expected).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`relation_heads` 4 must divide the width 6")]
    fn heads_must_divide_the_width() {
        let device = Device::flex();
        let loss = MiniLmLossConfig::new(4).init().unwrap();
        loss.forward(Tensor::zeros([1, 2, 8], &device), Tensor::zeros([1, 2, 6], &device), None);
    }

    #[test]
    fn no_heads_are_refused() {
        let error = MiniLmLossConfig::new(0).init().unwrap_err();
        assert_eq!(error.to_string(), "`relation_heads` must be in [1, inf), got 0");
    }
}
