//! The files of a run's folder beside its checkpoints.

use std::path::Path;

use crate::TrainError;
use crate::checkpoint::{remove_file, write_atomically};
use crate::history::round_trip;
use crate::report::{MetricsRow, read_metrics};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const STUDENT: &str = "student.safetensors";
pub(crate) const REPORT: &str = "report.html";

/// The rows of an earlier part of the run, without those of epochs that will be trained again.
pub(crate) fn kept_rows(path: &Path, epochs: usize) -> Result<Vec<MetricsRow>, TrainError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut rows = read_metrics(path)?;
    rows.retain(|row| row.epoch <= epochs);
    for value in rows.iter_mut().flat_map(|row| row.metrics.values_mut()) {
        *value = round_trip(*value);
    }
    let mut text = Vec::new();
    for row in &rows {
        serde_json::to_writer(&mut text, row).map_err(|error| TrainError::io(path)(error.into()))?;
        text.push(b'\n');
    }
    write_atomically(path, &text).map_err(TrainError::io(path))?;
    Ok(rows)
}

/// Deletes what an earlier run left beside its checkpoints, and nothing else.
pub(crate) fn clear(folder: &Path) -> Result<(), TrainError> {
    for path in [CONFIG, METRICS, STUDENT, REPORT].map(|name| folder.join(name)) {
        for path in [path.with_extension("partial"), path] {
            remove_file(&path).map_err(TrainError::io(&path))?;
        }
    }
    Ok(())
}
