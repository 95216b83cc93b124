use burn::tensor::{Bool, Int, Tensor};

use crate::Mask;

/// Which pairs of a query and a key count in a loss on attention: true = counts.
///
/// Every loss on attention takes `impl Into<AttentionMask>`:
/// - `None`: all pairs;
/// - `Tensor<2, Bool>` `[batch, tokens]`: the tokens that are no padding, as queries and as keys (self-attention);
/// - `(Tensor<2, Bool>, Tensor<2, Bool>)`: the queries `[batch, queries]` and the keys `[batch, keys]` (cross-attention);
/// - `Tensor<3, Bool>` `[batch, queries, keys]`: any pairs, as a sliding window leaves them;
/// - [`AttentionMask::causal`]: no padding and no key after its query.
///
/// A query counts if one of its keys does. What does not count contributes neither value nor gradient, whatever it holds
/// (NaN and infinities included), so the `-inf` that a model writes over masked scores does no harm where this mask
/// covers it.
///
/// ```
/// use burn::tensor::{Bool, Device, Tensor};
/// use burn_distill_losses::AttentionMask;
///
/// let tokens = Tensor::<2, Bool>::from_bool([[true, true, false]], &Device::flex());
/// let count = |mask: AttentionMask| mask.pairs().cloned().unwrap().int().sum().into_scalar::<i32>();
/// assert_eq!(count(tokens.clone().into()), 4);
/// assert_eq!(count(AttentionMask::causal(tokens)), 3);
/// ```
#[derive(Debug, Clone)]
pub struct AttentionMask(Option<Tensor<3, Bool>>);

impl From<Option<Tensor<2, Bool>>> for AttentionMask {
    fn from(tokens: Option<Tensor<2, Bool>>) -> Self {
        tokens.map_or(Self(None), Self::from)
    }
}

impl From<Tensor<2, Bool>> for AttentionMask {
    fn from(tokens: Tensor<2, Bool>) -> Self {
        (tokens.clone(), tokens).into()
    }
}

impl From<(Tensor<2, Bool>, Tensor<2, Bool>)> for AttentionMask {
    fn from((queries, keys): (Tensor<2, Bool>, Tensor<2, Bool>)) -> Self {
        let ([batch, rows], [key_batch, columns]) = (queries.dims(), keys.dims());
        assert_eq!(batch, key_batch, "the masks of queries and keys have {batch} and {key_batch} samples");
        let shape = [batch, rows, columns];
        let queries: Tensor<3, Bool> = queries.unsqueeze_dim(2);
        let keys: Tensor<3, Bool> = keys.unsqueeze_dim(1);
        queries.expand(shape).bool_and(keys.expand(shape)).into()
    }
}

impl From<Tensor<3, Bool>> for AttentionMask {
    fn from(pairs: Tensor<3, Bool>) -> Self {
        Self(Some(pairs.without_autodiff()))
    }
}

impl AttentionMask {
    /// The pairs of causal self-attention: `tokens` `[batch, tokens]` that are no padding, and no key after its query.
    pub fn causal(tokens: Tensor<2, Bool>) -> Self {
        let [batch, length] = tokens.dims();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &tokens.device());
        let queries: Tensor<2, Int> = positions.clone().unsqueeze_dim(1);
        let keys: Tensor<2, Int> = positions.unsqueeze_dim(0);
        let past = keys.expand([length, length]).lower_equal(queries.expand([length, length]));
        let past: Tensor<3, Bool> = past.unsqueeze_dim(0);
        let Self(pairs) = tokens.into();
        Self(pairs.map(|pairs| pairs.bool_and(past.expand([batch, length, length]))))
    }

    /// The pairs that count, `[batch, queries, keys]`; `None` when all do.
    pub fn pairs(&self) -> Option<&Tensor<3, Bool>> {
        self.0.as_ref()
    }

    /// The queries that count, one row for each of `[batch, queries]`.
    pub(crate) fn queries(&self) -> Mask {
        let queries = |pairs: &Tensor<3, Bool>| pairs.clone().any_dim(2).flatten::<1>(0, 2);
        self.0.as_ref().map(queries).into()
    }

    /// `scores` `[batch, heads, queries, keys]` with `value` at every pair that does not count.
    ///
    /// # Panics
    /// If the mask has another batch, other queries or other keys.
    #[track_caller]
    pub(crate) fn fill(&self, scores: Tensor<4>, value: f64) -> Tensor<4> {
        let Some(pairs) = &self.0 else { return scores };
        let [batch, heads, queries, keys] = scores.dims();
        assert_eq!(pairs.dims(), [batch, queries, keys], "`mask` must have one value for each query and key");
        let hidden: Tensor<4, Bool> = pairs.clone().bool_not().unsqueeze_dim(1);
        scores.mask_fill(hidden.expand([batch, heads, queries, keys]), value)
    }

    /// Number of keys of each query that count, at least 1, `[batch, 1, queries, 1]`, in the type of `like`.
    pub(crate) fn key_counts(&self, like: &Tensor<4>) -> Tensor<4> {
        let [batch, _, queries, keys] = like.dims();
        match &self.0 {
            Some(pairs) => {
                let count = pairs.clone().float().cast(like.dtype()).sum_dim(2).clamp_min(1.0);
                count.reshape([batch, 1, queries, 1])
            }
            None => {
                Tensor::full([batch, 1, queries, 1], keys as f64, (&like.device(), like.dtype())).without_autodiff()
            }
        }
    }

    /// `vectors` `[batch, tokens, width]` with 0 at every token that takes part in no pair, for self-attention.
    #[track_caller]
    pub(crate) fn fill_tokens(&self, vectors: Tensor<3>) -> Tensor<3> {
        let Some(pairs) = &self.0 else { return vectors };
        let dims = vectors.dims();
        assert_eq!(pairs.dims(), [dims[0], dims[1], dims[1]], "`mask` must have one value for each pair of tokens");
        let as_query = pairs.clone().any_dim(2);
        let as_key = pairs.clone().any_dim(1).swap_dims(1, 2);
        vectors.mask_fill(as_query.bool_or(as_key).bool_not().expand(dims), 0.0)
    }
}

/// What to do when student and teacher have different numbers of attention heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HeadPolicy {
    /// Heads are compared one by one; the loss panics with a message that names both numbers if they differ.
    #[default]
    Match,
    /// The mean over the heads is taken on each side, and the means are compared.
    Mean,
}

/// The heads of both sides must be as many, unless their means are compared; the other dimensions always.
#[track_caller]
pub(crate) fn assert_attention(student: [usize; 4], teacher: [usize; 4], policy: HeadPolicy) {
    let [[batch, heads, queries, keys], [teacher_batch, teacher_heads, teacher_queries, teacher_keys]] =
        [student, teacher];
    assert_eq!(
        [batch, queries, keys],
        [teacher_batch, teacher_queries, teacher_keys],
        "`student` and `teacher` must have the same batch, queries and keys"
    );
    assert!(
        policy == HeadPolicy::Mean || heads == teacher_heads,
        "`student` has {heads} heads and `teacher` {teacher_heads}; choose `HeadPolicy::Mean` to compare their means"
    );
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn flags<const D: usize>(tensor: Tensor<D, Bool>) -> Vec<bool> {
        tensor.into_data().try_to_vec::<bool>().unwrap()
    }

    #[test]
    fn a_query_counts_if_a_key_does() {
        let device = Device::flex();
        let tokens = Tensor::<2, Bool>::from_bool([[false, true, true]], &device);
        let causal = AttentionMask::causal(tokens.clone());
        let expected = [false, false, false, false, true, false, false, true, true];
        assert_eq!(flags(causal.pairs().unwrap().clone()), expected);
        assert_eq!(flags(causal.queries().rows().unwrap().clone()), [false, true, true]);
        let keys = Tensor::<2, Bool>::from_bool([[true, false]], &device);
        let cross = AttentionMask::from((tokens, keys));
        assert_eq!(flags(cross.pairs().unwrap().clone()), [false, false, true, false, true, false]);
    }
}
