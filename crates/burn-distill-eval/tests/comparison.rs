//! A student beside its teacher, against numbers worked out by hand.

use burn_distill_eval::{Comparison, Latency, ModelProfile};

fn latency(median_ms: f64, spread_ms: f64) -> Latency {
    Latency { median_ms, p10_ms: median_ms - spread_ms, p90_ms: median_ms + spread_ms, batch_size: 32, runs: 30 }
}

fn comparison() -> Comparison {
    Comparison {
        student: ModelProfile {
            name: "resnet8x4".into(),
            parameters: 1_233_540,
            multiply_adds: Some(177_500_000),
            weight_bytes: 4_938_000,
            peak_memory_bytes: Some(300 << 20),
            latency: Some(latency(10.0, 1.0)),
            accuracy: Some(0.75),
        },
        teacher: ModelProfile {
            name: "resnet32x4".into(),
            parameters: 7_433_860,
            multiply_adds: Some(1_086_000_000),
            weight_bytes: 29_752_000,
            peak_memory_bytes: Some(600 << 20),
            latency: Some(latency(50.0, 1.0)),
            accuracy: Some(0.80),
        },
    }
}

#[test]
fn ratios_by_hand() {
    let comparison = comparison();
    assert_eq!(comparison.parameters_ratio(), Some(1_233_540.0 / 7_433_860.0));
    assert_eq!(comparison.peak_memory_ratio(), Some(0.5));
    assert_eq!(comparison.latency_ratio(), Some(0.2));
    assert!((comparison.accuracy_difference().unwrap() + 0.05).abs() < 1e-12);
    assert!((comparison.accuracy_kept().unwrap() - 0.9375).abs() < 1e-12);
}

#[test]
fn the_table_reads_as_text_and_as_markdown() {
    let markdown = comparison().to_markdown();
    let lines: Vec<_> = markdown.lines().collect();
    assert!(lines[0].contains("resnet32x4") && lines[0].contains("resnet8x4"));
    assert!(lines[1].chars().all(|c| "|-: ".contains(c)), "{}", lines[1]);
    assert_eq!(
        lines[2].split('|').map(str::trim).collect::<Vec<_>>(),
        ["", "parameters", "7.43 M", "1.23 M", "0.166 ×", ""]
    );
    let width = lines[0].chars().count();
    assert!(lines[..9].iter().all(|line| line.chars().count() == width), "{markdown}");
    assert!(markdown.contains(" -5.00 points |"), "{markdown}");
    assert!(markdown.contains("50.00 ms (49.00 to 51.00), batch of 32"));
    assert!(markdown.ends_with(
        "resnet8x4 keeps 93.8 % of the accuracy of resnet32x4 (75.00 % of 80.00 %, -5.00 points), with 6.03 times \
         fewer parameters, 6.12 times fewer multiply-adds, 6.03 times smaller weights, 2.00 times lower peak memory \
         and 5.00 times lower latency.\n"
    ));
}

#[test]
fn a_student_that_costs_more_is_said_to() {
    let mut comparison = comparison();
    comparison.student.latency = Some(latency(100.0, 1.0));
    comparison.student.multiply_adds = comparison.teacher.multiply_adds;
    let sentence = comparison.sentence();
    assert!(sentence.contains("2.00 times higher latency"), "{sentence}");
    assert!(sentence.contains("the same multiply-adds"), "{sentence}");
}

#[test]
fn overlapping_latencies_are_no_saving() {
    let mut comparison = comparison();
    comparison.student.latency = Some(latency(48.0, 5.0));
    let sentence = comparison.sentence();
    assert!(sentence.contains("does not differ beyond its spread (48.00 ms and 50.00 ms)"), "{sentence}");
}

#[test]
fn different_batch_sizes_are_not_compared() {
    let mut comparison = comparison();
    comparison.student.latency = Some(Latency { batch_size: 1, ..latency(1.0, 0.1) });
    assert_eq!(comparison.latency_ratio(), None);
    assert!(!comparison.sentence().contains("latency"));
}

#[test]
fn what_was_not_measured_is_not_claimed() {
    let mut comparison = comparison();
    for model in [&mut comparison.student, &mut comparison.teacher] {
        (model.multiply_adds, model.peak_memory_bytes, model.latency, model.accuracy) = (None, None, None, None);
    }
    assert_eq!(
        comparison.sentence(),
        "resnet8x4 stands beside resnet32x4 with 6.03 times fewer parameters and 6.03 times smaller weights."
    );
    let rows = comparison.rows();
    assert!(rows.iter().filter(|row| row.change == "-").count() == 5, "{rows:?}");
    comparison.teacher.parameters = 0;
    comparison.teacher.weight_bytes = 0;
    assert!(comparison.to_markdown().contains("no cost measured"));
}

#[test]
fn names_cannot_break_the_table() {
    let mut comparison = comparison();
    comparison.student.name = "a|b\nc".into();
    assert!(comparison.to_markdown().lines().next().unwrap().contains(r"a\|b c"));
}

#[test]
fn json_round_trip() {
    let json = serde_json::to_string(&comparison()).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), comparison());
}
