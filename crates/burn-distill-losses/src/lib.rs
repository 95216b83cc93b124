//! Knowledge-distillation losses for Burn: logits, features and relations, with one documented scale.

mod align;
mod cross_entropy;
mod divergence;
mod error;
mod floor;
mod kd;
mod mask;
mod reduction;
mod teacher_logits;
mod vocabulary;

pub use cross_entropy::{CrossEntropyLoss, CrossEntropyLossConfig};
pub use error::{ConfigError, LossError};
pub use kd::{KdLoss, KdLossConfig};
pub use mask::Mask;
pub use reduction::Reduction;
pub use teacher_logits::{SparseLogits, Tail, TeacherLogits};
pub use vocabulary::VocabularyPolicy;
