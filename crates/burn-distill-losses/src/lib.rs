//! Knowledge-distillation losses for Burn: logits, features and relations, with one documented scale.
//!
//! A loss compares a student with a teacher and gives a tensor of one element to call `backward` on. It knows nothing
//! of models, weights or schedules. Each is made from a `Config` that is checked once:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_distill_losses::KdLossConfig;
//!
//! let device = Device::flex().autodiff();
//! let student_logits = Tensor::<2>::from_floats([[0.0, 1.0], [2.0, 0.0]], &device).require_grad();
//! let teacher_logits = Tensor::<2>::from_floats([[1.0, 0.0], [2.0, 0.0]], &device);
//!
//! let kd = KdLossConfig::new().with_temperature(4.0).init()?;
//! let loss = kd.forward(student_logits.clone(), teacher_logits, None);
//! let gradient = student_logits.grad(&loss.backward()).unwrap();
//! assert_eq!(gradient.dims(), [2, 2]);
//! # Ok::<(), burn_distill_losses::ConfigError>(())
//! ```
//!
//! # Which losses there are
//!
//! [`LOSSES`] says of each what it compares, needs, learns and costs, and what the literature found; the chapter
//! "Choosing a loss" of the book is made from it.
//!
//! Losses on logits take the student's logits `[.., classes]`, where every leading dimension counts as rows (samples or
//! tokens), an optional [`Mask`] of the rows that count, and anything that becomes [`TeacherLogits`]: dense logits or
//! [`SparseLogits`], the top-k that a cache or a server gives. A number of classes that differs meets a
//! [`VocabularyPolicy`]. Losses on features take the student's and the teacher's activations. Losses on images and texts
//! take [`ClipEmbeddings`] of both. Losses on sequences have a row for each token and a [`Mask`] of tokens, those on
//! attention an [`AttentionMask`]; [`SampledLogits`] are classes drawn from a teacher, and [`align_tokens`] finds where two
//! tokenizers agree.
//!
//! # One scale
//!
//! What `new()` of a configuration makes; constructors named after other libraries, as [`KdLossConfig::trl`], have
//! theirs (see [`Convention`]).
//!
//! - What compares distributions is a true divergence in nats, not the cross-entropy that shares its gradient. A loss that
//!   is no divergence (DIST, TVD, ULD, regression on logits, the contrastive ones) says in its docs what it is.
//! - Always times temperature squared, whatever else is set, so that a temperature does not change a term's weight.
//! - [`Reduction::Mean`] divides by the number of unmasked rows, never by the number of classes. `forward_no_reduction`
//!   gives the rows; for losses over a whole batch (as DIST, SP, RKD) they are defined so that their mean is the loss.
//! - A divergence shrinks with temperature squared while its rounding does not, so in f32 the error of a value grows
//!   with it, here as in PyTorch: relative, about 1e-6 up to T = 20, 1e-4 at 100, 1e-2 at 1000. Gradients are not
//!   affected in this way; in f64 neither is.
//! - Computed in f32 where the student is in half precision (its gradient comes back in half precision), in f64 where it
//!   is in f64; the teacher's type does not matter.
//! - Student first, then teacher, then targets. No gradient ever reaches the teacher.

mod ab;
mod affinity_mimicking;
mod akl;
mod align;
mod attention_kl;
mod attention_mask;
mod attention_mse;
mod attention_transfer;
mod catalogue;
mod cc;
mod clip;
mod clip_augmented;
mod clip_embeddings;
mod clip_feature;
mod clip_gradient;
mod clip_interactive;
mod clip_relation;
mod convention;
mod conventions;
mod crd;
mod cross_entropy;
mod curriculum_temperature;
mod dist;
mod divergence;
mod dkd;
mod draws;
mod dskd;
mod dskd_cma;
mod error;
mod floor;
mod fsp;
mod ft;
mod fused;
mod gold;
mod hidden_cosine;
mod hidden_mse;
mod hint;
mod ickd;
mod jsd;
mod kd;
mod kd_cross_entropy;
mod learned;
mod linear;
mod logit_mse;
mod mask;
mod memory;
mod mgd;
mod minilm;
mod mlkd;
mod multi_teacher_kd;
mod negatives;
mod nkd;
mod norm;
mod nst;
mod ofa;
mod ofd;
mod pkt;
mod pool;
mod precision;
mod random_kd;
mod reduction;
mod reverse_kl;
mod review_kd;
mod rkd;
mod sampled_logits;
mod simkd;
mod skew_kl;
mod skew_reverse_kl;
mod sp;
mod srrl;
mod standardize;
mod teacher_logits;
mod tempered;
mod tf_kd;
mod token_alignment;
mod tvd;
mod uld;
mod vid;
mod vocabulary;
mod vocabulary_map;
mod wsld;

pub use attention_mask::{AttentionMask, HeadPolicy};
pub use catalogue::*;
pub use clip_embeddings::ClipEmbeddings;
pub use convention::{Convention, Denominator, TemperatureScale};
pub use error::{ConfigError, LossError};
pub use fused::KernelPath;
pub use linear::{
    LinearHead, LinearJsdLoss, LinearJsdLossConfig, LinearKdLoss, LinearKdLossConfig, LinearReverseKlLoss,
    LinearReverseKlLossConfig, LinearTeacher,
};
pub use mask::Mask;
pub use negatives::CrdNegatives;
pub use reduction::Reduction;
pub use sampled_logits::SampledLogits;
pub use teacher_logits::{SparseLogits, Tail, TeacherLogits};
pub use token_alignment::{TokenGroup, align_tokens};
pub use vocabulary::VocabularyPolicy;
pub use vocabulary_map::VocabularyMap;
