//! Temperatures, learning rates and loss weights that change during a distillation, as pure functions of the step.
//!
//! A [`Schedule`] is a value: it is built once, checked once, saved as JSON with the run, and asked
//! `value(step) -> f64`. `step` counts optimiser steps from 0. It holds no state, so a run resumes from its step
//! alone, and after its end a schedule holds its last value.
//!
//! # Example
//!
//! A run of 1000 steps: the temperature anneals from 8 to 1 along a cosine, and the learning rate warms up for 100
//! steps, then falls along a cosine for the other 900.
//!
//! ```
//! use burn_distill_schedules::Schedule;
//!
//! let temperature = Schedule::cosine(8.0, 1.0, 1000)?;
//! assert_eq!(temperature.value(0), 8.0);
//! assert!((temperature.value(500) - 4.5).abs() < 1e-12);
//! assert_eq!(temperature.value(1000), 1.0);
//!
//! let learning_rate = Schedule::cosine(1e-3, 1e-5, 900)?.with_warmup(100)?;
//! assert_eq!(learning_rate.value(0), 0.0);
//! assert_eq!(learning_rate.value(50), 5e-4);
//! assert_eq!(learning_rate.value(100), 1e-3);
//! assert_eq!(learning_rate.value(1000), 1e-5);
//! assert_eq!(learning_rate.end(), Some(1000));
//! # Ok::<(), burn_distill_schedules::ScheduleError>(())
//! ```
//!
//! # Choosing one
//!
//! | shape | constructor | counterpart in PyTorch |
//! |---|---|---|
//! | flat | [`Schedule::constant`] | `ConstantLR` with factor 1 |
//! | straight line | [`Schedule::linear`] | `LinearLR` |
//! | power of the remaining steps | [`Schedule::polynomial`] | `PolynomialLR` |
//! | half a cosine | [`Schedule::cosine`] | `CosineAnnealingLR` |
//! | half cosines, repeated | [`Schedule::cosine_restarts`] | `CosineAnnealingWarmRestarts` |
//! | exponential decay | [`Schedule::exponential`], [`Schedule::exponential_with_floor`] | `ExponentialLR` |
//! | staircase | [`Schedule::step_decay`], [`Schedule::multi_step`] | `StepLR`, `MultiStepLR` |
//! | one rise, one long fall | [`Schedule::one_cycle`], [`Schedule::one_cycle_with`] | `OneCycleLR` |
//! | rise, plateau, fall | [`Schedule::warmup_stable_decay`] | none |
//! | warm-up before anything | [`Schedule::with_warmup`], [`Schedule::with_warmup_from`] | `SequentialLR` |
//! | one after another | [`Schedule::then`] | `SequentialLR` |
//!
//! Those with a counterpart are tested against its numbers, written by `golden/schedules.py`.
//!
//! Two look at the run instead of the step, and so have a small state that is saved with it: [`ReduceOnPlateau`]
//! shrinks a schedule when a metric stops improving, and [`GapTemperature`] follows the gap between teacher and
//! student.
//!
//! # With Burn
//!
//! The feature `burn` adds [`ScheduledLr`] and [`PlateauLr`], which are learning-rate schedulers for Burn's optimisers
//! and for burn-train. Without it the crate does not depend on Burn.
#![cfg_attr(not(feature = "burn"), doc = "")]
#![cfg_attr(not(feature = "burn"), doc = "[`ScheduledLr`]: https://docs.rs/burn-distill-schedules")]
#![cfg_attr(not(feature = "burn"), doc = "[`PlateauLr`]: https://docs.rs/burn-distill-schedules")]

mod constant;
mod cosine;
mod cosine_restarts;
mod error;
mod exponential;
mod gap;
mod interpolate;
mod linear;
#[cfg(feature = "burn")]
mod lr;
mod multi_step;
mod one_cycle;
mod piecewise;
mod plateau;
#[cfg(feature = "burn")]
mod plateau_lr;
mod polynomial;
mod schedule;
mod shape;
mod step_decay;
mod warmup;
mod warmup_stable_decay;

pub use error::ScheduleError;
pub use gap::{GapState, GapTemperature};
#[cfg(feature = "burn")]
pub use lr::ScheduledLr;
pub use plateau::{PlateauMode, PlateauState, ReduceOnPlateau, ThresholdMode};
#[cfg(feature = "burn")]
pub use plateau_lr::{PlateauHandle, PlateauLr};
pub use schedule::Schedule;
