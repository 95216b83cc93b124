//! Kernels for rows of f32 or half precision in the memory of this process: rayon over rows, SIMD chosen at run time.
//!
//! `flex` and `libtorch` on the CPU hand them their memory.

mod decoupled;
mod dense;
#[cfg(feature = "flex")]
mod flex;
mod hard;
mod inputs;
mod lanes;
#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")]
mod libtorch;
mod math;
mod memory;
mod row;
mod rows;
mod simd;
mod softmax;
mod sparse;
mod terms;
