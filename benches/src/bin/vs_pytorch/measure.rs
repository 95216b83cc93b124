//! The time of a step and the memory at its peak, of this process.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

const MOST_CALLS: usize = 1000;

/// Takes one step. What has to be prepared anew for each is outside the time that it gives.
pub(crate) type Step = Box<dyn FnMut() -> anyhow::Result<Taken>>;

/// A step that was taken.
pub(crate) struct Taken {
    pub(crate) time: Duration,
    /// The loss, where the other side can compute the same one.
    pub(crate) loss: Option<f64>,
    /// The first element of the gradient to the logits or to the weights, likewise.
    pub(crate) gradient: Option<f64>,
    /// What the time went into, where the step has parts.
    pub(crate) parts: Vec<(&'static str, Duration)>,
}

/// The first element, which waits for what computes it.
pub(crate) fn first(matrix: Tensor<2>) -> f64 {
    matrix.slice([0..1, 0..1]).into_scalar()
}

/// Takes steps for `seconds`, at least one and at most 1000; the times of all of them and the last one's results.
pub(crate) fn visit(step: &mut Step, seconds: f64) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut last = step()?;
    let mut times = vec![last.time];
    while start.elapsed().as_secs_f64() < seconds && times.len() < MOST_CALLS {
        let before = last.parts;
        last = step()?;
        times.push(last.time);
        last.parts.iter_mut().zip(before).for_each(|((_, time), (_, before))| *time = before.min(*time));
    }
    times.sort();
    let parts: Map<String, Value> =
        last.parts.iter().map(|(name, time)| ((*name).to_owned(), time.as_secs_f64().into())).collect();
    Ok(json!({
        "seconds": times[0].as_secs_f64(),
        "median": times[times.len() / 2].as_secs_f64(),
        "calls": times.len(),
        "loss": last.loss,
        "gradient": last.gradient,
        "parts": parts,
    }))
}

/// One step, and the largest growth of the resident memory during it.
pub(crate) fn peak(step: &mut Step) -> anyhow::Result<Value> {
    // Sets the peak that the kernel remembers to what is resident now.
    fs::write("/proc/self/clear_refs", "5").context("the peak of the resident memory cannot be reset")?;
    let before = status("VmRSS:")?;
    let taken = step()?;
    Ok(json!({
        "seconds": taken.time.as_secs_f64(),
        "loss": taken.loss,
        "gradient": taken.gradient,
        "peak_bytes": status("VmHWM:")?.saturating_sub(before),
    }))
}

/// A size of /proc/self/status in bytes.
fn status(field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kibibytes * 1024)
}
