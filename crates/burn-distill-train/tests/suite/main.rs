//! Runs from outside: what a run promises about resuming, refusing, stopping, optimising and measuring.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accumulation;
mod devices;
mod fixture;
mod labels;
mod metrics;
mod non_finite;
mod optimizers;
mod prefetch;
mod refusals;
mod resume;
mod settings;
mod tasks;
mod teacher;
mod teacher_cache;
