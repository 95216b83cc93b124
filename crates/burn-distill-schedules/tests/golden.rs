//! Against PyTorch's own schedulers: `golden/schedules.py` writes the numbers, this only reads them.
#![allow(clippy::unwrap_used)]

use burn_distill_schedules::{PlateauMode, PlateauState, ReduceOnPlateau, Schedule, ThresholdMode};
use serde_json::Value;

fn cases(name: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/schedules.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden[name].as_array().unwrap_or_else(|| panic!("no `{name}` in {path}"));
    assert!(!cases.is_empty());
    cases.clone()
}

fn float(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {case}"))
}

fn count(case: &Value, key: &str) -> usize {
    case[key].as_u64().unwrap_or_else(|| panic!("no count `{key}` in {case}")) as usize
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {case}"))
}

/// PyTorch updates the rate step by step, so its rounding errors add up.
fn assert_close(ours: f64, golden: f64, scale: f64, what: &dyn std::fmt::Display) {
    assert!((ours - golden).abs() <= 1e-13 * scale, "{what}: {ours} is not PyTorch's {golden}");
}

fn check(name: &str, make: impl Fn(&Value) -> Schedule) {
    for case in cases(name) {
        let schedule = make(&case);
        let values = case["values"].as_array().unwrap();
        assert!(values.len() >= 4);
        let scale = values.iter().map(|value| value.as_f64().unwrap().abs()).fold(0.0, f64::max);
        for (step, value) in values.iter().enumerate() {
            let what = format!("{name} {case} at step {step}");
            assert_close(schedule.value(step), value.as_f64().unwrap(), scale, &what);
        }
    }
}

#[test]
fn linear() {
    check("linear", |c| Schedule::linear(float(c, "from"), float(c, "to"), count(c, "steps")).unwrap());
}

#[test]
fn polynomial() {
    check("polynomial", |c| {
        Schedule::polynomial(float(c, "from"), float(c, "to"), float(c, "power"), count(c, "steps")).unwrap()
    });
}

#[test]
fn cosine() {
    check("cosine", |c| Schedule::cosine(float(c, "from"), float(c, "to"), count(c, "steps")).unwrap());
}

#[test]
fn cosine_restarts() {
    check("cosine_restarts", |c| {
        let (first, multiplier) = (count(c, "first_cycle"), count(c, "cycle_multiplier"));
        Schedule::cosine_restarts(float(c, "from"), float(c, "to"), first, multiplier, 1.0).unwrap()
    });
}

#[test]
fn exponential() {
    check("exponential", |c| Schedule::exponential(float(c, "from"), float(c, "rate")).unwrap());
}

#[test]
fn step_decay() {
    check("step_decay", |c| Schedule::step_decay(float(c, "from"), float(c, "factor"), count(c, "every")).unwrap());
}

#[test]
fn multi_step() {
    check("multi_step", |c| {
        let milestones: Vec<usize> = serde_json::from_value(c["milestones"].clone()).unwrap();
        Schedule::multi_step(float(c, "from"), float(c, "factor"), milestones).unwrap()
    });
}

#[test]
fn one_cycle() {
    check("one_cycle", |c| {
        let (div, last) = (float(c, "div_factor"), float(c, "final_div_factor"));
        Schedule::one_cycle_with(float(c, "max"), count(c, "steps"), float(c, "pct_start"), div, last).unwrap()
    });
}

#[test]
fn one_cycle_has_pytorchs_defaults() {
    let case = &cases("one_cycle")[0];
    let schedule = Schedule::one_cycle(float(case, "max"), count(case, "steps")).unwrap();
    for (step, value) in case["values"].as_array().unwrap().iter().enumerate() {
        assert_close(schedule.value(step), value.as_f64().unwrap(), 0.1, &step);
    }
}

#[test]
fn warmup() {
    check("warmup_cosine", |c| {
        let cosine = Schedule::cosine(float(c, "from"), float(c, "to"), count(c, "steps")).unwrap();
        cosine.with_warmup_from(float(c, "start_factor"), count(c, "warmup")).unwrap()
    });
}

#[test]
fn plateau() {
    let mut reductions = 0;
    for case in cases("plateau") {
        let mode = match text(&case, "mode") {
            "min" => PlateauMode::Min,
            "max" => PlateauMode::Max,
            other => panic!("unknown mode {other}"),
        };
        let threshold_mode = match text(&case, "threshold_mode") {
            "rel" => ThresholdMode::Rel,
            "abs" => ThresholdMode::Abs,
            other => panic!("unknown threshold mode {other}"),
        };
        let plateau = ReduceOnPlateau::new(float(&case, "factor"), count(&case, "patience")).unwrap();
        let plateau = plateau.with_mode(mode).with_threshold(float(&case, "threshold"), threshold_mode).unwrap();
        let plateau = plateau.with_cooldown(count(&case, "cooldown")).with_min(float(&case, "min")).unwrap();

        let metrics = case["metrics"].as_array().unwrap();
        let scales = case["scales"].as_array().unwrap();
        assert_eq!(metrics.len(), scales.len());
        let mut state = PlateauState::default();
        for (metric, scale) in metrics.iter().zip(scales) {
            plateau.observe(&mut state, metric.as_f64().unwrap_or(f64::NAN));
            assert_close(plateau.scale(&state), scale.as_f64().unwrap(), scale.as_f64().unwrap(), &case);
        }
        reductions += state.reductions;
    }
    assert!(reductions > 20, "the cases reduce too rarely to tell anything: {reductions}");
}
