//! Criterion benches of burn-distill.
