use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::ReportError;

/// One line of `metrics.jsonl`: the metrics of one split of the data at one point of the run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct MetricsRow {
    /// The epoch that the row sums up, counted from 1.
    pub epoch: usize,
    /// Optimiser steps done.
    pub step: usize,
    /// `train` or `valid`.
    pub split: String,
    /// Values by name. JSON has no NaN and no infinity: they are written as `null`, which is read as NaN.
    #[serde(deserialize_with = "null_is_nan")]
    pub metrics: BTreeMap<String, f64>,
    /// Seconds that it took.
    pub seconds: f64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// Reads a `metrics.jsonl`. Empty lines are skipped.
///
/// A last line that is cut off (it has no line end and is not a row), as a killed run may leave it, is left out and
/// logged as a warning.
///
/// # Errors
/// If the file cannot be read, or another line is not a row of metrics; the error names the line.
pub fn read_metrics(path: impl AsRef<Path>) -> Result<Vec<MetricsRow>, ReportError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| ReportError::Io { path: path.into(), source })?;
    let mut rows = Vec::new();
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) => rows.push(row),
            // Only the last line can be without its end.
            Err(_) if !line.ends_with(b"\n") => {
                log::warn!("{}, line {}: cut off, left out", path.display(), index + 1);
            }
            Err(source) => return Err(ReportError::Metrics { path: path.into(), line: index + 1, source }),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: usize, loss: f64) -> MetricsRow {
        let metrics = BTreeMap::from([("total".to_string(), loss), ("accuracy".to_string(), 0.5)]);
        MetricsRow { epoch, step: 10 * epoch, split: "train".into(), metrics, seconds: 1.5 }
    }

    fn line(row: &MetricsRow) -> String {
        serde_json::to_string(row).unwrap() + "\n"
    }

    fn read(bytes: &[u8]) -> Result<Vec<MetricsRow>, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, bytes).unwrap();
        read_metrics(path)
    }

    #[test]
    fn rows_come_back_as_written() {
        let rows = [row(1, 2.0), row(2, 1.0)];
        let text = format!("{}\n{}", line(&rows[0]), line(&rows[1]));
        assert_eq!(read(text.as_bytes()).unwrap(), rows);
        assert_eq!(read(text.trim_end().as_bytes()).unwrap(), rows); // whole, though without its line end
        assert_eq!(read(b"").unwrap(), []);
    }

    #[test]
    fn a_torn_last_line_is_left_out_wherever_it_was_cut() {
        let mut second = row(2, 1.0);
        second.split = "später".into();
        let whole = line(&row(1, 2.0));
        let last = line(&second);
        for cut in 0..last.len() - 1 {
            let bytes = [whole.as_bytes(), &last.as_bytes()[..cut]].concat();
            assert_eq!(read(&bytes).unwrap(), [row(1, 2.0)], "cut at {cut}");
        }
    }

    #[test]
    fn another_broken_line_is_an_error_that_names_it() {
        let text = format!("{}{{\"epoch\": 2\n{}", line(&row(1, 2.0)), line(&row(3, 1.0)));
        let message = read(text.as_bytes()).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, line 2: "), "{message}");
        let message = read(b"{}\n").unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("epoch"), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read_metrics("/nowhere/metrics.jsonl").unwrap_err().to_string();
        assert!(message.starts_with("/nowhere/metrics.jsonl: "), "{message}");
    }

    #[test]
    fn values_that_json_lacks_become_nan() {
        let text = line(&row(1, f64::INFINITY));
        assert!(text.contains("null"));
        let rows = read(text.as_bytes()).unwrap();
        assert!(rows[0].metrics["total"].is_nan());
        assert_eq!(rows[0].metrics["accuracy"], 0.5);
    }
}
