use std::fmt;

use anyhow::{Context, Result};
use burn_distill::eval::{Summary, paired_difference};

/// What several seeds gave: a row per method, `N` columns of numbers.
pub struct Table<const N: usize> {
    columns: [&'static str; N],
    rows: Vec<(String, Vec<[f64; N]>)>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub fn new(columns: [&'static str; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds the numbers of one more seed to a method's row. Every method is given the same seeds in the same order.
    pub fn add(&mut self, method: &str, values: [f64; N]) {
        match self.rows.iter_mut().find(|(name, _)| name == method) {
            Some((_, rows)) => rows.push(values),
            None => self.rows.push((method.to_string(), vec![values])),
        }
    }

    /// One column of a method, seed by seed.
    pub fn column(&self, method: &str, column: &str) -> Result<Vec<f64>> {
        let (_, rows) = self.rows.iter().find(|(name, _)| name == method).context("a method that was not run")?;
        let index = self.columns.iter().position(|name| *name == column).context("a column that is not there")?;
        Ok(rows.iter().map(|values| values[index]).collect())
    }

    /// What `method` gained over `baseline` in a column, paired by seed, and whether that is more than chance. More is
    /// better.
    pub fn gain(&self, method: &str, baseline: &str, column: &str) -> Result<String> {
        let gain = paired_difference(&self.column(method, column)?, &self.column(baseline, column)?)?;
        let certain = match (gain.n, gain.excludes_zero(), gain.mean > 0.0) {
            (1, ..) => return Ok(format!("{method} against {baseline} {:+.2} points, of one seed", gain.mean)),
            (_, true, true) => "helped, the 95 % interval excludes 0",
            (_, true, false) => "hurt, the 95 % interval excludes 0",
            (_, false, _) => "neither helped nor hurt for certain, the 95 % interval includes 0",
        };
        Ok(format!("{method} against {baseline} {gain:+.2} points ({certain})"))
    }
}

/// Markdown, with the mean of the seeds and half the width of its 95 % confidence interval; a whole number that is the
/// same for every seed, such as a count of parameters, stands alone.
impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.rows.first().map_or(0, |(_, rows)| rows.len());
        writeln!(f, "Test images, mean ± half the width of the 95 % confidence interval, {seeds} seeds:\n")?;
        let header = std::iter::once("").chain(self.columns).map(String::from).collect();
        let mut lines: Vec<Vec<String>> = vec![header];
        for (method, rows) in &self.rows {
            let summary = |column: usize| {
                let values: Vec<f64> = rows.iter().map(|values| values[column]).collect();
                match Summary::of(&values) {
                    Ok(count) if values.iter().all(|value| *value == values[0] && value.fract() == 0.0) => {
                        format!("{:.0}", count.mean)
                    }
                    Ok(summary) => format!("{summary:.2}"),
                    Err(_) => "not finite".to_string(),
                }
            };
            lines.push(std::iter::once(method.clone()).chain((0..N).map(summary)).collect());
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        for (index, line) in lines.iter().enumerate() {
            for (column, cell) in line.iter().enumerate() {
                write!(f, "| {cell}{} ", " ".repeat(width(column) - cell.chars().count()))?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                (0..=N).try_for_each(|column| write!(f, "| {} ", "-".repeat(width(column).max(3))))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
