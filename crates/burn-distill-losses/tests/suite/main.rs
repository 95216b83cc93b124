//! The table-driven suite: every loss is one row of `table.rs` and gets every check of the other files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catalogue;
mod conventions;
mod difference;
mod edges;
mod golden;
mod gradients;
mod inputs;
mod learned;
mod other;
mod properties;
mod sequences;
mod sparse;
mod table;
mod vocabulary;
