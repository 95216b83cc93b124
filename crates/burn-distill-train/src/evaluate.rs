use burn::data::dataloader::DataLoader;
use burn_distill_eval::ClassificationStats;
use burn_distill_models::Student;

use crate::objective::Classification;
use crate::output::count;

/// Accuracy, calibration and, with teacher logits, agreement of a model over everything a loader gives: for test data
/// that neither training nor the choice of the best epoch has seen.
///
/// The model is put into inference mode; `read` says where logits and targets are.
///
/// # Errors
/// When the loader fails.
///
/// # Panics
/// As [`ClassificationStats::of`], when shapes differ or a target is no class.
pub fn evaluate<S, B, F>(
    model: &S,
    loader: &dyn DataLoader<B>,
    read: F,
) -> Result<ClassificationStats, burn::data::dataset::DatasetError>
where
    S: Student<B>,
    F: Fn(S::Output, &B) -> Classification,
{
    let model = model.valid();
    let device = model.devices().into_iter().next().unwrap_or_default();
    let loader = loader.to_device(&device.inner());
    let mut stats = ClassificationStats::default();
    for batch in loader.iter() {
        let batch = batch?;
        stats.merge(&count(read(model.forward(&batch), &batch)));
    }
    Ok(stats)
}
