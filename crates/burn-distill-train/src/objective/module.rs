//! What burn sees of an objective: its learned parts.

use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use super::{Objective, Term};

impl<S, T, B, P> Clone for Term<S, T, B, P> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), weight: self.weight.clone(), loss: self.loss.clone() }
    }
}

impl<S, T, B, P: Clone> Clone for Objective<S, T, B, P> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            terms: self.terms.clone(),
            tasks: self.tasks.clone(),
            balance: self.balance,
            learned: self.learned.clone(),
            temperature: self.temperature.clone(),
            classification: self.classification.clone(),
        }
    }
}

impl<S, T, B, P: fmt::Debug> fmt::Debug for Objective<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<_> = self.terms.iter().map(|term| (&term.name, &term.weight)).collect();
        f.debug_struct("Objective")
            .field("terms", &terms)
            .field("tasks", &self.tasks)
            .field("balance", &self.balance)
            .field("temperature", &self.temperature)
            .field("parts", &self.parts)
            .finish()
    }
}

/// The parts are the module, and beside them what is learned about the tasks; terms and schedules are code and
/// configuration.
impl<S, T, B, P: Module> Module for Objective<S, T, B, P> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.learned.collect_devices(self.parts.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self { parts: self.parts.fork(device), learned: self.learned.fork(device), ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { parts: self.parts.to_device(device), learned: self.learned.to_device(device), ..self }
    }

    fn materialize(self) -> Self {
        Self { parts: self.parts.materialize(), learned: self.learned.materialize(), ..self }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.parts.visit(visitor);
        visitor.enter_module(TASKS, CONTAINER);
        self.learned.visit(visitor);
        visitor.exit_module(TASKS, CONTAINER);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        let parts = self.parts.map(mapper);
        mapper.enter_module(TASKS, CONTAINER);
        let learned = self.learned.map(mapper);
        mapper.exit_module(TASKS, CONTAINER);
        Self { parts, learned, ..self }
    }

    fn valid(&self) -> Self {
        let objective = self.clone();
        Self { parts: self.parts.valid(), learned: self.learned.valid(), ..objective }
    }

    fn train(self) -> Self {
        Self { parts: self.parts.train(), learned: self.learned.train(), ..self }
    }
}

const TASKS: &str = "tasks";
const CONTAINER: &str = "Struct:Objective";
