use std::time::Instant;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Tensor;
use burn_distill::losses::CrossEntropyLossConfig;
use burn_distill::models::{NoTeacher, Student, Teacher};
use burn_distill::schedules::Schedule;
use burn_distill::train::{Classification, Distillation, Progress, Resume, Trained, evaluate};
use burn_distill::vision::{ImageBatch, ImageDataset};

use crate::{ConvNet, Images, Options};

/// How every network of an example is trained: Adam, and a learning rate that falls along half a cosine. The best epoch
/// is the one with the highest accuracy on the images that were held out.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// How many times the images are seen.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// The first learning rate; the last is 0.
    pub learning_rate: f64,
}

impl Recipe {
    /// The optimiser steps of a run over so many images.
    pub fn steps(&self, images: usize) -> usize {
        self.epochs * (images / self.batch_size)
    }

    /// Trains by this recipe on so many images, without looking at what an earlier run left. Gives the student, the
    /// teacher as the run left it, and the seconds that it took.
    pub fn train<S, T, B, P>(
        &self,
        run: Distillation<S, T, B, P>,
        images: usize,
        options: &Options,
        (method, seed): (&str, u64),
    ) -> Result<(Trained<S, P>, T, f64)>
    where
        S: Student<B> + 'static,
        S::Output: 'static,
        T: Teacher<B> + 'static,
        T::Output: 'static,
        B: Send + 'static,
        P: Module + 'static,
    {
        let start = Instant::now();
        let (trained, teacher) = run
            .epochs(self.epochs)
            .learning_rate(Schedule::cosine(self.learning_rate, 0.0, self.steps(images))?)
            .seed(seed)
            .label(&format!("{method}, seed {seed}"))
            .folder(options.folder(method, seed))
            .resume(Resume::Never)
            .progress(Progress::Silent)
            .run_with_teacher()?;
        let seconds = start.elapsed().as_secs_f64();
        println!("seed {seed}: {method}: {} steps in {seconds:.1} s", trained.steps);
        Ok((trained, teacher, seconds))
    }

    /// The baseline, and the first teacher: trains a network on labels alone.
    pub fn from_labels(
        &self,
        network: ConvNet,
        images: &Images,
        options: &Options,
        (method, seed): (&str, u64),
    ) -> Result<(ConvNet, f64)> {
        let (train, held_out) = images.loaders(self.batch_size, seed)?;
        let hard = CrossEntropyLossConfig::new().init()?;
        let run = Distillation::new(network, NoTeacher::new(), train, held_out)
            .term("hard", 1.0, move |view| {
                let labelled = view.batch.labelled.clone();
                hard.forward(view.student.logits.clone(), view.batch.targets.clone(), labelled)
            })
            .classification(|view| classified(&view.student.logits, None, view.batch));
        let (trained, _, seconds) = self.train(run, images.train.len(), options, (method, seed))?;
        Ok((trained.student, seconds))
    }
}

/// Logits of a batch, beside its labels and perhaps a teacher's logits: what the metrics compare.
pub fn classified(student: &Tensor<2>, teacher: Option<&Tensor<2>>, batch: &ImageBatch) -> Classification {
    Classification {
        student_logits: student.clone(),
        teacher_logits: teacher.cloned(),
        targets: Some(batch.targets.clone()),
        labelled: Some(batch.labelled.clone()),
    }
}

/// The per cent of images for which a network's likeliest class is the label.
pub fn accuracy(network: &ConvNet, images: &ImageDataset) -> Result<f64> {
    let stats = evaluate(network, &*Images::in_order(images)?, |out, batch| classified(&out.logits, None, batch))?;
    Ok(100.0 * stats.top1.and_then(|mean| mean.value()).unwrap_or(f64::NAN))
}
