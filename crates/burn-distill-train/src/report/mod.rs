//! The record of a run for people: `metrics.jsonl` read back, and `report.html`, one file that opens offline.

mod chart;
mod error;
mod html;
mod metrics;
mod plot;
#[cfg(test)]
mod tests;

use std::path::Path;

use burn_distill_eval::Comparison;

pub(crate) use chart::of_any_task;
pub use error::ReportError;
pub use metrics::{MetricsRow, read_metrics};

use crate::checkpoint::write_atomically;

const STYLE: &str = include_str!("style.css");

/// A table of text; the first column names its row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What the table shows.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
}

/// The report of a run as one HTML file, its charts inside it as SVG: no script, no font, no address.
///
/// ```
/// use burn_distill_train::{MetricsRow, Report, Table};
///
/// let row = |epoch, loss| MetricsRow {
///     epoch,
///     step: 100 * epoch,
///     split: "valid".into(),
///     metrics: [("total".to_string(), loss)].into(),
///     seconds: 1.0,
/// };
/// let html = Report::new("resnet8x4 from resnet32x4")
///     .note("Trained for two epochs.")
///     .metrics(vec![row(1, 2.0), row(2, 1.5)])
///     .table(Table {
///         caption: "Gain over labels alone".into(),
///         header: vec!["seed".into(), "points".into()],
///         rows: vec![vec!["0".into(), "+0.42".into()]],
///     })
///     .to_html()?;
/// assert!(html.contains("<svg") && html.contains("+0.42"));
/// # Ok::<(), burn_distill_train::ReportError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    notes: Vec<String>,
    comparison: Option<Comparison>,
    metrics: Vec<MetricsRow>,
    tables: Vec<Table>,
    config: Option<serde_json::Value>,
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            notes: Vec::new(),
            comparison: None,
            metrics: Vec::new(),
            tables: Vec::new(),
            config: None,
        }
    }

    /// Adds a paragraph below the title.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Sets teacher against student: parameters, multiply-adds, memory, latency, accuracy.
    pub fn comparison(mut self, comparison: Comparison) -> Self {
        self.comparison = Some(comparison);
        self
    }

    /// Sets the rows behind the curves and the table of last values, in the order of the run.
    pub fn metrics(mut self, rows: Vec<MetricsRow>) -> Self {
        self.metrics = rows;
        self
    }

    /// Adds a table.
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    /// Sets the configuration of the run, shown folded at the end.
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.config = Some(config);
        self
    }

    /// The page. It depends on nothing but the report, so the same run gives the same bytes.
    ///
    /// # Errors
    /// If a chart cannot be drawn.
    pub fn to_html(&self) -> Result<String, ReportError> {
        let title = html::escape(&self.title);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        for note in &self.notes {
            page += &format!("<p>{}</p>\n", html::escape(note));
        }
        if let Some(comparison) = &self.comparison {
            page += "<h2>Teacher against student</h2>\n";
            page += &format!("<p class=\"lead\">{}</p>\n", html::escape(&comparison.sentence()));
            page += &html::table(&comparison_table(comparison));
        }
        page += "<h2>Course of the run</h2>\n";
        let charts = chart::charts(&self.metrics);
        if charts.is_empty() {
            page += "<p>No metrics to draw.</p>\n";
        } else {
            page += "<div class=\"charts\">\n";
            for chart in &charts {
                page += &html::figure(chart)?;
            }
            page += "</div>\n";
        }
        let last = (!self.metrics.is_empty()).then(|| html::last_values(&self.metrics));
        if last.is_some() || !self.tables.is_empty() {
            page += "<h2>Numbers</h2>\n<div class=\"tables\">\n";
            page.extend(self.tables.iter().chain(&last).map(html::table));
            page += "</div>\n";
        }
        if let Some(config) = &self.config {
            let config = html::escape(&format!("{config:#}"));
            page += &format!(
                "<h2>Configuration</h2>\n<details><summary>config.json</summary><pre>{config}</pre></details>\n"
            );
        }
        page += "</body>\n</html>\n";
        Ok(page)
    }

    /// Writes the page in one piece: a reader finds the old file or the whole new one.
    ///
    /// # Errors
    /// If a chart cannot be drawn or the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        let path = path.as_ref();
        write_atomically(path, self.to_html()?.as_bytes())
            .map_err(|source| ReportError::Io { path: path.into(), source })
    }
}

fn comparison_table(comparison: &Comparison) -> Table {
    let header = ["", &comparison.teacher.name, &comparison.student.name, "student relative to teacher"];
    let rows = comparison.rows().into_iter().map(|row| vec![row.quantity, row.teacher, row.student, row.change]);
    Table { caption: String::new(), header: header.map(String::from).into(), rows: rows.collect() }
}
