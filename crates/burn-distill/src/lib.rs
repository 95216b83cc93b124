#![doc = include_str!("../../../README.md")]

/// Honest evaluation: classification metrics, teacher against student, spread over seeds.
pub use burn_distill_eval as eval;
/// Every loss: logits, features, relations.
pub use burn_distill_losses as losses;
/// Students, teachers, ensembles, connectors, seeded data order.
pub use burn_distill_models as models;
/// Temperature, learning rate and loss weights as functions of the step.
pub use burn_distill_schedules as schedules;
/// Objectives, runs, checkpoints, reports.
pub use burn_distill_train as train;
/// ResNets, image datasets and augmentation.
#[cfg(feature = "vision")]
pub use burn_distill_vision as vision;

#[cfg(doctest)]
mod doctests;
