use burn::{
    config::Config,
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData},
};

use crate::{
    ConfigError, Mask, Reduction, TokenGroup, VocabularyMap,
    divergence::jensen_shannon,
    error::expect_temperature,
    floor::log_softmax,
    precision::{constant, widen},
    uld::sorted_distance,
};

/// How the distributions of the tokens of a group become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TokenMerge {
    /// The distribution of the first token, times the probabilities of the later tokens that stand in the text (TRL's
    /// "observed").
    #[default]
    First,
    /// The distribution of the last token, times the probabilities of the earlier tokens that stand in the text: the chain
    /// rule (TRL's "bayesian").
    Last,
}

/// How [`GoldLoss`] weighs the tokens that both vocabularies have against the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum HybridWeights {
    /// The matched tokens by their share of the teacher's vocabulary, the others by the rest to 1.
    #[default]
    Overlap,
    /// Fixed weights, each in [0, inf).
    Fixed {
        /// Weight of the divergence over matched tokens.
        matched: f64,
        /// Weight of the sorted distance over the others.
        unmatched: f64,
    },
}

/// Configuration of [`GoldLoss`].
#[derive(Config, Debug)]
pub struct GoldLossConfig {
    /// How the distributions of a group's tokens become one.
    #[config(default = "TokenMerge::First")]
    pub merge: TokenMerge,
    /// Weights of the two parts.
    #[config(default = "HybridWeights::Overlap")]
    pub weights: HybridWeights,
    /// Weight of the teacher in the mixture of the Jensen-Shannon divergence over matched tokens, in [0, 1], as in
    /// [`JsdLoss`](crate::JsdLoss).
    #[config(default = 0.5)]
    pub beta: f64,
    /// Temperature that softens both distributions, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How groups become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl GoldLossConfig {
    /// The loss for two vocabularies.
    ///
    /// # Errors
    /// If `beta` is not in [0, 1], `temperature` not in (0, inf), or a fixed weight not in [0, inf).
    pub fn init(&self, vocabulary: VocabularyMap) -> Result<GoldLoss, ConfigError> {
        let weights = match self.weights {
            HybridWeights::Overlap => {
                let share = vocabulary.pairs().len() as f64 / vocabulary.teacher().max(1) as f64;
                [share, 1.0 - share]
            }
            HybridWeights::Fixed { matched, unmatched } => [
                ConfigError::check_weight("weights.matched", matched)?,
                ConfigError::check_weight("weights.unmatched", unmatched)?,
            ],
        };
        Ok(GoldLoss {
            merge: self.merge,
            weights,
            beta: ConfigError::unless((0.0..=1.0).contains(&self.beta), "beta", "[0, 1]", self.beta)?,
            temperature: ConfigError::check_temperature(self.temperature)?,
            reduction: self.reduction,
            vocabulary,
        })
    }
}

/// One side's logits, the tokens that stand in the text, and where they stand: input of [`GoldLoss`].
#[derive(Debug, Clone)]
pub struct TokenLogits {
    /// Logits `[batch, tokens, classes]`; those at position t predict token t (a causal model's are shifted by one).
    pub logits: Tensor<3>,
    /// The tokens of the text `[batch, tokens]`.
    pub ids: Tensor<2, Int>,
}

/// GOLD: universal logit distillation on groups of tokens that cover the same bytes; what both vocabularies have is
/// compared directly, the rest sorted.
///
/// ```text
/// P = merged distribution of a group: p_first · Π p_later(token), or p_last · Π p_earlier(token)
/// loss = T² · mean over groups of  matched weight   · JSD_β over the matched tokens
///                                + unmatched weight · Σ_i |P↓_i - Q↓_i| over the others
/// ```
///
/// The groups come from [`align_tokens`](crate::align_tokens). A merged distribution does not sum to 1, and the matched
/// tokens are a part of it, so the divergence is a partial sum: it can be negative, as in TRL. With a [`VocabularyMap`]
/// without pairs the loss is [`UldLoss`](crate::UldLoss) on merged tokens.
///
/// **Scale**: nats for the matched part, [0, 2] for the other; times temperature squared (TRL: none, and a temperature for
/// each side). Mean over the groups of the batch; TRL takes the mean over a sample's groups and then over samples, so that
/// a group of a short answer weighs more. TRL bounds each probability of the divergence from below by 1e-8.
///
/// In TRL's "observed" strategy the logits at position t, which predict token t + 1, are multiplied as if they predicted
/// token t; here both strategies ask for logits that predict the token at their own position.
///
/// # Shapes
/// - `student`: logits `[batch, tokens, student classes]` and ids `[batch, tokens]`; `teacher`: its own tokens and classes;
/// - `groups`: for each sample its groups, positions in the sequences. What no group holds (prompt, padding) takes no part;
/// - value: `[1]`, or `[groups]` from `forward_no_reduction`, sample after sample. A batch without groups gives one row, 0.
///
/// # Gradients
/// To the student's logits only.
///
/// # Errors
/// [`GoldLossConfig::init`] if a field is out of its range.
///
/// # Panics
/// `forward` if the classes are not the map's, the batches differ, or a group is empty or leaves its sequence.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_distill_losses::{GoldLossConfig, HybridWeights, TokenLogits, VocabularyMap, align_tokens};
///
/// let device = Device::flex();
/// // The student writes two tokens where the teacher writes one.
/// let student = TokenLogits {
///     logits: Tensor::<3>::from_floats([[[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]], &device).log(),
///     ids: Tensor::<2, Int>::from_ints([[0, 1]], &device),
/// };
/// let teacher = TokenLogits {
///     logits: Tensor::<3>::from_floats([[[0.25, 0.5, 0.25]]], &device).log(),
///     ids: Tensor::<2, Int>::from_ints([[1]], &device),
/// };
/// let groups = vec![align_tokens(&[2, 5], &[5])?];
/// let map = VocabularyMap::new(vec![], 3, 3)?;
/// // Merged: 0.5 · (0.6, 0.3, 0.1), sorted against (0.5, 0.25, 0.25): 0.2 + 0.1 + 0.2.
/// let value = GoldLossConfig::new().init(map)?.forward(student, teacher, &groups).into_scalar::<f64>();
/// assert!((value - 0.5).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
/// - *General Online Logit Distillation (GOLD)*, Hugging Face TRL, 2025, `docs/source/gold_trainer.md`.
/// - Reference code: TRL `trl/experimental/gold/gold_trainer.py` at 35def3ee (`ULDLoss`).
#[derive(Debug, Clone)]
pub struct GoldLoss {
    merge: TokenMerge,
    weights: [f64; 2],
    beta: f64,
    temperature: f64,
    reduction: Reduction,
    vocabulary: VocabularyMap,
}

impl GoldLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each group, `[groups]`.
    pub fn forward_no_reduction(
        &self,
        student: TokenLogits,
        teacher: TokenLogits,
        groups: &[Vec<TokenGroup>],
    ) -> Tensor<1> {
        let ([batch, _, classes], [teacher_batch, _, teacher_classes]) = (student.logits.dims(), teacher.logits.dims());
        assert_eq!([batch, teacher_batch], [groups.len(); 2], "student, teacher and `groups` must have the same batch");
        assert_eq!(
            [classes, teacher_classes],
            [self.vocabulary.student(), self.vocabulary.teacher()],
            "the classes of student and teacher must be the vocabulary map's"
        );
        let student_logits = widen(student.logits);
        if groups.iter().all(Vec::is_empty) {
            let nothing = student_logits.zeros_like().bool().bool_not();
            return student_logits.mask_fill(nothing, 0.0).sum();
        }
        let teacher_logits = constant(teacher.logits, student_logits.dtype());
        let side = |side: fn(&TokenGroup) -> &std::ops::Range<usize>| {
            groups.iter().map(|groups| groups.iter().map(|group| side(group).clone()).collect()).collect::<Vec<_>>()
        };
        let student = self.merged(student_logits, student.ids, &side(|group| &group.student));
        let teacher = self.merged(teacher_logits, teacher.ids, &side(|group| &group.teacher));
        self.hybrid(student, teacher).mul_scalar(self.temperature.powi(2))
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: TokenLogits, teacher: TokenLogits, groups: &[Vec<TokenGroup>]) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, groups), &Mask::from(None))
    }

    /// Log-probabilities of the merged tokens, `[groups, classes]`.
    #[track_caller]
    fn merged(&self, logits: Tensor<3>, ids: Tensor<2, Int>, groups: &[Vec<std::ops::Range<usize>>]) -> Tensor<2> {
        let [batch, tokens, _] = logits.dims();
        assert_eq!(ids.dims(), [batch, tokens], "`ids` must have one token per row of `logits`");
        // Rows of the sequences that take part, where the full distribution of each group is among them, and which others
        // of them belong to which group.
        let (mut rows, mut full, mut others, mut owner) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sample, groups) in groups.iter().enumerate() {
            for group in groups {
                assert!(
                    group.start < group.end && group.end <= tokens,
                    "a group covers the tokens {group:?} of a sequence of {tokens}"
                );
                let merged = full.len() as i64;
                let whole = match self.merge {
                    TokenMerge::First => group.start,
                    TokenMerge::Last => group.end - 1,
                };
                for token in group.clone() {
                    let row = rows.len() as i64;
                    rows.push((sample * tokens + token) as i64);
                    if token == whole {
                        full.push(row);
                    } else {
                        others.push(row);
                        owner.push(merged);
                    }
                }
            }
        }
        let device = logits.device();
        let select = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let groups = full.len();
        let rows = select(rows);
        let log_probs = log_softmax(logits.flatten::<2>(0, 1).select(0, rows.clone()), self.temperature);
        let ids = ids.without_autodiff().reshape([batch * tokens, 1]).select(0, rows);
        let whole = log_probs.clone().select(0, select(full));
        if others.is_empty() {
            return whole;
        }
        let in_text = log_probs.gather(1, ids).select(0, select(others));
        let zeros = Tensor::zeros([groups, 1], (&device, in_text.dtype()));
        whole + zeros.select_assign(0, select(owner), in_text, IndexingUpdateOp::Add)
    }

    /// The hybrid of divergence and sorted distance of each group, from log-probabilities `[groups, classes]`.
    fn hybrid(&self, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        let device = student.device();
        let pick = |log_probs: &Tensor<2>, ids: Vec<i64>| {
            let count = ids.len();
            log_probs.clone().select(1, Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &device))
        };
        let mut total = student.clone().narrow(1, 0, 1).squeeze_dim::<1>(1).mul_scalar(0.0);
        let (ours, theirs) = self.vocabulary.matched();
        if !ours.is_empty() {
            let divergence = jensen_shannon(pick(&student, ours), pick(&teacher, theirs), self.beta);
            total = total + divergence.mul_scalar(self.weights[0]);
        }
        let (ours, theirs) = self.vocabulary.unmatched();
        if !ours.is_empty() && !theirs.is_empty() {
            let distance = sorted_distance(pick(&student, ours).exp(), pick(&teacher, theirs).exp());
            total = total + distance.mul_scalar(self.weights[1]);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    use super::*;
    use crate::{UldLossConfig, align_tokens};

    fn side(probs: &[[f32; 3]], ids: &[i64]) -> TokenLogits {
        let device = Device::flex();
        let tokens = ids.len();
        TokenLogits {
            logits: Tensor::<1>::from_floats(probs.as_flattened(), &device).log().reshape([1, tokens, 3]),
            ids: Tensor::from_data(TensorData::new(ids.to_vec(), [1, tokens]), &device),
        }
    }

    fn merged(merge: TokenMerge) -> Vec<f32> {
        let map = VocabularyMap::new(vec![], 3, 3).unwrap();
        let loss = GoldLossConfig::new().with_merge(merge).init(map).unwrap();
        let TokenLogits { logits, ids } = side(&[[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], &[2, 0, 1]);
        let merged = loss.merged(logits, ids, &[vec![0..1, 1..3]]);
        merged.narrow(0, 1, 1).exp().into_data_as::<f32>().try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn merged_probabilities_are_those_of_trl() {
        // The published expectations of TRL's tests of its two strategies.
        for (got, expected) in merged(TokenMerge::First).iter().zip([0.30, 0.15, 0.05]) {
            assert_relative_eq!(*got, expected, max_relative = 1e-5);
        }
        for (got, expected) in merged(TokenMerge::Last).iter().zip([0.12, 0.30, 0.18]) {
            assert_relative_eq!(*got, expected, max_relative = 1e-5);
        }
    }

    #[test]
    fn without_merges_and_matches_it_is_uld() {
        let student = side(&[[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], &[0, 1]);
        let teacher = side(&[[0.1, 0.8, 0.1], [0.4, 0.4, 0.2]], &[1, 2]);
        let groups = vec![align_tokens(&[3, 5], &[3, 5]).unwrap()];
        let map = VocabularyMap::new(vec![], 3, 3).unwrap();
        let gold = GoldLossConfig::new().with_temperature(2.0).init(map).unwrap();
        let uld = UldLossConfig::new().with_temperature(2.0).init().unwrap();
        let expected = uld.forward(student.logits.clone(), teacher.logits.clone(), None).into_scalar::<f32>();
        assert_relative_eq!(
            gold.forward(student, teacher, &groups).into_scalar::<f32>(),
            expected,
            max_relative = 1e-6
        );
    }

    #[test]
    fn equal_vocabularies_are_compared_by_divergence_alone() {
        let student = side(&[[0.6, 0.3, 0.1]], &[0]);
        let teacher = side(&[[0.5, 0.4, 0.1]], &[0]);
        let map = VocabularyMap::from_tokens(&["a", "b", "c"], &["a", "b", "c"]);
        let loss = GoldLossConfig::new().init(map).unwrap();
        let value = loss.forward(student, teacher, &[align_tokens(&[1], &[1]).unwrap()]).into_scalar::<f64>();
        // TRL's test of the divergence on probabilities: half of both KL to the mixture (0.55, 0.35, 0.1).
        let kl = |p: [f64; 2]| p[0] * (p[0] / 0.55).ln() + p[1] * (p[1] / 0.35).ln();
        assert_relative_eq!(value, (kl([0.6, 0.3]) + kl([0.5, 0.4])) / 2.0, max_relative = 1e-4);
    }

    #[test]
    fn a_batch_without_groups_gives_zero_and_no_gradient() {
        let device = Device::flex().autodiff();
        let student = Tensor::<3>::full([1, 2, 3], f32::NAN, &device).require_grad();
        let ids = Tensor::<2, Int>::zeros([1, 2], &device);
        let map = VocabularyMap::new(vec![(0, 0)], 3, 3).unwrap();
        let given = |logits| TokenLogits { logits, ids: ids.clone() };
        let loss = GoldLossConfig::new().init(map).unwrap();
        let value = loss.forward(given(student.clone()), given(student.clone()), &[vec![]]);
        let gradient = student.grad(&value.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert_eq!(value.into_scalar::<f32>(), 0.0);
        assert_eq!(gradient, [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "a group covers the tokens 1..3 of a sequence of 2")]
    fn groups_must_lie_in_the_sequence() {
        let student = side(&[[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], &[0, 1]);
        let map = VocabularyMap::new(vec![], 3, 3).unwrap();
        let group = TokenGroup { student: 1..3, teacher: 0..1 };
        GoldLossConfig::new().init(map).unwrap().forward(student.clone(), student, &[vec![group]]);
    }
}
