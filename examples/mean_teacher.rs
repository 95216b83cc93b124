//! Do images without labels help, when the average of the student's own past says what they are?
//!
//! ```text
//! cargo run --release --example mean_teacher
//! ```
//!
//! Mean Teacher (Tarvainen 2017, arXiv 1703.01780): of 4,000 images of Fashion-MNIST 100 have a label. The teacher is the
//! exponential moving average of the student. Both see every image, each in a view of its own; on all of them the student
//! is drawn to what the teacher says, by KL where the paper has the squared error, with a weight that grows. Compared
//! with the same runs at a weight of 0: the same images, steps and average, and the labels alone to learn from.
//!
//! Expect 69.7 % for the student and 70.1 % for its average on labels alone, 69.8 % and 70.4 % as mean teacher, each
//! within 2, and a verdict that it neither helped nor hurt; 5 seeds, 3 minutes on 2 cores.

use std::sync::Arc;

use anyhow::Result;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::transform::ComposedDataset;
use burn::module::Module;
use burn::tensor::Device;
use burn_distill::losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill::models::{MeanTeacher, Seeded, SeededLoader, SeededLoaderConfig, Student, Teacher};
use burn_distill::schedules::Schedule;
use burn_distill::train::{Distillation, Monitor, keep_freed_memory};
use burn_distill::vision::{AugmentConfig, ImageBatch, ImageBatcher, ImageDataset, ImageItem, Normalization};
use burn_distill_examples::{ConvNet, ConvNetOutput, Images, Options, Recipe, Table, accuracy, classified};

const CHANNELS: [usize; 3] = [8, 16, 32];
const LABELS: usize = 100;
const DECAY: f64 = 0.99;
const DROPOUT: f64 = 0.3;
const CONSISTENCY: f64 = 2.0;

/// The same images, augmented twice.
struct TwoViews {
    student: ImageBatch,
    teacher: ImageBatch,
}

/// Augments an image for the student by its seed, and for the teacher by another one.
struct Views(ImageBatcher);

impl Batcher<Seeded<ImageItem>, TwoViews> for Views {
    fn batch(&self, items: Vec<Seeded<ImageItem>>, device: &Device) -> TwoViews {
        let others = items.iter().map(|item| Seeded { seed: !item.seed, ..item.clone() });
        TwoViews { teacher: self.0.batch(others.collect(), device), student: self.0.batch(items, device) }
    }
}

impl Student<TwoViews> for ConvNet {
    type Output = ConvNetOutput;

    fn forward(&self, batch: &TwoViews) -> ConvNetOutput {
        self.forward(&batch.student)
    }
}

/// The average, which looks at the other view.
#[derive(Module, Debug)]
struct OtherView {
    average: MeanTeacher<ConvNet>,
}

impl Teacher<TwoViews> for OtherView {
    type Output = ConvNetOutput;

    fn forward(&self, batch: &TwoViews) -> ConvNetOutput {
        self.average.forward(&batch.teacher)
    }

    fn fingerprint(&self) -> String {
        Teacher::<ImageBatch>::fingerprint(&self.average)
    }

    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        Self { average: Teacher::<ImageBatch>::after_step(self.average, student, step) }
    }
}

fn main() -> Result<()> {
    keep_freed_memory();
    let options = Options::read("mean_teacher");
    let device = Device::flex().autodiff();
    let images = Images::fashion_mnist(4_000, &options)?;
    let recipe = Recipe { epochs: options.size(25, 1), batch_size: 100, learning_rate: 0.003 };
    println!("{CHANNELS:?} channels, {} images, {LABELS} labels, {recipe:?}", images.train.len());

    let mut table = Table::new(["student %", "its average %", "seconds"]);
    for seed in options.seeds(5) {
        // Other labels for each seed, repeated until they are a fifth of what is seen.
        let labelled = images.train.balanced_subset(LABELS, seed)?;
        let unlabelled = images.train.without_labels(1.0, 0)?;
        let copies = unlabelled.len() / 4 / labelled.len();
        let parts: Vec<_> = std::iter::repeat_n(labelled, copies).chain([unlabelled]).collect();
        for (method, consistency) in [("labels alone", 0.0), ("mean teacher", CONSISTENCY)] {
            let student = ConvNet::new(&CHANNELS, seed, &device).with_dropout(DROPOUT);
            let (student, average, seconds) =
                learn(student, consistency, &parts, &images, recipe, &options, (method, seed))?;
            table.add(method, [accuracy(&student, &images.test)?, accuracy(&average, &images.test)?, seconds]);
        }
    }
    println!("\n{table}");
    println!("Verdict on the average: {}.", table.gain("mean teacher", "labels alone", "its average %")?);
    Ok(())
}

/// Gives the student, its average, and the seconds.
fn learn(
    student: ConvNet,
    consistency: f64,
    parts: &[ImageDataset],
    images: &Images,
    recipe: Recipe,
    options: &Options,
    name: (&str, u64),
) -> Result<(ConvNet, ConvNet, f64)> {
    let seen = parts.iter().map(ImageDataset::len).sum();
    let plain = AugmentConfig::new(Normalization::fashion_mnist());
    let shifted = plain.clone().with_crop_padding(2).with_flip_probability(0.5);
    let views = |augment: AugmentConfig| -> Result<Views> {
        Ok(Views(ImageBatcher::new(augment.init(images.test.shape())?, images.test.num_classes())?))
    };
    let config = SeededLoaderConfig::new(recipe.batch_size).with_shuffle(true).with_seed(name.1).with_drop_last(true);
    let train = SeededLoader::new(Arc::new(ComposedDataset::new(parts.to_vec())), views(shifted)?, config)?;
    let held_out = SeededLoader::new(Arc::new(images.held_out.clone()), views(plain)?, SeededLoaderConfig::new(250))?;

    let (hard, kd) = (CrossEntropyLossConfig::new().init()?, KdLossConfig::new().with_temperature(1.0).init()?);
    let weight = Schedule::linear(0.0, consistency, recipe.steps(seen))?;
    let teacher = OtherView { average: MeanTeacher::new(&student, DECAY)? };
    let run = Distillation::new(student, teacher, Arc::new(train), Arc::new(held_out))
        .term("hard", 1.0, move |view| {
            let batch = &view.batch.student;
            hard.forward(view.student.logits.clone(), batch.targets.clone(), batch.labelled.clone())
        })
        .term("consistency", weight, move |view| {
            kd.forward(view.student.logits.clone(), view.teacher.logits.clone(), None)
        })
        .classification(|view| classified(&view.student.logits, Some(&view.teacher.logits), &view.batch.student))
        .monitor(Monitor::highest("teacher_accuracy"));
    let (trained, teacher, seconds) = recipe.train(run, seen, options, name)?;
    Ok((trained.student, teacher.average.into_average(), seconds))
}
