//! Does a network of middle size help where the teacher is far larger than the student?
//!
//! ```text
//! cargo run --release --example teaching_assistant
//! ```
//!
//! Teacher assistants (TAKD, Mirzadeh 2020, arXiv 1902.03393): the teacher has sixteen times the parameters of the
//! student. It teaches an assistant of middle size, and the assistant teaches the student. Compared with the same
//! student, from the same weights and batches of Fashion-MNIST, taught by the teacher itself, and by the labels alone.
//!
//! Expect 80.8 % by the labels, 81.3 % by the teacher and 82.1 % by the assistant, each within 0.7, and a verdict that it
//! helped; 5 seeds, 3 minutes on 2 cores.

use anyhow::Result;
use burn::tensor::Device;
use burn_distill::losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill::models::{Frozen, parameter_count};
use burn_distill::train::{Distillation, keep_freed_memory};
use burn_distill_examples::{ConvNet, Images, Options, Recipe, Table, accuracy, classified};

const TEACHER: [usize; 3] = [24, 48, 96];
const ASSISTANT: [usize; 3] = [10, 20, 40];
const STUDENT: [usize; 3] = [4, 8, 16];
const TEMPERATURE: f64 = 4.0;

fn main() -> Result<()> {
    keep_freed_memory();
    let options = Options::read("teaching_assistant");
    let device = Device::flex().autodiff();
    let images = Images::fashion_mnist(2_000, &options)?;
    let recipe = Recipe { epochs: options.size(20, 1), batch_size: 50, learning_rate: 0.005 };
    println!("{} images, {recipe:?}, temperature {TEMPERATURE}", images.train.len());

    let mut table = Table::new(["accuracy %", "parameters", "seconds"]);
    for seed in options.seeds(5) {
        let network = |channels: &[usize]| ConvNet::new(channels, 1_000 * channels[0] as u64 + seed, &device);
        let mut add = |method: &str, network: &ConvNet, seconds: f64| -> Result<()> {
            table.add(method, [accuracy(network, &images.test)?, parameter_count(network) as f64, seconds]);
            Ok(())
        };
        let taught_by = |teacher: &ConvNet, student: ConvNet, method: &str| {
            taught_by(teacher, student, recipe, &images, &options, (method, seed))
        };

        let (teacher, seconds) = recipe.from_labels(network(&TEACHER), &images, &options, ("teacher", seed))?;
        add("teacher", &teacher, seconds)?;
        let (assistant, seconds) = taught_by(&teacher, network(&ASSISTANT), "assistant")?;
        add("assistant, by the teacher", &assistant, seconds)?;

        let (alone, seconds) = recipe.from_labels(network(&STUDENT), &images, &options, ("alone", seed))?;
        add("student, labels alone", &alone, seconds)?;
        let (direct, seconds) = taught_by(&teacher, network(&STUDENT), "direct")?;
        add("student, by the teacher", &direct, seconds)?;
        let (student, seconds) = taught_by(&assistant, network(&STUDENT), "by the assistant")?;
        add("student, by the assistant", &student, seconds)?;
    }
    println!("\n{table}");
    let direct = table.gain("student, by the assistant", "student, by the teacher", "accuracy %")?;
    let alone = table.gain("student, by the assistant", "student, labels alone", "accuracy %")?;
    println!("Verdict: {direct}; {alone}.");
    Ok(())
}

/// Half by the labels, half by the teacher's soft targets.
fn taught_by(
    teacher: &ConvNet,
    student: ConvNet,
    recipe: Recipe,
    images: &Images,
    options: &Options,
    (method, seed): (&str, u64),
) -> Result<(ConvNet, f64)> {
    let (train, held_out) = images.loaders(recipe.batch_size, seed)?;
    let (hard, kd) = (CrossEntropyLossConfig::new().init()?, KdLossConfig::new().with_temperature(TEMPERATURE).init()?);
    let run = Distillation::new(student, Frozen::new(teacher.clone()), train, held_out)
        .term("hard", 0.5, move |view| hard.forward(view.student.logits.clone(), view.batch.targets.clone(), None))
        .term("kd", 0.5, move |view| kd.forward(view.student.logits.clone(), view.teacher.logits.clone(), None))
        .classification(|view| classified(&view.student.logits, Some(&view.teacher.logits), view.batch));
    let (trained, _, seconds) = recipe.train(run, images.train.len(), options, (method, seed))?;
    Ok((trained.student, seconds))
}
