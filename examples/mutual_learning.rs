//! Do two students that learn from the labels and from each other end better than one that learns alone?
//!
//! ```text
//! cargo run --release --example mutual_learning
//! ```
//!
//! Deep mutual learning (Zhang 2018, arXiv 1706.00384): there is no teacher. Two networks of one architecture, each with
//! weights of its own, see the same batches of Fashion-MNIST; each learns from the labels and, by KL, from what the other
//! one says. Both are updated in the same step, where the paper updates them in turns, and the temperature is 2, where the
//! paper has 1. They are compared with themselves, each alone, from the same weights and on the same batches, and with
//! one of them alone for twice the steps; each takes the same time.
//!
//! Expect 81.8 % alone and 83.4 % from each other, each within 0.7, and a verdict that it helped; 5 seeds, 2 minutes on
//! 2 cores.

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use burn_distill::losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill::models::NoTeacher;
use burn_distill::train::{Classification, Distillation, keep_freed_memory};
use burn_distill_examples::{ConvNet, ConvNetOutput, Images, Options, Recipe, Table, accuracy};

const CHANNELS: [usize; 3] = [8, 16, 32];
const TEMPERATURE: f64 = 2.0;

fn main() -> Result<()> {
    keep_freed_memory();
    let options = Options::read("mutual_learning");
    let device = Device::flex().autodiff();
    let images = Images::fashion_mnist(2_000, &options)?;
    let recipe = Recipe { epochs: options.size(20, 1), batch_size: 50, learning_rate: 0.005 };
    let longer = Recipe { epochs: 2 * recipe.epochs, ..recipe };
    println!("{CHANNELS:?} channels, {} images, {recipe:?}, temperature {TEMPERATURE}", images.train.len());

    let mut table = Table::new(["accuracy %", "seconds"]);
    let mean = |first: f64, second: f64| (first + second) / 2.0;
    for seed in options.seeds(5) {
        let network = |number: u64| ConvNet::new(&CHANNELS, 1_000 * number + seed, &device);
        let alone = |number, recipe: &Recipe, method: &str| -> Result<(f64, f64)> {
            let (student, seconds) = recipe.from_labels(network(number), &images, &options, (method, seed))?;
            Ok((accuracy(&student, &images.test)?, seconds))
        };
        let (first, second) = (alone(0, &recipe, "alone, first")?, alone(1, &recipe, "alone, second")?);
        table.add("each alone", [mean(first.0, second.0), first.1 + second.1]);
        let (first, seconds) = alone(0, &longer, "alone, twice the steps")?;
        table.add("one alone, twice the steps", [first, seconds]);

        // A pair of students is a student, whose output is the pair of their outputs.
        let pair = (network(0), network(1));
        let ((first, second), seconds) = learn_from_each_other(pair, recipe, &images, &options, seed)?;
        let both = mean(accuracy(&first, &images.test)?, accuracy(&second, &images.test)?);
        table.add("from each other", [both, seconds]);
    }
    println!("\n{table}");
    let each = table.gain("from each other", "each alone", "accuracy %")?;
    let longer = table.gain("from each other", "one alone, twice the steps", "accuracy %")?;
    println!("Verdict: {each}; {longer}.");
    Ok(())
}

/// Trains both in one run.
fn learn_from_each_other(
    pair: (ConvNet, ConvNet),
    recipe: Recipe,
    images: &Images,
    options: &Options,
    seed: u64,
) -> Result<((ConvNet, ConvNet), f64)> {
    let (train, held_out) = images.loaders(recipe.batch_size, seed)?;
    let (hard, kd) = (CrossEntropyLossConfig::new().init()?, KdLossConfig::new().with_temperature(TEMPERATURE).init()?);
    let run = Distillation::new(pair, NoTeacher::new(), train, held_out)
        .term("hard", 1.0, move |view| {
            let loss = |out: &ConvNetOutput| hard.forward(out.logits.clone(), view.batch.targets.clone(), None);
            loss(&view.student.0) + loss(&view.student.1)
        })
        .term("mutual", 1.0, move |view| {
            // No gradient goes to the second argument of the loss: there it is the teacher's.
            let (a, b) = (&view.student.0.logits, &view.student.1.logits);
            kd.forward(a.clone(), b.clone(), None) + kd.forward(b.clone(), a.clone(), None)
        })
        .classification(|view| {
            // The best epoch is that in which both together are right most often: the rows of both, one below the other.
            let logits = Tensor::cat(vec![view.student.0.logits.clone(), view.student.1.logits.clone()], 0);
            let targets = Tensor::cat(vec![view.batch.targets.clone(); 2], 0);
            Classification { student_logits: logits, teacher_logits: None, targets: Some(targets), labelled: None }
        });
    let (trained, _, seconds) = recipe.train(run, images.train.len(), options, ("from each other", seed))?;
    Ok((trained.student, seconds))
}
