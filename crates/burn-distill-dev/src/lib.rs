//! What tests, doctests, examples and benches share: its manifest is their one feature set, and [`device`] says where
//! the suites run.

mod device;

pub use device::{bits_repeat, device, name, supported, tolerance};
