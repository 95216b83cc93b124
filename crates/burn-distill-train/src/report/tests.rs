//! The page as a whole.

use burn_distill_eval::{Latency, ModelProfile};
use serde_json::json;

use super::*;

fn profile(name: &str, parameters: u64, accuracy: f64) -> ModelProfile {
    let median_ms = 9.5 * parameters as f64 / 1e6;
    let latency = Latency { median_ms, p10_ms: 0.96 * median_ms, p90_ms: 1.07 * median_ms, batch_size: 64, runs: 30 };
    ModelProfile {
        name: name.into(),
        parameters,
        multiply_adds: Some(150 * parameters),
        weight_bytes: 4 * parameters,
        peak_memory_bytes: Some(300 << 20),
        latency: Some(latency),
        accuracy: Some(accuracy),
    }
}

fn comparison(student: &str) -> Comparison {
    Comparison { student: profile(student, 1_233_540, 0.7312), teacher: profile("resnet32x4", 7_433_860, 0.7942) }
}

fn row(epoch: usize, split: &str, metrics: &[(&str, f64)]) -> MetricsRow {
    let metrics = metrics.iter().map(|&(name, value)| (name.to_string(), value)).collect();
    MetricsRow { epoch, step: 391 * epoch, split: split.into(), metrics, seconds: 12.5 }
}

/// A run of `epochs` with every kind of metric.
fn run(epochs: usize) -> Vec<MetricsRow> {
    let rows = (1..=epochs).flat_map(|epoch| {
        let t = epoch as f64;
        let (fall, rise) = ((-t / 15.0).exp(), 1.0 - (-t / 12.0).exp());
        let train = [
            ("hard", 0.4 + 3.2 * fall),
            ("kd", 1.1 + 9.0 * fall),
            ("review", if epoch == 20 { f64::NAN } else { 0.6 + 4.0 * fall }),
            ("total", 2.4 + 15.0 * fall),
            ("accuracy", 0.85 * rise),
            ("accuracy_top5", 0.98 * rise),
            ("temperature", 4.0 - 2.0 * t / epochs as f64),
            ("learning_rate", 0.05 * (1.0 + (t / epochs as f64 * std::f64::consts::PI).cos())),
            ("weight:kd", 0.9),
            ("weight:review", (t / 20.0).min(1.0)),
            ("images_per_second", 2400.0 + 30.0 * (t * 1.7).sin()),
            ("grad_norm", 0.4 + 2.0 * fall + 0.2 * (t * 2.3).sin().abs()),
        ];
        let valid = [
            ("hard", 0.9 + 2.8 * fall + 0.05 * (t * 1.3).sin()),
            ("kd", 1.6 + 8.0 * fall + 0.1 * (t * 1.9).sin()),
            ("total", 3.0 + 13.0 * fall),
            ("accuracy", 0.73 * rise + 0.01 * (t * 2.1).sin()),
            ("accuracy_top5", 0.93 * rise),
            ("agreement", 0.78 * rise),
            ("kl_to_teacher", 0.3 + 2.0 * fall),
            ("negative_log_likelihood", 0.9 + 2.8 * fall),
            ("calibration_error", 0.03 + 0.2 * fall),
        ];
        [row(epoch, "train", &train), row(epoch, "valid", &valid)]
    });
    rows.collect()
}

fn full() -> Report {
    let cells = |row: &[&str]| row.iter().map(|cell| cell.to_string()).collect::<Vec<_>>();
    Report::new("resnet8x4 distilled from resnet32x4")
        .note("60 epochs on CIFAR-100; the best epoch by validation accuracy is 57.")
        .comparison(comparison("resnet8x4"))
        .metrics(run(60))
        .table(Table {
            caption: "Gain over labels alone".into(),
            header: cells(&["seed", "labels", "distilled", "gain"]),
            rows: vec![cells(&["0", "72.10 %", "73.12 %", "+1.02"]), cells(&["1", "71.93 %", "72.80 %", "+0.87"])],
        })
        .config(json!({"epochs": 60, "batch_size": 128, "objective": {"kd": {"temperature": 4.0}}}))
}

/// The elements of `page` in order, and a check that each is closed where it was opened.
fn elements(page: &str) -> Vec<String> {
    let body = page.split_once("<!DOCTYPE html>").unwrap().1;
    let (before, after) = (body.split_once("<style>").unwrap(), body.split_once("</style>").unwrap().1);
    let markup = format!("{}{after}", before.0);
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for piece in markup.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("every < opens a tag that ends");
        assert!(!text.contains('>'), "unescaped > in {text:?}");
        let name = tag.trim_end_matches('/').split_whitespace().next().unwrap().to_string();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "closed in another order than opened"),
            None => {
                all.push(name.clone());
                if !tag.ends_with('/') && name != "meta" {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

#[test]
fn the_page_has_everything_in_one_well_formed_file() {
    let page = full().to_html().unwrap();
    let elements = elements(&page);
    assert_eq!(elements.iter().filter(|name| *name == "svg").count(), 10);
    assert_eq!(elements.iter().filter(|name| *name == "table").count(), 3);
    for text in [
        "Gain over labels alone",
        "+0.87",
        "7.43 M",
        "1.23 M",
        "resnet8x4 keeps 92.1 % of the accuracy of resnet32x4",
        "valid, epoch 60",
        "&quot;batch_size&quot;: 128",
        "the best epoch by validation accuracy is 57",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_page_names_no_address_and_runs_nothing() {
    let page = full().to_html().unwrap().to_lowercase();
    for reference in ["http", "src=", "href", "url(", "@import", "<script", "<link", "<iframe", "javascript:", "//"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn foreign_text_stays_text() {
    let attack = "<script>alert('x')</script>\"&";
    let page = Report::new(attack)
        .note(attack)
        .comparison(comparison(attack))
        .metrics(vec![row(1, attack, &[(attack, 1.0), ("kd", 2.0)]), row(1, "valid", &[("kd", 1.0)])])
        .table(Table { caption: attack.into(), header: vec![attack.into()], rows: vec![vec![attack.into(); 2]] })
        .config(json!({ attack: attack }))
        .to_html()
        .unwrap();
    assert!(!page.contains("<script") && !page.contains("alert('x')"));
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
    assert!(!elements(&page).contains(&"script".to_string()));
}

#[test]
fn runs_without_metrics_of_one_epoch_and_of_nothing_finite_have_pages() {
    let empty = Report::new("").to_html().unwrap();
    assert!(empty.contains("No metrics to draw."));
    elements(&empty);
    let one = Report::new("one").metrics(run(1)).to_html().unwrap();
    assert!(one.contains("<circle") && one.contains("train, epoch 1"));
    assert!(
        one.lines().any(|line| line.starts_with("<circle") && line.contains("fill=\"none\"")),
        "training is hollow"
    );
    elements(&one);
    let diverged = vec![row(1, "train", &[("kd", f64::NAN), ("hard", f64::NEG_INFINITY)])];
    let page = Report::new("diverged").metrics(diverged).to_html().unwrap();
    assert!(page.contains("<td>NaN</td>") && page.contains("<td>-inf</td>"));
    assert!(!elements(&page).contains(&"svg".to_string()));
}

#[test]
fn curves_follow_the_values() {
    let falling = |last| vec![row(1, "valid", &[("kd", 1.0)]), row(2, "valid", &[("kd", last)])];
    let page = |last| Report::new("run").metrics(falling(last)).to_html().unwrap();
    assert_eq!(page(0.5), page(0.5));
    assert_ne!(page(0.5), page(0.25));
    let points = page(0.5);
    let curve = points.lines().find(|line| line.contains("stroke-width=\"2\"")).expect("one curve");
    let points = curve.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split_whitespace();
    let points: Vec<(i32, i32)> = points
        .map(|point| point.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap())
        .collect();
    assert!(
        points.len() == 2 && points[0].0 < points[1].0 && points[0].1 < points[1].1,
        "down is larger y: {points:?}"
    );
}

#[test]
fn writing_replaces_the_file_and_leaves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::write(&path, "old").unwrap();
    full().write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), full().to_html().unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = full().write(folder.path().join("missing").join("report.html")).unwrap_err();
    assert!(error.to_string().contains("report.html: "), "{error}");
}
