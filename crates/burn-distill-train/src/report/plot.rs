//! A chart as SVG: no fonts, no scripts, no colour that only one background can bear.

use std::ops::Range;

use plotters::prelude::*;

use super::chart::{Chart, Series, Unit};

const SIZE: (u32, u32) = (560, 300);
const GRAY: RGBColor = RGBColor(128, 134, 142);

/// Colours that stand out on white and on black.
const COLORS: [RGBColor; 9] = [
    RGBColor(59, 130, 216),
    RGBColor(226, 120, 48),
    RGBColor(40, 160, 125),
    RGBColor(200, 80, 150),
    RGBColor(142, 107, 209),
    RGBColor(184, 140, 20),
    RGBColor(214, 69, 69),
    RGBColor(30, 165, 190),
    RGBColor(125, 160, 60),
];

/// How a line is drawn: validation solid, training dashed, anything else dotted; solid where there is one split.
/// A lone point is filled where its line would be solid, and hollow otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

/// The stroke of each split in `chart`.
pub(crate) fn stroke(chart: &Chart, split: &str) -> Stroke {
    let only = chart.series.iter().all(|series| series.split == split);
    match split {
        _ if only => Stroke::Solid,
        "valid" => Stroke::Solid,
        "train" => Stroke::Dashed,
        _ => Stroke::Dotted,
    }
}

/// The metrics of `chart`, in order, each with its colour; `total` is gray.
pub(crate) fn legend(chart: &Chart) -> Vec<(&str, RGBColor)> {
    let mut names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
    names.dedup();
    let mut colors = COLORS.iter().cycle().copied();
    names.into_iter().map(|name| (name, if name == "total" { GRAY } else { colors.next().unwrap_or(GRAY) })).collect()
}

/// The `<svg>` element of `chart`.
pub(crate) fn svg(chart: &Chart) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut svg = String::new();
    draw(chart, &mut svg)?;
    // Inside HTML the namespace is implied, and the page then names no address at all.
    let label = format!("<svg role=\"img\" aria-label=\"{}\"", chart.title);
    Ok(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1).replacen("<svg", &label, 1))
}

fn draw(chart: &Chart, svg: &mut String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (x, y) = (x_range(chart), y_range(chart));
    let decimals = decimals(&y, chart.unit);
    let mut context = ChartBuilder::on(&root)
        .margin(8)
        .margin_right(18)
        .x_label_area_size(40)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRAY.mix(0.25))
        .axis_style(GRAY)
        .label_style(("sans-serif", 13, &GRAY))
        .axis_desc_style(("sans-serif", 13, &GRAY))
        .x_labels(8)
        .y_labels(6)
        .x_desc(chart.x_label)
        .y_label_formatter(&|value| label(*value, chart.unit, decimals))
        .draw()?;

    let colors = legend(chart);
    for series in &chart.series {
        let color = colors.iter().find(|(name, _)| *name == series.name).map_or(GRAY, |(_, color)| *color);
        for segment in segments(series) {
            let points = segment.iter().copied();
            match (segment, stroke(chart, &series.split)) {
                ([point], Stroke::Solid) => context.draw_series([Circle::new(*point, 4, color.filled())])?,
                ([point], _) => context.draw_series([Circle::new(*point, 4, color.stroke_width(2))])?,
                (_, Stroke::Solid) => context.draw_series(LineSeries::new(points, color.stroke_width(2)))?,
                (_, Stroke::Dashed) => {
                    context.draw_series(DashedLineSeries::new(points, 7, 4, color.stroke_width(2)))?
                }
                (_, Stroke::Dotted) => {
                    context.draw_series(DashedLineSeries::new(points, 2, 4, color.stroke_width(2)))?
                }
            };
        }
    }
    root.present()?;
    Ok(())
}

/// The runs of finite points between gaps.
fn segments(series: &Series) -> impl Iterator<Item = &[(usize, f64)]> {
    series.points.split(|(_, value)| !drawable(*value)).filter(|segment| !segment.is_empty())
}

/// Beyond this no difference between two values can overflow.
fn drawable(value: f64) -> bool {
    value.abs() < 1e100
}

fn x_range(chart: &Chart) -> Range<usize> {
    let x = || chart.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x));
    let (low, high) = (x().min().unwrap_or(0), x().max().unwrap_or(0));
    if low < high { low..high } else { low.saturating_sub(1)..high.saturating_add(1) }
}

/// All values with some air around them; never empty, and wide enough to hold ticks that differ.
fn y_range(chart: &Chart) -> Range<f64> {
    let values =
        || chart.series.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y)).filter(|y| drawable(*y));
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return 0.0..1.0;
    }
    let size = low.abs().max(high.abs());
    let floor = if size < 1e-100 { 1.0 } else { size * 1e-4 };
    let span = (high - low).max(floor);
    // Equal values stand in the middle of a range of their own size.
    let margin = if high - low < floor { 0.5 * if size < 1e-100 { 1.0 } else { size } } else { 0.06 * span };
    let bottom = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
    bottom..high + margin
}

/// Decimals that tell neighbouring ticks apart; `None` for values that need an exponent.
fn decimals(range: &Range<f64>, unit: Unit) -> Option<usize> {
    let scale = if unit == Unit::Percent { 100.0 } else { 1.0 };
    let (size, step) = (range.start.abs().max(range.end.abs()) * scale, (range.end - range.start) * scale / 6.0);
    if !(1e-3..1e6).contains(&size) {
        return None;
    }
    Some((-step.log10()).ceil().clamp(0.0, 7.0) as usize)
}

fn label(value: f64, unit: Unit, decimals: Option<usize>) -> String {
    match (unit, decimals) {
        (Unit::Percent, Some(decimals)) => format!("{:.decimals$} %", value * 100.0),
        (Unit::Percent, None) => format!("{:.1e} %", value * 100.0),
        (Unit::Number, Some(decimals)) => format!("{value:.decimals$}"),
        (Unit::Number, None) if value == 0.0 => "0".into(),
        (Unit::Number, None) => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let points = values.iter().enumerate().map(|(x, &y)| (x + 1, y)).collect();
        let series = vec![Series { name: "kd".into(), split: "valid".into(), points }];
        Chart { title: "Loss", unit: Unit::Number, x_label: "epoch", series }
    }

    fn count(chart: &Chart, tag: &str) -> usize {
        // Axes and grid are lines of their own, thinner than the curves.
        let svg = svg(chart).unwrap();
        let thin = |line: &str| tag == "<polyline" && line.contains("stroke-width=\"1\"");
        svg.lines().filter(|line| line.starts_with(tag) && !thin(line)).count()
    }

    #[test]
    fn a_gap_parts_the_line() {
        assert_eq!(count(&chart(&[3.0, 2.0, 1.0, 0.5]), "<polyline"), 1);
        let parted = chart(&[3.0, 2.0, f64::NAN, 1.0, 0.5]);
        assert_eq!((count(&parted, "<polyline"), count(&parted, "<circle")), (2, 0));
        let lonely = chart(&[3.0, 2.0, f64::INFINITY, 1.0]);
        assert_eq!((count(&lonely, "<polyline"), count(&lonely, "<circle")), (1, 1));
    }

    #[test]
    fn one_epoch_is_a_point() {
        let one = chart(&[3.0]);
        assert_eq!((count(&one, "<polyline"), count(&one, "<circle")), (0, 1));
    }

    #[test]
    fn any_values_can_be_drawn() {
        let extremes: [&[f64]; 10] = [
            &[0.0],
            &[0.0, 0.0],
            &[1.0, 1.0 + f64::EPSILON],
            &[1e300, -1e300, 1.0],
            &[1e99, -1e99],
            &[f64::MIN_POSITIVE, 5e-324],
            &[f64::NAN],
            &[-5.0, -5.0],
            &[1e-30, 3e-30],
            &[],
        ];
        for values in extremes {
            let svg = svg(&chart(values)).unwrap();
            assert!(svg.starts_with("<svg role=\"img\"") && svg.trim_end().ends_with("</svg>"), "{values:?}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?}");
        }
    }

    #[test]
    fn a_late_epoch_and_a_huge_step_can_be_drawn() {
        let mut far = chart(&[1.0, 2.0]);
        far.series[0].points = vec![(0, 1.0), (usize::MAX / 4, 2.0)];
        svg(&far).unwrap();
        far.series[0].points = vec![(usize::MAX, 1.0)];
        svg(&far).unwrap();
    }

    #[test]
    fn the_range_holds_every_value_and_nonnegative_values_stay_so() {
        let range = y_range(&chart(&[0.01, 2.0, 1.0]));
        assert!(range.start >= 0.0 && range.start <= 0.01 && range.end > 2.0, "{range:?}");
        let flat = y_range(&chart(&[4.0, 4.0]));
        assert!(flat.start < 4.0 && flat.end > 4.0);
        let negative = y_range(&chart(&[-1.0, 1.0]));
        assert!(negative.start < -1.0);
    }

    #[test]
    fn ticks_have_the_decimals_they_need() {
        let text = |value: f64, range: Range<f64>, unit| label(value, unit, decimals(&range, unit));
        assert_eq!(text(2.5, 0.0..6.0, Unit::Number), "2");
        assert_eq!(text(2.5, 0.0..3.0, Unit::Number), "2.5");
        assert_eq!(text(2.305, 2.30..2.33, Unit::Number), "2.305");
        assert_eq!(text(0.0003, 0.0..0.0005, Unit::Number), "3.0e-4");
        assert_eq!(text(0.75, 0.5..1.0, Unit::Percent), "75 %");
    }

    #[test]
    fn validation_is_solid_beside_training_and_one_split_is_always_solid() {
        let mut both = chart(&[1.0, 2.0]);
        assert_eq!(stroke(&both, "valid"), Stroke::Solid);
        both.series.push(Series { split: "train".into(), ..both.series[0].clone() });
        assert_eq!((stroke(&both, "valid"), stroke(&both, "train")), (Stroke::Solid, Stroke::Dashed));
        assert_eq!(legend(&both).len(), 1);
        both.series.retain(|series| series.split == "train");
        assert_eq!(stroke(&both, "train"), Stroke::Solid);
    }
}
