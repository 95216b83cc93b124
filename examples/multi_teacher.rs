//! How should several teachers be weighted, when each knows something else?
//!
//! ```text
//! cargo run --release --example multi_teacher
//! ```
//!
//! Two teachers of Fashion-MNIST have each seen many images of five classes and ten of each other one, so that each is
//! wrong about half of what the student is to learn. The student learns from the labels of 1,000 images of its own and
//! from both teachers, whose weights are fixed and equal; learned, one for each teacher, by uncertainty (Kendall 2018,
//! arXiv 1705.07115); or each sample's own, by how sure each teacher is of its label (CA-MKD, Zhang 2022, arXiv
//! 2201.00007).
//!
//! Expect 79.9 % on labels alone, 80.5 % with fixed weights, 80.8 % by uncertainty and 81.8 % per sample, each within 0.9,
//! and a verdict that weights per sample helped; 5 seeds, 2 minutes on 2 cores.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_distill::losses::{CrossEntropyLossConfig, KdLossConfig, MultiTeacherKdLossConfig};
use burn_distill::models::Frozen;
use burn_distill::train::{Distillation, keep_freed_memory};
use burn_distill::vision::ImageDataset;
use burn_distill_examples::{ConvNet, ConvNetOutput, Images, Options, Recipe, Table, accuracy, classified};

const CHANNELS: [usize; 3] = [8, 16, 32];
const TEMPERATURE: f64 = 2.0;
/// T-shirt, trouser, pullover, dress, coat; sandal, shirt, sneaker, bag, ankle boot.
const SPECIALITIES: [[u32; 5]; 2] = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]];
/// How many images of each other class a teacher has seen.
const SEEN_IN_PASSING: usize = 10;

#[derive(Clone, Copy, Debug)]
enum Weights {
    Fixed,
    Uncertainty,
    PerSample,
}

/// The logarithms of the variances, one for each teacher: learned with the student, and thrown away.
#[derive(Module, Debug)]
struct Variances {
    logarithms: Param<Tensor<1>>,
}

fn main() -> Result<()> {
    keep_freed_memory();
    let options = Options::read("multi_teacher");
    let device = Device::flex().autodiff();
    let mut images = Images::fashion_mnist(9_500, &options)?;
    let share = options.size(1_000, 100) as f64 / images.train.len() as f64;
    let (own, others) = images.train.split(share, 1)?;
    let recipe = Recipe { epochs: options.size(20, 1), batch_size: 50, learning_rate: 0.005 };
    let short = Recipe { epochs: options.size(8, 1), ..recipe };
    println!("{CHANNELS:?} channels, {} images, {recipe:?}, temperature {TEMPERATURE}", own.len());

    let mut table = Table::new(["accuracy %", "seconds"]);
    for seed in options.seeds(5) {
        let network = |number: u64| ConvNet::new(&CHANNELS, 1_000 * number + seed, &device);
        let mut teachers = Vec::new();
        for (number, classes) in (1..).zip(SPECIALITIES) {
            images.train = of_a_specialist(&others, &classes)?;
            let method = format!("teacher {number}");
            let (teacher, seconds) = short.from_labels(network(number), &images, &options, (&method, seed))?;
            table.add(&method, [accuracy(&teacher, &images.test)?, seconds]);
            teachers.push(Frozen::new(teacher));
        }
        images.train = own.clone();
        let (alone, seconds) = recipe.from_labels(network(0), &images, &options, ("labels alone", seed))?;
        table.add("labels alone", [accuracy(&alone, &images.test)?, seconds]);
        for (method, weights) in [
            ("fixed weights", Weights::Fixed),
            ("by uncertainty", Weights::Uncertainty),
            ("per sample", Weights::PerSample),
        ] {
            let name = (method, seed);
            let (student, seconds) = learn(network(0), teachers.clone(), weights, recipe, &images, &options, name)?;
            table.add(method, [accuracy(&student, &images.test)?, seconds]);
        }
    }
    println!("\n{table}");
    let gain = |method, baseline| table.gain(method, baseline, "accuracy %");
    println!(
        "Verdict: {}; {}; {}.",
        gain("fixed weights", "labels alone")?,
        gain("by uncertainty", "fixed weights")?,
        gain("per sample", "fixed weights")?
    );
    Ok(())
}

/// The images of some classes, and a few of each other one.
fn of_a_specialist(images: &ImageDataset, classes: &[u32]) -> Result<ImageDataset> {
    let mut seen = vec![0; images.num_classes()];
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for item in (0..images.len()).map(|index| images.item(index)) {
        let Some(label) = item.label() else { continue };
        seen[label as usize] += 1;
        if classes.contains(&label) || seen[label as usize] <= SEEN_IN_PASSING {
            pixels.extend_from_slice(item.pixels());
            labels.push(Some(label));
        }
    }
    Ok(ImageDataset::new(pixels, images.shape(), &labels, images.class_names().to_vec())?)
}

/// A student of labels and all teachers. Several teachers are a teacher, whose output is the list of their outputs.
fn learn(
    student: ConvNet,
    teachers: Vec<Frozen<ConvNet>>,
    weights: Weights,
    recipe: Recipe,
    images: &Images,
    options: &Options,
    name: (&str, u64),
) -> Result<(ConvNet, f64)> {
    let (train, held_out) = images.loaders(recipe.batch_size, name.1)?;
    let hard = CrossEntropyLossConfig::new().init()?;
    let kd = KdLossConfig::new().with_temperature(TEMPERATURE).init()?;
    let per_sample = MultiTeacherKdLossConfig::new().with_temperature(TEMPERATURE).init()?;
    let logarithms = Param::from_tensor(Tensor::zeros([teachers.len()], &Device::flex().autodiff()));
    let run = Distillation::new(student, teachers, train, held_out)
        .parts(Variances { logarithms })
        .term("hard", 0.5, move |view| hard.forward(view.student.logits.clone(), view.batch.targets.clone(), None))
        .term("kd", 0.5, move |view| {
            let student = &view.student.logits;
            let of_each = || {
                let loss = |out: &ConvNetOutput| kd.forward(student.clone(), out.logits.clone(), None);
                Tensor::cat(view.teacher.iter().map(loss).collect(), 0)
            };
            match weights {
                Weights::Fixed => of_each().mean(),
                Weights::Uncertainty => {
                    let logarithms = view.parts.logarithms.val();
                    (of_each() * logarithms.clone().neg().exp() + logarithms.div_scalar(2.0)).mean()
                }
                Weights::PerSample => {
                    let teachers = view.teacher.iter().map(|out| out.logits.clone());
                    per_sample.forward(student.clone(), teachers, view.batch.targets.clone(), None)
                }
            }
        })
        .classification(|view| classified(&view.student.logits, None, view.batch));
    let (trained, _, seconds) = recipe.train(run, images.train.len(), options, name)?;
    Ok((trained.student, seconds))
}
