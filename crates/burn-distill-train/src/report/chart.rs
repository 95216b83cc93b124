//! Which charts a run has, and what is on them.

use std::collections::{BTreeMap, BTreeSet};

use super::MetricsRow;

/// How the values of a chart are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Number,
    Percent,
}

/// One curve: the values of one metric on one split. A NaN is a gap.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) split: String,
    pub(crate) points: Vec<(usize, f64)>,
}

/// Metrics of one kind over the course of the run.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) x_label: &'static str,
    pub(crate) series: Vec<Series>,
}

/// The charts' titles in their order, and how they write values.
const KINDS: [(&str, Unit); 10] = [
    ("Loss terms", Unit::Number),
    ("Accuracy and agreement with the teacher", Unit::Percent),
    ("Temperature", Unit::Number),
    ("Learning rate", Unit::Number),
    ("Weights of the terms", Unit::Number),
    ("Distance from the teacher: KL in nats", Unit::Number),
    ("Negative log-likelihood in nats", Unit::Number),
    ("Expected calibration error", Unit::Percent),
    ("Gradient norm", Unit::Number),
    ("Throughput: items per second", Unit::Number),
];

/// The chart that shows a metric, as an index of [`KINDS`]. A name that is none of the known ones is a loss term.
fn kind(name: &str) -> usize {
    match of_any_task(name) {
        "accuracy" | "accuracy_top5" | "agreement" | "teacher_accuracy" => 1,
        "temperature" => 2,
        "learning_rate" => 3,
        "kl_to_teacher" => 5,
        "negative_log_likelihood" => 6,
        "calibration_error" => 7,
        "grad_norm" => 8,
        name if name.starts_with("weight:") => 4,
        name if name.ends_with("_per_second") => 9,
        _ => 0,
    }
}

/// A metric without the task that it is of: `accuracy` of `orientation/accuracy`.
pub(crate) fn of_any_task(name: &str) -> &str {
    match name.split_once('/') {
        Some((task, metric)) if !task.contains(':') => metric,
        _ => name,
    }
}

/// How values of `name` are written.
pub(crate) fn unit(name: &str) -> Unit {
    KINDS[kind(name)].1
}

/// The charts of `rows`; those without a finite value are left out.
pub(crate) fn charts(rows: &[MetricsRow]) -> Vec<Chart> {
    let (x_label, x) = axis(rows);
    let names: BTreeSet<&str> = rows.iter().flat_map(|row| row.metrics.keys().map(String::as_str)).collect();
    let splits: BTreeSet<&str> = rows.iter().map(|row| row.split.as_str()).collect();
    let mut charts: Vec<Chart> =
        KINDS.map(|(title, unit)| Chart { title, unit, x_label, series: Vec::new() }).into_iter().collect();
    for name in names {
        for &split in &splits {
            let of_split = rows.iter().filter(|row| row.split == split);
            let value = |row: &MetricsRow| row.metrics.get(name).copied().unwrap_or(f64::NAN);
            let points: Vec<_> = of_split.map(|row| (x(row), value(row))).collect();
            if points.iter().any(|(_, value)| value.is_finite()) {
                charts[kind(name)].series.push(Series { name: name.into(), split: split.into(), points });
            }
        }
    }
    charts.retain(|chart| !chart.series.is_empty());
    charts
}

/// Epochs, or optimiser steps where a split has several rows in one epoch.
fn axis(rows: &[MetricsRow]) -> (&'static str, fn(&MetricsRow) -> usize) {
    let mut seen = BTreeSet::new();
    match rows.iter().all(|row| seen.insert((&row.split, row.epoch))) {
        true => ("epoch", |row| row.epoch),
        false => ("optimiser step", |row| row.step),
    }
}

/// The last row of each split.
pub(crate) fn last_rows(rows: &[MetricsRow]) -> BTreeMap<&str, &MetricsRow> {
    rows.iter().map(|row| (row.split.as_str(), row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: usize, step: usize, split: &str, metrics: &[(&str, f64)]) -> MetricsRow {
        let metrics = metrics.iter().map(|&(name, value)| (name.to_string(), value)).collect();
        MetricsRow { epoch, step, split: split.into(), metrics, seconds: 1.0 }
    }

    #[test]
    fn every_metric_finds_its_chart() {
        let names = ["hard", "review", "total", "accuracy", "agreement", "temperature", "learning_rate", "weight:kd"];
        let more = ["kl_to_teacher", "calibration_error", "grad_norm", "tokens_per_second", "negative_log_likelihood"];
        let metrics: Vec<_> = names.iter().chain(&more).map(|&name| (name, 1.0)).collect();
        let charts = charts(&[row(1, 5, "train", &metrics)]);
        let names: Vec<Vec<&str>> =
            charts.iter().map(|chart| chart.series.iter().map(|series| series.name.as_str()).collect()).collect();
        let expected: [&[&str]; 10] = [
            &["hard", "review", "total"],
            &["accuracy", "agreement"],
            &["temperature"],
            &["learning_rate"],
            &["weight:kd"],
            &["kl_to_teacher"],
            &["negative_log_likelihood"],
            &["calibration_error"],
            &["grad_norm"],
            &["tokens_per_second"],
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_row_without_the_metric_is_a_gap() {
        let rows = [row(1, 1, "train", &[("kd", 3.0)]), row(2, 2, "train", &[]), row(3, 3, "train", &[("kd", 1.0)])];
        let points = charts(&rows)[0].series[0].points.clone();
        assert_eq!(points[0], (1, 3.0));
        assert!(points[1].0 == 2 && points[1].1.is_nan());
        assert_eq!(points[2], (3, 1.0));
    }

    #[test]
    fn several_rows_in_an_epoch_are_drawn_over_steps() {
        let epochs = [row(1, 10, "train", &[("kd", 1.0)]), row(1, 10, "valid", &[("kd", 1.0)])];
        assert_eq!(charts(&epochs)[0].x_label, "epoch");
        let steps = [row(1, 10, "train", &[("kd", 1.0)]), row(1, 20, "train", &[("kd", 1.0)])];
        let chart = &charts(&steps)[0];
        assert_eq!((chart.x_label, chart.series[0].points[1].0), ("optimiser step", 20));
    }

    #[test]
    fn nothing_finite_is_no_chart() {
        assert!(charts(&[row(1, 1, "train", &[("kd", f64::NAN), ("hard", f64::INFINITY)])]).is_empty());
        assert!(charts(&[]).is_empty());
    }
}
