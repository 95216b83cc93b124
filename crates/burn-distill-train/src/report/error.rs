use std::path::PathBuf;

/// Why metrics could not be read or a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of `metrics.jsonl` is not a row of metrics.
    #[error("{}, line {line}: {source}", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A chart could not be drawn.
    #[error("chart \"{chart}\": {source}")]
    Chart {
        /// Its title.
        chart: String,
        /// What the plotting library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
