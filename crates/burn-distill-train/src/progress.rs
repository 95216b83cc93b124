use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::of_any_task;

/// How a run shows that it is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// The dashboard where standard output is a terminal, lines otherwise.
    #[default]
    Auto,
    /// burn-train's terminal dashboard, with plots.
    Dashboard,
    /// One line per epoch on standard output, and a progress bar on standard error where that is a terminal.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// The renderer, or `None` for burn-train's own dashboard.
    pub(crate) fn renderer(self) -> Option<Box<dyn MetricsRenderer>> {
        match self {
            Self::Dashboard => None,
            Self::Auto if std::io::stdout().is_terminal() => None,
            Self::Auto | Self::Lines => Some(Box::new(LineRenderer::new(true))),
            Self::Silent => Some(Box::new(LineRenderer::new(false))),
        }
    }
}

/// One clean line per epoch, and a bar that leaves no trace.
struct LineRenderer {
    visible: bool,
    bar: ProgressBar,
    names: Vec<MetricDefinition>,
    train: BTreeMap<String, f64>,
    valid: BTreeMap<String, f64>,
    label: String,
    total_epochs: usize,
    epoch_start: Instant,
}

impl LineRenderer {
    fn new(visible: bool) -> Self {
        let (names, train, valid) = Default::default();
        let label = String::new();
        let bar = ProgressBar::hidden();
        Self { visible, bar, names, train, valid, label, total_epochs: 0, epoch_start: Instant::now() }
    }

    /// The name and the final value of a metric, at the end of an epoch.
    fn final_value(&self, state: &MetricState) -> Option<(String, f64)> {
        let MetricState::Numeric(entry, Some(NumericEntry::Final(value))) = state else { return None };
        let definition = self.names.iter().find(|definition| definition.metric_id == entry.metric_id)?;
        Some((definition.name.to_string(), *value))
    }

    fn line(&self, epoch: usize) -> String {
        let mut text = String::new();
        if !self.label.is_empty() {
            text.push_str(&format!("{}  ", self.label));
        }
        text.push_str(&format!("epoch {epoch:>3}/{}", self.total_epochs));
        let shown = |values: &BTreeMap<String, f64>, skip: fn(&str) -> bool| {
            let values = values.iter().filter(|(name, value)| !skip(name) && value.is_finite());
            values.map(|(name, value)| format!("  {name} {}", short(name, *value))).collect::<String>()
        };
        text.push_str("  train");
        text.push_str(&shown(&self.train, |name| {
            name.contains(':') || of_any_task(name).starts_with("kl_") || name.contains("top5")
        }));
        text.push_str("  | valid");
        text.push_str(&shown(&self.valid, |name| name.contains(':') || name == "temperature"));
        text.push_str(&format!("  | {:.1} s", self.epoch_start.elapsed().as_secs_f64()));
        text
    }
}

/// Shares in per cent, everything else in four digits.
fn short(name: &str, value: f64) -> String {
    match of_any_task(name) {
        "accuracy" | "accuracy_top5" | "agreement" => format!("{:.2} %", 100.0 * value),
        name if name.ends_with("_per_second") => format!("{value:.0}"),
        _ if value != 0.0 && value.abs() < 1e-3 => format!("{value:.2e}"),
        _ => format!("{value:.4}"),
    }
}

impl MetricsRendererTraining for LineRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.train.extend(self.final_value(&state));
    }

    fn update_valid(&mut self, state: MetricState) {
        self.valid.extend(self.final_value(&state));
    }
}

impl TrainingProgressLogger for LineRenderer {
    fn start(&mut self, total_epochs: usize, _starting_epoch: usize, _items: Option<usize>, label: Option<&str>) {
        self.total_epochs = total_epochs;
        self.label = label.unwrap_or_default().to_string();
        self.epoch_start = Instant::now();
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.bar.finish_and_clear();
        if self.visible {
            // A closed pipe is the reader's wish to see no more, not an error of the run.
            let _ = writeln!(std::io::stdout(), "{}", self.line(epoch));
        }
        self.train.clear();
        self.valid.clear();
        self.epoch_start = Instant::now();
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        if self.visible && std::io::stderr().is_terminal() {
            self.bar = ProgressBar::new(total_items as u64);
            let style = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len}  {per_sec}  {eta} left");
            self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar.set_prefix(split.to_string());
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    fn update_split(&mut self, items_processed: usize) {
        self.bar.set_position(items_processed as u64);
    }

    fn end_split(&mut self) {
        self.bar.finish_and_clear();
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRenderer for LineRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.push(definition);
    }
}

impl MetricsRendererEvaluation for LineRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for LineRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}
