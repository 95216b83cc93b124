//! Constructors of configurations under the conventions of other libraries, one file per library.
//!
//! A constructor sets what the library's function fixes or defaults to: temperature, form, temperature squared and
//! denominator. Hard-label parts that such a function mixes in are terms of their own here, and so are the parts of a
//! symmetric divergence. What becomes of a top k's tail is the teacher's [`Tail`](crate::Tail).

mod axolotl;
mod distillkit;
mod distillm;
mod easydistill;
mod liger;
mod mdistiller;
mod model_optimizer;
mod repdistiller;
mod textbrewer;
mod torchdistill;
mod torchtune;
mod trl;

use crate::{Convention, Denominator, TemperatureScale};

/// Without temperature squared, divided by the unmasked rows.
const UNSCALED: Convention = Convention { temperature_scale: TemperatureScale::One, denominator: Denominator::Rows };
