//! Checkpoints that are whole or not there: each part is written under another name and renamed, and the manifest,
//! written last, holds the size and hash of every part.

mod error;
mod identity;
mod store;
mod strategy;

pub use error::CheckpointError;
pub(crate) use identity::RunIdentity;
pub(crate) use store::{CheckpointStore, PartCheckpointer, remove_file, write_atomically};
pub(crate) use strategy::{EpochEnd, other_direction, stops_early};
