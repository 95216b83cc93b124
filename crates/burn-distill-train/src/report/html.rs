//! Pieces of the page. Whatever comes from outside passes through [`escape`].

use std::fmt::Write;

use plotters::style::RGBColor;

use super::chart::{Chart, Unit, last_rows, unit};
use super::plot::{Stroke, legend, stroke, svg};
use super::{MetricsRow, ReportError, Table};

/// Text as it may stand in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML allows no other control characters.
            control if control.is_control() && !matches!(control, '\n' | '\t') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A value for people, at four significant digits.
pub(crate) fn number(value: f64, unit: Unit) -> String {
    match unit {
        _ if !value.is_finite() => value.to_string(),
        Unit::Percent => format!("{:.2} %", value * 100.0),
        Unit::Number if value == 0.0 => "0".into(),
        Unit::Number if !(1e-3..1e6).contains(&value.abs()) => format!("{value:.3e}"),
        Unit::Number => {
            let decimals = (3.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// A `<table>`: the first column names its row.
pub(crate) fn table(table: &Table) -> String {
    let mut html = String::from("<div class=\"scroll\"><table>\n");
    if !table.caption.is_empty() {
        let _ = writeln!(html, "<caption>{}</caption>", escape(&table.caption));
    }
    if !table.header.is_empty() {
        let cells: String =
            table.header.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
        let _ = writeln!(html, "<thead><tr>{cells}</tr></thead>");
    }
    html.push_str("<tbody>\n");
    for row in &table.rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
            _ => format!("<td>{}</td>", escape(cell)),
        });
        let _ = writeln!(html, "<tr>{}</tr>", cells.collect::<String>());
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// The last values of every metric, a column for each split: the curves' ends for those who cannot see them.
pub(crate) fn last_values(rows: &[MetricsRow]) -> Table {
    let last = last_rows(rows);
    let names: std::collections::BTreeSet<&String> = last.values().flat_map(|row| row.metrics.keys()).collect();
    let splits = last.iter().map(|(split, row)| format!("{split}, epoch {}", row.epoch));
    let value = |row: &MetricsRow, name: &String| row.metrics.get(name).map(|value| number(*value, unit(name)));
    let line = |name: &String| {
        let values = last.values().map(|row| value(row, name).unwrap_or_else(|| "-".into()));
        std::iter::once(name.clone()).chain(values).collect()
    };
    Table {
        caption: "Last values".into(),
        header: std::iter::once("metric".to_string()).chain(splits).collect(),
        rows: names.into_iter().map(line).collect(),
    }
}

/// A `<figure>`: title, curves and legend.
pub(crate) fn figure(chart: &Chart) -> Result<String, ReportError> {
    let error = |source| ReportError::Chart { chart: chart.title.into(), source };
    let drawing = svg(chart).map_err(error)?;
    let mut html = format!("<figure>\n<figcaption>{}</figcaption>\n{drawing}<ul class=\"legend\">\n", chart.title);
    for (name, RGBColor(red, green, blue)) in legend(chart) {
        let color = format!("#{red:02x}{green:02x}{blue:02x}");
        let _ = writeln!(html, "<li><i style=\"border-color:{color}\"></i>{}</li>", escape(name));
    }
    let mut splits: Vec<&str> = chart.series.iter().map(|series| series.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    for split in splits {
        let style = match stroke(chart, split) {
            Stroke::Solid => "solid",
            Stroke::Dashed => "dashed",
            Stroke::Dotted => "dotted",
        };
        let _ = writeln!(html, "<li class=\"split\"><i style=\"border-top-style:{style}\"></i>{}</li>", escape(split));
    }
    html.push_str("</ul>\n</figure>\n");
    Ok(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_significant_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (2.34567, "2.346"),
            (123.456, "123.5"),
            (98765.4, "98765"),
            (0.01, "0.01000"),
            (1e-5, "1.000e-5"),
        ] {
            assert_eq!(number(value, Unit::Number), expected);
        }
        assert_eq!(number(0.87654, Unit::Percent), "87.65 %");
        assert_eq!(number(f64::NAN, Unit::Percent), "NaN");
        assert_eq!(number(f64::NEG_INFINITY, Unit::Number), "-inf");
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<a b=\"c\" d='e'>&\u{0}"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}");
    }
}
