//! The public losses: one divergence each.

use burn::{
    config::Config,
    tensor::{Int, Tensor},
};

use super::{
    LinearHead, LinearTeacher,
    chunked::{Chunked, LogitDivergence},
};
use crate::{
    ConfigError, JsdLoss, JsdLossConfig, KdLoss, KdLossConfig, Mask, Reduction, ReverseKlLoss, ReverseKlLossConfig,
    TeacherLogits, VocabularyPolicy, fused::Divergence,
};

macro_rules! linear_loss {
    (
        $(#[$doc:meta])*
        $loss:ident, $config:ident from $plain:ident, $plain_config:ident, temperature $temperature:literal
        $(, $(#[$field_doc:meta])* $field:ident = $default:literal, $with:ident)?
    ) => {
        #[doc = concat!("Configuration of [`", stringify!($loss), "`].")]
        #[derive(Config, Debug)]
        pub struct $config {
            $($(#[$field_doc])*
            #[config(default = $default)]
            pub $field: f64,)?
            /// Temperature that softens both distributions, in (0, inf).
            #[config(default = $temperature)]
            pub temperature: f64,
            /// Weight of the divergence, in [0, inf).
            #[config(default = 1.0)]
            pub soft_weight: f64,
            /// Weight of the cross-entropy with the targets at temperature 1, in [0, inf); above 0 it needs targets.
            #[config(default = 0.0)]
            pub hard_weight: f64,
            /// How tokens become one number.
            #[config(default = "Reduction::Mean")]
            pub reduction: Reduction,
            /// What to do when the vocabularies differ in size.
            #[config(default = "VocabularyPolicy::Error")]
            pub vocabulary: VocabularyPolicy,
            /// Tokens of a chunk, at least 1; as many as the student's hidden states are wide if not given.
            pub chunk_tokens: Option<usize>,
        }

        impl $config {
            /// The loss.
            ///
            /// # Errors
            /// If a value is out of the range that stands beside it.
            pub fn init(&self) -> Result<$loss, ConfigError> {
                let plain = $plain_config::new()
                    $(.$with(self.$field))?
                    .with_temperature(self.temperature)
                    .with_vocabulary(self.vocabulary)
                    .init()?;
                let weights = [self.soft_weight, self.hard_weight];
                let chunked =
                    Chunked::new(self.temperature, weights, self.reduction, self.vocabulary, self.chunk_tokens)?;
                Ok($loss { plain, chunked })
            }
        }

        $(#[$doc])*
        ///
        /// The logits of all tokens never exist: a chunk of tokens is projected, compared and turned into gradients of
        /// hidden states and projection before the next one, so memory grows with a chunk and not with the tokens. The
        /// gradient is finished when `forward` returns; `backward` only scales it.
        ///
        /// **Scale**: that of the loss on logits, times `soft_weight`; nats, times temperature squared, averaged over
        /// unmasked tokens. `hard_weight` times the cross-entropy with the targets beside it.
        ///
        /// # Shapes
        /// - `student`: hidden states `[tokens, hidden]`, projection `[vocabulary, hidden]`, bias `[vocabulary]`;
        /// - `teacher`: its own [`LinearHead`] of any width, or logits of the same tokens, dense or
        ///   [sparse](crate::SparseLogits);
        /// - `targets`: a class id per token; `mask`: a boolean per token, true = counts;
        /// - value: `[1]`.
        ///
        /// # Gradients
        /// To whichever of the student's hidden states, projection and bias take one; the others cost nothing. A
        /// projection that is tied to an embedding is given as it is: its gradients add up. Second derivatives do not
        /// exist.
        ///
        /// # Errors
        #[doc = concat!("[`", stringify!($config), "::init`] if a value is out of its range.")]
        ///
        /// # Panics
        /// `forward` if shapes do not fit together, or if `hard_weight` is not 0 and there are no targets.
        ///
        /// # References
        /// - Hsu et al., *Liger Kernel: Efficient Triton Kernels for LLM Training*, 2024, arXiv 2410.10989: gradients
        ///   computed chunk by chunk in the forward pass (`LigerFusedLinearDistillationBase`).
        #[derive(Debug, Clone)]
        pub struct $loss {
            plain: $plain,
            chunked: Chunked,
        }

        impl $loss {
            /// The same loss at another temperature, for schedules.
            ///
            /// # Panics
            /// If `temperature` is not in (0, inf).
            #[track_caller]
            pub fn at_temperature(&self, temperature: f64) -> Self {
                Self { plain: self.plain.at_temperature(temperature), chunked: self.chunked.at(temperature) }
            }

            /// The reduced loss, `[1]`.
            pub fn forward(
                &self,
                student: LinearHead,
                teacher: impl Into<LinearTeacher>,
                targets: Option<Tensor<1, Int>>,
                mask: impl Into<Mask>,
            ) -> Tensor<1> {
                self.chunked.forward(&self.plain, student, teacher.into(), targets, &mask.into())
            }
        }

        impl LogitDivergence for $plain {
            fn kernel(&self) -> Divergence {
                $plain::kernel(self)
            }

            fn composed(&self, student: Tensor<2>, teacher: TeacherLogits, mask: &Mask) -> Tensor<1> {
                self.composed_rows(student, teacher, mask)
            }
        }
    };
}

linear_loss! {
    /// [`KdLoss`] from hidden states and output projections.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_distill_losses::{KdLossConfig, LinearHead, LinearKdLossConfig};
    ///
    /// let device = Device::flex();
    /// let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    /// let student = LinearHead::new(random([6, 4]), random([10, 4]));
    /// let teacher = LinearHead::new(random([6, 8]), random([10, 8]));
    /// let linear = LinearKdLossConfig::new().with_chunk_tokens(Some(4)).init()?;
    /// let logits = |head: &LinearHead| head.hidden.clone().matmul(head.weight.clone().transpose());
    /// let whole = KdLossConfig::new().with_temperature(1.0).init()?.forward(logits(&student), logits(&teacher), None);
    /// let value = linear.forward(student, teacher, None, None);
    /// assert!((value - whole).abs().into_scalar::<f64>() < 1e-5);
    /// # Ok::<(), burn_distill_losses::ConfigError>(())
    /// ```
    LinearKdLoss, LinearKdLossConfig from KdLoss, KdLossConfig, temperature 1.0
}

linear_loss! {
    /// [`JsdLoss`] from hidden states and output projections.
    LinearJsdLoss, LinearJsdLossConfig from JsdLoss, JsdLossConfig, temperature 1.0,
    /// Weight of the teacher in the mixture, in [0, 1]: 0 is the forward KL, 1 the reverse KL.
    beta = 0.5, with_beta
}

linear_loss! {
    /// [`ReverseKlLoss`] from hidden states and output projections.
    LinearReverseKlLoss, LinearReverseKlLossConfig from ReverseKlLoss, ReverseKlLossConfig, temperature 1.0
}
