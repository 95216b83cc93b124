//! Our side of `scripts/bench-vs-pytorch`: one line of words in, one line of JSON out.
//!
//! ```text
//! MODE loss NAME ROWS CLASSES kept|handed_over
//! MODE floor ROWS CLASSES
//! MODE linear jsd|kd chunked|unchunked|products TOKENS HIDDEN VOCABULARY
//! MODE step BATCH
//! ```
//!
//! MODE is `warm` (one step), `time:SECONDS` (steps for so long) or `peak` (one step, with the growth of the memory of
//! this process). `benches/vs_pytorch/worker.py` answers the same lines with PyTorch.

mod inputs;
mod linear;
mod losses;
mod measure;
mod step;

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, BufRead},
};

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use inputs::{Linear, Logits};
use measure::Step;

/// Answers cases of `scripts/bench-vs-pytorch` from the standard input.
#[derive(Parser)]
struct Arguments {
    /// The backend that computes.
    #[arg(long, value_enum)]
    device: Backend,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Backend {
    Flex,
    Libtorch,
}

impl Backend {
    fn device(self) -> anyhow::Result<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "libtorch")]
            #[allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")]
            Self::Libtorch => Ok(Device::libtorch()),
            #[allow(unreachable_patterns, reason = "which backends there are is decided by features")]
            missing => bail!("`{missing:?}` is not in this build: build with the feature of its name"),
        }
    }
}

/// What the steps that are held now compute with; all of them are of one size.
enum Inputs {
    Own,
    Logits(Box<Logits>),
    Linear(Box<Linear>),
}

/// The steps of one size; those of another take their place, so that only one size is in memory.
struct Steps {
    device: Device,
    kind: String,
    sizes: Vec<usize>,
    inputs: Inputs,
    steps: HashMap<String, Step>,
}

impl Steps {
    fn new(device: Device) -> Self {
        Self { device, kind: String::new(), sizes: Vec::new(), inputs: Inputs::Own, steps: HashMap::new() }
    }

    fn get(&mut self, words: &[&str]) -> anyhow::Result<&mut Step> {
        let kind = *words.first().context("no case")?;
        let sizes: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        if self.kind != kind || self.sizes != sizes {
            *self = Self { kind: kind.to_owned(), sizes, ..Self::new(self.device.clone()) };
            self.inputs = match (kind, self.sizes.as_slice()) {
                ("loss", &[rows, classes]) => Inputs::Logits(Box::new(Logits::new(rows, classes, &self.device)?)),
                ("linear", &[tokens, hidden, vocabulary]) => {
                    Inputs::Linear(Box::new(Linear::new(tokens, hidden, vocabulary, &self.device)))
                }
                _ => Inputs::Own,
            };
        }
        match self.steps.entry(words.join(" ")) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(prepare(words, &self.sizes, &self.inputs, &self.device)?)),
        }
    }
}

fn prepare(words: &[&str], sizes: &[usize], inputs: &Inputs, device: &Device) -> anyhow::Result<Step> {
    match (words, sizes, inputs) {
        (["loss", name, _, _, teacher], _, Inputs::Logits(x)) => losses::prepare(name, teacher, x),
        (["floor", ..], &[rows, classes], _) => Ok(losses::prepare_floor(rows * classes)),
        (["linear", loss, form, ..], _, Inputs::Linear(x)) => linear::prepare(loss, form, x),
        (["step", _], &[batch], _) => step::prepare(batch, device),
        _ => bail!("no case `{}`", words.join(" ")),
    }
}

fn answer(steps: &mut Steps, line: &str) -> anyhow::Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (mode, case) = words.split_first().context("an empty line")?;
    let step = steps.get(case)?;
    match (*mode, mode.strip_prefix("time:")) {
        ("warm", _) => step().map(|_| json!({})),
        ("peak", _) => measure::peak(step),
        (_, Some(seconds)) => measure::visit(step, seconds.parse().context("seconds")?),
        _ => bail!("no mode `{mode}`"),
    }
}

fn main() -> anyhow::Result<()> {
    let device = Arguments::parse().device.device()?;
    let mut steps = Steps::new(device);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut result = answer(&mut steps, &line).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        result["case"] = json!(line);
        println!("{result}");
    }
    Ok(())
}
