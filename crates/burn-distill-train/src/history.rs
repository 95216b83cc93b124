//! The metrics of a run, epoch by epoch: kept in memory for those who decide by them, and appended to
//! `metrics.jsonl`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};

use crate::report::MetricsRow;
use crate::state::RunState;

/// Which epoch counts as the best.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Monitor {
    /// The metric's name, as in `metrics.jsonl`; its value on the validation data counts.
    pub metric: String,
    /// Whether a higher value is better.
    pub higher_is_better: bool,
}

impl Monitor {
    /// The epoch with the highest value is the best.
    pub fn highest(metric: &str) -> Self {
        Self { metric: metric.to_string(), higher_is_better: true }
    }

    /// The epoch with the lowest value is the best.
    pub fn lowest(metric: &str) -> Self {
        Self { metric: metric.to_string(), higher_is_better: false }
    }
}

/// All rows so far, shared by those who write them and those who decide by them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<MetricsRow>>>);

impl History {
    pub(crate) fn new(rows: Vec<MetricsRow>) -> Self {
        Self(Arc::new(Mutex::new(rows)))
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, Vec<MetricsRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn valid(&self, epoch: usize, metric: &str) -> Option<f64> {
        let rows = self.rows();
        let row = rows.iter().rev().find(|row| row.epoch == epoch && row.split == "valid")?;
        row.metrics.get(metric).copied()
    }

    /// What decides about the best epoch: what was given, otherwise the accuracy where there are labels, the divergence
    /// from the teacher where there is none, and the total where nothing else is known.
    pub(crate) fn monitor(&self, given: Option<&Monitor>) -> Monitor {
        let rows = self.rows();
        let known = |name: &str| rows.iter().any(|row| row.split == "valid" && row.metrics.contains_key(name));
        match given {
            Some(monitor) => monitor.clone(),
            None if known("accuracy") => Monitor::highest("accuracy"),
            None if known("kl_to_teacher") => Monitor::lowest("kl_to_teacher"),
            None => Monitor::lowest("total"),
        }
    }

    /// The best epoch up to now; of equal ones the earliest.
    pub(crate) fn best(&self, given: Option<&Monitor>) -> Option<(usize, f64)> {
        let monitor = self.monitor(given);
        let rows = self.rows();
        let values = rows.iter().filter(|row| row.split == "valid");
        let values = values.filter_map(|row| Some((row.epoch, *row.metrics.get(&monitor.metric)?)));
        values.filter(|(_, value)| value.is_finite()).reduce(|best, other| {
            let better = if monitor.higher_is_better { other.1 > best.1 } else { other.1 < best.1 };
            if better { other } else { best }
        })
    }
}

/// Appends one line per epoch and split to `metrics.jsonl`.
pub(crate) struct JsonLinesLogger {
    path: PathBuf,
    history: History,
    run: Arc<RunState>,
    names: BTreeMap<String, MetricId>,
    last: Vec<(MetricId, f64)>,
    started: Instant,
}

impl JsonLinesLogger {
    pub(crate) fn new(path: &Path, history: History, run: Arc<RunState>) -> Self {
        let (names, last) = (BTreeMap::new(), Vec::new());
        Self { path: path.into(), history, run, names, last, started: Instant::now() }
    }
}

impl MetricLogger for JsonLinesLogger {
    fn log(&mut self, update: MetricsUpdate, _epoch: usize, _split: &Split) {
        let finals = update.entries_numeric.into_iter().filter_map(|metric| match metric.numeric_entry {
            // What has no value is absent; what is not finite is not.
            Some(NumericEntry::Final(value)) if !metric.entry.serialized_entry.is_not_available() => {
                Some((metric.entry.metric_id, value))
            }
            _ => None,
        });
        self.last.extend(finals);
    }

    fn read_numeric(&mut self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        let rows = self.history.rows();
        let row = rows.iter().find(|row| row.epoch == epoch && row.split == split.to_string());
        let value = row.and_then(|row| row.metrics.get(name));
        Ok(value.map(|value| NumericEntry::Final(*value)).into_iter().collect())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.name.to_string(), definition.metric_id);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let last = std::mem::take(&mut self.last);
        let value = |id: &MetricId| last.iter().find(|(other, _)| other == id).map(|(_, value)| round_trip(*value));
        let metrics = self.names.iter().filter_map(|(name, id)| Some((name.clone(), value(id)?)));
        let row = MetricsRow {
            epoch: summary.epoch_number,
            step: self.run.step(),
            split: summary.split.to_string(),
            metrics: metrics.collect(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        self.started = Instant::now();
        // A run that was interrupted in the middle of an epoch has no row for it.
        if self.run.interrupter.0.should_stop() {
            return;
        }
        if let Err(error) = append(&self.path, &row) {
            log::error!("{}: {error}", self.path.display());
        }
        self.history.rows().push(row);
    }
}

fn append(path: &Path, row: &MetricsRow) -> std::io::Result<()> {
    let mut line = serde_json::to_string(row)?;
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// The value to 15 significant digits, which JSON carries without loss: reading a longer number may lose its last bit,
/// and a resumed run, which reads what the killed one wrote, would decide otherwise.
pub(crate) fn round_trip(value: f64) -> f64 {
    if value.is_finite() { format!("{value:.14e}").parse().unwrap_or(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(bits in any::<u64>()) {
            let value = round_trip(f64::from_bits(bits));
            prop_assume!(value.is_finite());
            let read: f64 = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
            prop_assert_eq!(round_trip(read), value);
        }
    }
}
