use std::path::PathBuf;

use clap::Parser;

/// The command line of an example.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// How many seeds each method is run with [default: what the example's first lines say].
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// A few steps of everything, to see that it runs; the numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Where runs and reports go: a folder per example.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    #[arg(skip)]
    name: &'static str,
}

impl Options {
    /// Reads the command line of the example `name`.
    pub fn read(name: &'static str) -> Self {
        Self { name, ..Self::parse() }
    }

    /// The seeds: from 0, as many as the command line says, or `default`.
    pub fn seeds(&self, default: u64) -> std::ops::Range<u64> {
        0..self.seeds.unwrap_or(if self.quick { 1 } else { default }).max(1)
    }

    /// A number of images or epochs, or a small one for a quick look.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick.min(full) } else { full }
    }

    /// The folder of one run, for its metrics, checkpoints and report.
    pub fn folder(&self, method: &str, seed: u64) -> PathBuf {
        let words: Vec<_> = method.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        self.out.join(self.name).join(format!("{}-seed{seed}", words.join("-")))
    }
}
