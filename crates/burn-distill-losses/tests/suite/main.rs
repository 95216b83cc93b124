//! The table-driven suite: every loss is one row of `table.rs` and gets every check of the other files.

mod edges;
mod golden;
mod gradients;
mod inputs;
mod properties;
mod sparse;
mod table;
mod vocabulary;
