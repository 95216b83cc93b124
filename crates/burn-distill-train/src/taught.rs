//! What burn-train sees of a run: batches that may come with the teacher's answer, and a module that takes them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_distill_models::{Student, Teacher};

use crate::Distiller;
use crate::output::DistillOutput;

/// A batch, and the teacher's answer to it if it was asked ahead.
pub(crate) struct Taught<B> {
    pub(crate) batch: B,
    /// The teacher's output, of whatever type that is.
    pub(crate) answer: Option<Box<dyn Any + Send>>,
}

/// Batches to which the teacher has not answered yet.
pub(crate) struct Unasked<B>(pub(crate) Arc<dyn DataLoader<B>>);

impl<B: Send + 'static> DataLoader<Taught<B>> for Unasked<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Taught<B>> + 'a> {
        Box::new(UnaskedBatches(self.0.iter()))
    }

    fn num_items(&self) -> usize {
        self.0.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Taught<B>>> {
        Arc::new(Self(self.0.to_device(device)))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Taught<B>>> {
        Arc::new(Self(self.0.slice(start, end)))
    }
}

struct UnaskedBatches<'a, B>(Box<dyn DataLoaderIterator<B> + 'a>);

impl<B> Iterator for UnaskedBatches<'_, B> {
    type Item = Result<Taught<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|batch| batch.map(|batch| Taught { batch, answer: None }))
    }
}

impl<B> DataLoaderIterator<Taught<B>> for UnaskedBatches<'_, B> {
    fn progress(&self) -> Progress {
        self.0.progress()
    }
}

/// A [`Distiller`] that takes [`Taught`] batches; in everything else, records included, it is the distiller.
pub(crate) struct TaughtDistiller<S: Student<B>, T: Teacher<B>, B, P>(pub(crate) Distiller<S, T, B, P>);

impl<S, T, B, P> TrainStep for TaughtDistiller<S, T, B, P>
where
    S: Student<B>,
    T: Teacher<B>,
    B: Send + 'static,
    P: Module,
    T::Output: 'static,
{
    type Input = Taught<B>;
    type Output = DistillOutput;

    fn step(&self, Taught { batch, answer }: Taught<B>) -> TrainOutput<DistillOutput> {
        self.0.train_step(batch, answer.map(typed))
    }

    fn optimize(self, optimizer: &mut ModuleOptimizer, rate: ModuleLearningRate, grads: GradientsParams) -> Self {
        Self(self.0.optimize(optimizer, rate, grads))
    }

    fn optimize_multi(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        Self(self.0.optimize_multi(optimizer, rate, grads))
    }
}

impl<S, T, B, P> InferenceStep for TaughtDistiller<S, T, B, P>
where
    S: Student<B>,
    T: Teacher<B>,
    B: Send + 'static,
    P: Module,
    T::Output: 'static,
{
    type Input = Taught<B>;
    type Output = DistillOutput;

    fn step(&self, Taught { batch, answer }: Taught<B>) -> DistillOutput {
        self.0.inference_step(batch, answer.map(typed))
    }
}

fn typed<O: 'static>(answer: Box<dyn Any + Send>) -> O {
    *answer.downcast().expect("the run's own loaders ask the run's own teacher")
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> Clone for TaughtDistiller<S, T, B, P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> fmt::Debug for TaughtDistiller<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> fmt::Display for TaughtDistiller<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> Module for TaughtDistiller<S, T, B, P> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self(self.0.map(mapper))
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }
}
