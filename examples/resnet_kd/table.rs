//! The table and the verdict.

use anyhow::Result;
use burn_distill::eval::{ClassificationStats, LatencyConfig, Summary, compare_latency, paired_difference};
use burn_distill::train::Trained;
use burn_distill::vision::ResNet;

use crate::args::Args;
use crate::data::Images;

type Results<'a> = [(&'a str, Vec<ClassificationStats>)];

/// Prints what was measured on the test images and writes it to `results.json` and `results.md`.
pub(crate) fn print(
    args: &Args,
    images: &Images,
    results: &Results<'_>,
    student: &Trained<ResNet, ()>,
    teacher: &ResNet,
    on_teacher: &ClassificationStats,
) -> Result<()> {
    let (student_speed, teacher_speed) = speeds(&student.student, teacher, images)?;
    let header = ["trained on", "accuracy %", "agreement %", "ECE %", "parameters", "images/s"];
    let mut rows = vec![vec![
        format!("teacher, {}", args.teacher_arch),
        percent(&accuracy(std::slice::from_ref(on_teacher)))?,
        "-".to_string(),
        percent(&calibration(std::slice::from_ref(on_teacher)))?,
        teacher.config().num_parameters().to_string(),
        format!("{teacher_speed:.0}"),
    ]];
    for (name, stats) in results {
        rows.push(vec![
            format!("{}, {name}", args.student_arch),
            percent(&accuracy(stats))?,
            percent(&agreement(stats))?,
            percent(&calibration(stats))?,
            student.student.config().num_parameters().to_string(),
            format!("{student_speed:.0}"),
        ]);
    }
    let text = markdown(&header, &rows);
    let verdict = verdict(results)?;
    println!("\nTest images, mean ± standard deviation over {} seeds:\n\n{text}\n{verdict}", results[0].1.len());
    let json = serde_json::json!({
        "arguments": args,
        "accuracy": results.iter().map(|(name, stats)| (name.to_string(), accuracy(stats))).collect::<std::collections::BTreeMap<_, _>>(),
        "teacher_accuracy": accuracy(std::slice::from_ref(on_teacher)),
        "verdict": verdict,
    });
    std::fs::write(args.out.join("results.json"), serde_json::to_vec_pretty(&json)?)?;
    std::fs::write(args.out.join("results.md"), format!("{text}\n{verdict}\n"))?;
    Ok(())
}

/// Per cent, mean ± standard deviation.
fn percent(values: &[f64]) -> Result<String> {
    let summary = Summary::of(values)?.scaled(100.0);
    Ok(match summary.standard_deviation {
        Some(deviation) => format!("{:.2} ± {deviation:.2}", summary.mean),
        None => format!("{:.2}", summary.mean),
    })
}

/// The table with each method's gain over labels alone and the time of an epoch (`seconds`, per method and seed).
pub(crate) fn with_gains(
    args: &Args,
    results: &Results<'_>,
    seconds: &[Vec<f64>],
    on_teacher: &ClassificationStats,
) -> Result<String> {
    let header = ["trained on", "accuracy %", "gain, points", "agreement %", "ECE %", "s per epoch"];
    let teacher = std::slice::from_ref(on_teacher);
    let mut rows = vec![vec![
        format!("teacher, {}", args.teacher_arch),
        percent(&accuracy(teacher))?,
        "-".to_string(),
        "-".to_string(),
        percent(&calibration(teacher))?,
        "-".to_string(),
    ]];
    let labels = results.first().map(|(_, stats)| accuracy(stats)).unwrap_or_default();
    for (index, ((name, stats), seconds)) in results.iter().zip(seconds).enumerate() {
        let gain = paired_difference(&accuracy(stats), &labels)?.scaled(100.0);
        rows.push(vec![
            format!("{}, {name}", args.student_arch),
            percent(&accuracy(stats))?,
            if index == 0 { "-".to_string() } else { format!("{gain:+.2}") },
            percent(&agreement(stats))?,
            percent(&calibration(stats))?,
            format!("{:.1}", Summary::of(seconds)?.mean),
        ]);
    }
    Ok(markdown(&header, &rows))
}

/// What distillation gained over labels alone, paired by seed.
fn verdict(results: &Results<'_>) -> Result<String> {
    let (labels, distilled) =
        results.split_first().map(|((_, stats), rest)| (accuracy(stats), rest)).unwrap_or_default();
    let mut parts = Vec::new();
    for (name, stats) in distilled {
        let gain = paired_difference(&accuracy(stats), &labels)?.scaled(100.0);
        let certain = match (gain.half_width, gain.excludes_zero()) {
            (None, _) => "one seed, so no interval",
            (_, true) => "the 95 % interval excludes 0",
            (_, false) => "the 95 % interval includes 0",
        };
        parts.push(format!("{name} {gain:+.2} points ({certain})"));
    }
    Ok(format!("Verdict: over labels alone, {}.", parts.join("; ")))
}

fn accuracy(stats: &[ClassificationStats]) -> Vec<f64> {
    stats.iter().filter_map(|stats| stats.top1.as_ref()?.value()).collect()
}

fn agreement(stats: &[ClassificationStats]) -> Vec<f64> {
    stats.iter().filter_map(|stats| stats.agreement.as_ref()?.value()).collect()
}

fn calibration(stats: &[ClassificationStats]) -> Vec<f64> {
    stats.iter().filter_map(|stats| stats.calibration.as_ref()?.expected_calibration_error()).collect()
}

/// Images per second of both, timed in turns.
fn speeds(student: &ResNet, teacher: &ResNet, images: &Images) -> Result<(f64, f64)> {
    let (student, teacher) = (burn::module::Module::valid(student), burn::module::Module::valid(teacher));
    let device = burn::module::Module::devices(&student)[0].clone().inner();
    let batch = images.eval_loader(&images.held_out)?.to_device(&device).iter().next().expect("checked: not empty")?;
    let config = LatencyConfig::new(batch.len()).with_runs(5).with_warm_up(1);
    let run = |model: &ResNet| {
        let _ = model.forward(batch.images.clone()).logits.into_data();
    };
    let (of_student, of_teacher) = compare_latency(&config, || run(&student), || run(&teacher))?;
    Ok((of_student.throughput(), of_teacher.throughput()))
}

fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max();
    let line = |cells: Vec<String>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| {
            let pad = width(column).unwrap_or(0).saturating_sub(cell.chars().count());
            format!(" {cell}{} ", " ".repeat(pad))
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let mut text = line(header.iter().map(|cell| cell.to_string()).collect());
    text += &line((0..header.len()).map(|column| "-".repeat(width(column).unwrap_or(0))).collect());
    for row in rows {
        text += &line(row.clone());
    }
    text
}
