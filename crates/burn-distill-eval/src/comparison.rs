use serde::{Deserialize, Serialize};

use crate::{Latency, ModelProfile};

/// A student beside its teacher: what is saved and what is kept.
///
/// ```
/// use burn_distill_eval::{Comparison, ModelProfile};
///
/// let model = |name: &str, parameters, accuracy| ModelProfile {
///     name: name.into(),
///     parameters,
///     multiply_adds: None,
///     weight_bytes: 4 * parameters,
///     peak_memory_bytes: None,
///     latency: None,
///     accuracy: Some(accuracy),
/// };
/// let comparison = Comparison { student: model("small", 1_000, 0.72), teacher: model("large", 4_000, 0.80) };
/// assert_eq!(
///     comparison.sentence(),
///     "small keeps 90.0 % of the accuracy of large (72.00 % of 80.00 %, -8.00 points), with 4.00 times fewer \
///      parameters and 4.00 times smaller weights."
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model that was trained.
    pub student: ModelProfile,
    /// The model it learned from.
    pub teacher: ModelProfile,
}

/// One line of the comparison, as text with units; `-` where nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparisonRow {
    /// What is compared.
    pub quantity: String,
    /// The teacher's value.
    pub teacher: String,
    /// The student's value.
    pub student: String,
    /// Student relative to teacher: a ratio, or a difference in points for the accuracy.
    pub change: String,
}

impl Comparison {
    /// Student's parameters over the teacher's.
    pub fn parameters_ratio(&self) -> Option<f64> {
        ratio(Some(self.student.parameters), Some(self.teacher.parameters))
    }

    /// Student's multiply-adds over the teacher's.
    pub fn multiply_adds_ratio(&self) -> Option<f64> {
        ratio(self.student.multiply_adds, self.teacher.multiply_adds)
    }

    /// Student's weight bytes over the teacher's.
    pub fn weight_bytes_ratio(&self) -> Option<f64> {
        ratio(Some(self.student.weight_bytes), Some(self.teacher.weight_bytes))
    }

    /// Student's peak memory over the teacher's.
    pub fn peak_memory_ratio(&self) -> Option<f64> {
        ratio(self.student.peak_memory_bytes, self.teacher.peak_memory_bytes)
    }

    /// Student's median latency over the teacher's; `None` unless both were measured at the same batch size.
    pub fn latency_ratio(&self) -> Option<f64> {
        let (student, teacher) = self.latencies()?;
        (teacher.median_ms > 0.0).then(|| student.median_ms / teacher.median_ms)
    }

    /// Student's accuracy minus the teacher's.
    pub fn accuracy_difference(&self) -> Option<f64> {
        Some(self.student.accuracy? - self.teacher.accuracy?)
    }

    /// Student's accuracy over the teacher's: the share that is kept.
    pub fn accuracy_kept(&self) -> Option<f64> {
        let (student, teacher) = (self.student.accuracy?, self.teacher.accuracy?);
        (teacher > 0.0).then(|| student / teacher)
    }

    fn latencies(&self) -> Option<(Latency, Latency)> {
        let (student, teacher) = (self.student.latency?, self.teacher.latency?);
        (student.batch_size == teacher.batch_size).then_some((student, teacher))
    }

    /// The table's lines, as text.
    pub fn rows(&self) -> Vec<ComparisonRow> {
        let row = |quantity: &str, value: &dyn Fn(&ModelProfile) -> Option<String>, change: Option<String>| {
            let text = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            ComparisonRow {
                quantity: quantity.into(),
                teacher: text(value(&self.teacher)),
                student: text(value(&self.student)),
                change: text(change),
            }
        };
        let times = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.3} ×"));
        let throughput_ratio = self.latency_ratio().filter(|&ratio| ratio > 0.0).map(|ratio| 1.0 / ratio);
        vec![
            row("parameters", &|model| Some(count(model.parameters)), times(self.parameters_ratio())),
            row("multiply-adds", &|model| model.multiply_adds.map(count), times(self.multiply_adds_ratio())),
            row("weights", &|model| Some(bytes(model.weight_bytes)), times(self.weight_bytes_ratio())),
            row("peak memory", &|model| model.peak_memory_bytes.map(bytes), times(self.peak_memory_ratio())),
            row(
                "latency, median (p10 to p90)",
                &|model| model.latency.as_ref().map(latency),
                times(self.latency_ratio()),
            ),
            row(
                "samples per second",
                &|model| model.latency.map(|latency| format!("{:.1}", latency.throughput())),
                times(throughput_ratio),
            ),
            row(
                "accuracy",
                &|model| model.accuracy.map(|accuracy| format!("{:.2} %", accuracy * 100.0)),
                self.accuracy_difference().map(|difference| format!("{:+.2} points", difference * 100.0)),
            ),
        ]
    }

    /// What is kept and what is saved, in one sentence. What was not measured is not mentioned, and a latency whose
    /// spread overlaps the teacher's is called so.
    pub fn sentence(&self) -> String {
        let (student, teacher) = (&self.student, &self.teacher);
        let costs = join(&self.costs());
        match (student.accuracy, teacher.accuracy, self.accuracy_kept()) {
            (Some(own), Some(other), Some(kept)) => format!(
                "{} keeps {:.1} % of the accuracy of {} ({:.2} % of {:.2} %, {:+.2} points), with {costs}.",
                student.name,
                kept * 100.0,
                teacher.name,
                own * 100.0,
                other * 100.0,
                (own - other) * 100.0,
            ),
            _ => format!("{} stands beside {} with {costs}.", student.name, teacher.name),
        }
    }

    fn costs(&self) -> Vec<String> {
        let mut costs = Vec::new();
        let mut add = |ratio: Option<f64>, less: &str, more: &str, noun: &str| {
            costs.extend(ratio.and_then(|ratio| factor(ratio, less, more)).map(|factor| format!("{factor} {noun}")));
        };
        add(self.parameters_ratio(), "fewer", "more", "parameters");
        add(self.multiply_adds_ratio(), "fewer", "more", "multiply-adds");
        add(self.weight_bytes_ratio(), "smaller", "larger", "weights");
        add(self.peak_memory_ratio(), "lower", "higher", "peak memory");
        match self.latencies() {
            Some((student, teacher)) if student.overlaps(&teacher) => costs.push(format!(
                "a latency that does not differ beyond its spread ({:.2} ms and {:.2} ms)",
                student.median_ms, teacher.median_ms
            )),
            _ => add(self.latency_ratio(), "lower", "higher", "latency"),
        }
        costs
    }

    /// The rows as a Markdown table, followed by the [`sentence`](Self::sentence). Also readable as plain text.
    pub fn to_markdown(&self) -> String {
        let quantity = "student relative to teacher".to_string();
        let header = ["".into(), self.teacher.name.clone(), self.student.name.clone(), quantity];
        let lines = self.rows().into_iter().map(|row| [row.quantity, row.teacher, row.student, row.change]);
        let cells: Vec<[String; 4]> = std::iter::once(header).chain(lines).map(|line| line.map(escape)).collect();
        let width = |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: [usize; 4] = std::array::from_fn(width);

        let mut table = String::new();
        for (index, [quantity, teacher, student, change]) in cells.iter().enumerate() {
            let [a, b, c, d] = widths;
            table += &format!("| {quantity:<a$} | {teacher:>b$} | {student:>c$} | {change:>d$} |\n");
            if index == 0 {
                let dashes = |width: usize| "-".repeat(width - 1);
                table += &format!("| {}- | {}: | {}: | {}: |\n", dashes(a), dashes(b), dashes(c), dashes(d));
            }
        }
        format!("{table}\n{}\n", self.sentence())
    }
}

fn ratio(student: Option<u64>, teacher: Option<u64>) -> Option<f64> {
    let (student, teacher) = (student?, teacher?);
    (teacher > 0).then(|| student as f64 / teacher as f64)
}

/// "4.00 times fewer", "1.20 times more", "the same"; `None` of a ratio that has no such words.
fn factor(ratio: f64, less: &str, more: &str) -> Option<String> {
    if !(ratio > 0.0 && ratio.is_finite()) {
        return None;
    }
    Some(match ratio {
        ratio if (ratio - 1.0).abs() < 0.005 => "the same".into(),
        ratio if ratio < 1.0 => format!("{:.2} times {less}", 1.0 / ratio),
        ratio => format!("{ratio:.2} times {more}"),
    })
}

fn join(parts: &[String]) -> String {
    match parts {
        [] => "no cost measured".into(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

fn count(value: u64) -> String {
    let value_f = value as f64;
    match value {
        0..10_000 => value.to_string(),
        10_000..1_000_000 => format!("{:.1} k", value_f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", value_f / 1e6),
        _ => format!("{:.2} G", value_f / 1e9),
    }
}

fn bytes(value: u64) -> String {
    let value_f = value as f64;
    match value {
        0..1_024 => format!("{value} B"),
        1_024..1_048_576 => format!("{:.1} KiB", value_f / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value_f / 1_048_576.0),
        _ => format!("{:.2} GiB", value_f / 1_073_741_824.0),
    }
}

fn latency(latency: &Latency) -> String {
    let Latency { median_ms, p10_ms, p90_ms, batch_size, .. } = latency;
    format!("{median_ms:.2} ms ({p10_ms:.2} to {p90_ms:.2}), batch of {batch_size}")
}

/// A cell must not end its column or its line.
fn escape(cell: String) -> String {
    cell.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}
