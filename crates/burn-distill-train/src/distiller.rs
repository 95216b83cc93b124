use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_distill_eval::kl_to_teacher;
use burn_distill_models::{Student, Teacher, mix_seed};

use crate::gradients;
use crate::objective::{Evaluated, NoParts, Objective};
use crate::output::{DistillOutput, OutputState, Pending};
use crate::state::{NonFinite, RunState};

/// A student on its way: the module that burn-train trains.
///
/// One step, as the data sees it: the teacher looks at the batch outside the gradient graph, the student looks at the
/// same batch, the objective compares them, the total goes backward, the optimiser steps. The teacher is not trained;
/// whether it is in a checkpoint is its own affair ([`Frozen`](burn_distill_models::Frozen) is not).
///
/// [`Distillation`](crate::Distillation) builds and runs it; take it as it is for a training loop of your own: it
/// implements burn-train's [`TrainStep`] and [`InferenceStep`].
///
/// Clones share the step counter: burn-train clones and forks the model, and a run has one step.
pub struct Distiller<S: Student<B>, T: Teacher<B>, B, P = NoParts> {
    student: S,
    objective: Objective<S::Output, T::Output, B, P>,
    teacher: T,
    run: Arc<RunState>,
}

impl<S, T, B, P> Distiller<S, T, B, P>
where
    S: Student<B>,
    T: Teacher<B>,
    P: Module,
{
    /// A distiller at step 0 that stops at the first value that is not finite.
    ///
    /// # Errors
    /// When the objective has no term, two of the same name, or an invalid schedule.
    pub fn new(
        student: S,
        teacher: T,
        objective: Objective<S::Output, T::Output, B, P>,
    ) -> Result<Self, crate::TrainError> {
        objective.validate()?;
        Ok(Self { student, objective, teacher, run: Arc::default() })
    }

    pub(crate) fn with_run(self, run: Arc<RunState>) -> Self {
        Self { run, ..self }
    }

    /// The student.
    pub fn student(&self) -> &S {
        &self.student
    }

    /// The teacher.
    pub fn teacher(&self) -> &T {
        &self.teacher
    }

    /// The objective, with its learned parts.
    pub fn objective(&self) -> &Objective<S::Output, T::Output, B, P> {
        &self.objective
    }

    /// How many optimiser steps were taken.
    pub fn step_count(&self) -> usize {
        self.run.step()
    }

    pub(crate) fn into_parts(self) -> (S, T, Objective<S::Output, T::Output, B, P>) {
        (self.student, self.teacher, self.objective)
    }

    fn evaluate(&self, batch: &B) -> (Evaluated, f64) {
        let step = self.run.step();
        let temperature = self.objective.temperature_at(step, &self.run.gap());
        let teacher = self.teacher.forward(batch);
        let student = self.student.forward(batch);
        (self.objective.evaluate(&student, &teacher, batch, step, temperature), temperature)
    }

    fn output(&self, evaluated: Evaluated, temperature: f64) -> DistillOutput {
        let mut scalars: Vec<(Arc<str>, f64)> = vec![("temperature".into(), temperature)];
        scalars.extend(evaluated.terms.iter().map(|term| (format!("weight:{}", term.name).into(), term.weight)));
        scalars.extend(self.run.grad_norm().map(|norm| ("grad_norm".into(), norm)));
        let classification = evaluated.classification.map(|rows| crate::Classification {
            student_logits: rows.student_logits.without_autodiff(),
            teacher_logits: rows.teacher_logits.map(Tensor::without_autodiff),
            targets: rows.targets,
            labelled: rows.labelled,
        });
        let total = evaluated.total.detach();
        let pending = Pending { total, terms: evaluated.terms, classification, scalars };
        DistillOutput { state: OutputState::Pending(Box::new(pending)) }
    }

    /// The first term whose value counts and is not finite, in one read from the device.
    fn first_fault(&self, evaluated: &Evaluated) -> Option<(Arc<str>, f64)> {
        let mut values: Vec<Tensor<1>> = evaluated.terms.iter().map(|term| term.value.clone()).collect();
        values.push(evaluated.total.clone().detach());
        let values: Vec<f64> = Tensor::cat(values, 0).into_data().iter::<f32>().map(f64::from).collect();
        let terms = evaluated.terms.iter().filter(|term| term.weight != 0.0).map(|term| term.name.clone());
        let counted = evaluated.terms.iter().zip(&values).filter(|(term, _)| term.weight != 0.0);
        let named = terms.zip(counted.map(|(_, value)| *value));
        let total = values.last().map(|value| (Arc::from("total"), *value));
        named.chain(total).find(|(_, value)| !value.is_finite())
    }

    fn after_optimizer(self, step: usize) -> Self {
        let teacher = self.teacher.after_step(&self.student, step);
        self.run.advance();
        Self { teacher, ..self }
    }
}

impl<S, T, B, P> TrainStep for Distiller<S, T, B, P>
where
    S: Student<B>,
    T: Teacher<B>,
    B: Send + 'static,
    P: Module,
{
    type Input = B;
    type Output = DistillOutput;

    fn step(&self, batch: B) -> TrainOutput<DistillOutput> {
        let micro_batch = self.run.start_micro_batch() as u64;
        if let Some(device) = self.student.devices().first() {
            // Dropout is a pure function of the step, so that a resumed run draws the same masks.
            device.seed(mix_seed(&[self.run.seed, self.run.step() as u64, micro_batch]));
        }
        let before = (self.run.non_finite == NonFinite::Skip).then(|| buffers(&self.valid()));
        let (evaluated, temperature) = self.evaluate(&batch);
        if let Some((term, value)) = self.first_fault(&evaluated) {
            self.run.not_finite(&term, value);
            self.run.drop_micro_batch();
            if let Some(before) = before {
                restore_buffers(self, before);
            }
            return TrainOutput { grads: GradientsParams::new(), item: DistillOutput::skipped() };
        }
        if let (Some(gap), Some(rows)) = (self.objective.gap_temperature(), &evaluated.classification)
            && let Some(teacher_logits) = &rows.teacher_logits
        {
            let student_logits = rows.student_logits.clone().without_autodiff();
            let mean = kl_to_teacher(student_logits, teacher_logits.clone().without_autodiff(), None);
            gap.observe(&mut self.run.gap(), mean.value().unwrap_or(f64::NAN));
        }
        let grads = evaluated.total.backward();
        TrainOutput::new(self, grads, self.output(evaluated, temperature))
    }

    fn optimize(self, optimizer: &mut ModuleOptimizer, rate: ModuleLearningRate, grads: GradientsParams) -> Self {
        let micro_batches = self.run.take_micro_batches();
        let step = self.run.step();
        if self.run.fault().is_some() {
            return self;
        }
        if grads.is_empty() {
            self.run.advance();
            return self;
        }
        let mean = 1.0 / micro_batches.max(1) as f64;
        let norm = gradients::global_norm(&self, &grads) * mean;
        if !norm.is_finite() {
            self.run.not_finite("gradient", norm);
            self.run.advance();
            return self;
        }
        *self.run.grad_norm() = Some(norm);
        let clip = self.run.max_grad_norm.map_or(1.0, |max| (max / norm.max(f64::MIN_POSITIVE)).min(1.0));
        let grads = gradients::scale(&self, grads, mean * clip);
        optimizer.step(rate, self, grads).after_optimizer(step)
    }

    /// Several devices that each keep a part of the optimiser: Burn's own step, without clipping by global norm,
    /// which no device sees.
    fn optimize_multi(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.run.take_micro_batches();
        let step = self.run.step();
        if self.run.fault().is_some() {
            return self;
        }
        optimizer.step_multi(rate, self, grads).after_optimizer(step)
    }
}

impl<S, T, B, P> InferenceStep for Distiller<S, T, B, P>
where
    S: Student<B>,
    T: Teacher<B>,
    B: Send + 'static,
    P: Module,
{
    type Input = B;
    type Output = DistillOutput;

    fn step(&self, batch: B) -> DistillOutput {
        let (evaluated, temperature) = self.evaluate(&batch);
        self.output(evaluated, temperature)
    }
}

type Buffers = HashMap<String, Box<dyn Any>>;

/// The tensors that a forward pass may change: running statistics, which require no gradient.
fn buffers<M: Module>(module: &M) -> Buffers {
    #[derive(Default)]
    struct Collect {
        path: Vec<String>,
        buffers: Buffers,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.buffers.insert(self.path.join("."), Box::new(param.val()));
        }
    }
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.buffers
}

/// Puts running statistics back. They are shared by all clones of a module, so it is done through one.
fn restore_buffers<M: Module>(module: &M, before: Buffers) {
    struct Restore {
        path: Vec<String>,
        before: Buffers,
    }
    impl ModuleMapper for Restore {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.is_require_grad() {
                return param;
            }
            let before =
                self.before.remove(&self.path.join(".")).and_then(|tensor| tensor.downcast::<Tensor<D>>().ok());
            match before {
                Some(before) => {
                    param.map(|tensor| if tensor.is_autodiff() { Tensor::from_inner(*before) } else { *before })
                }
                None => param,
            }
        }
    }
    drop(module.valid()); // takes pending updates in, so that none comes after what is put back
    drop(module.clone().map(&mut Restore { path: Vec::new(), before }));
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> Clone for Distiller<S, T, B, P> {
    fn clone(&self) -> Self {
        Self {
            student: self.student.clone(),
            objective: self.objective.clone(),
            teacher: self.teacher.clone(),
            run: self.run.clone(),
        }
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> fmt::Debug for Distiller<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distiller")
            .field("student", &self.student)
            .field("objective", &self.objective)
            .field("teacher", &self.teacher)
            .finish()
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> fmt::Display for Distiller<S, T, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<_> = self.objective.term_names().collect();
        write!(f, "Distiller of {} parameters on {}", self.student.num_params(), terms.join(" + "))
    }
}

impl<S: Student<B>, T: Teacher<B>, B, P: Module> Module for Distiller<S, T, B, P> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.objective.collect_devices(self.student.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            student: self.student.fork(device),
            objective: self.objective.fork(device),
            teacher: self.teacher.fork(device),
            run: self.run,
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            student: self.student.to_device(device),
            objective: self.objective.to_device(device),
            teacher: self.teacher.to_device(device),
            run: self.run,
        }
    }

    fn materialize(self) -> Self {
        Self { student: self.student.materialize(), objective: self.objective.materialize(), ..self }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        fn field<V: ModuleVisitor>(visitor: &mut V, name: &str, module: &impl Module) {
            visitor.enter_module(name, "Struct:Distiller");
            module.visit(visitor);
            visitor.exit_module(name, "Struct:Distiller");
        }
        field(visitor, "student", &self.student);
        field(visitor, "objective", &self.objective);
        field(visitor, "teacher", &self.teacher);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        fn field<Mapper: ModuleMapper, M: Module>(mapper: &mut Mapper, name: &str, module: M) -> M {
            mapper.enter_module(name, "Struct:Distiller");
            let module = module.map(mapper);
            mapper.exit_module(name, "Struct:Distiller");
            module
        }
        Self {
            student: field(mapper, "student", self.student),
            objective: field(mapper, "objective", self.objective),
            teacher: field(mapper, "teacher", self.teacher),
            run: self.run,
        }
    }

    fn valid(&self) -> Self {
        Self {
            student: self.student.valid(),
            objective: self.objective.valid(),
            teacher: self.teacher.valid(),
            run: self.run.clone(),
        }
    }

    fn train(self) -> Self {
        Self {
            student: self.student.train(),
            objective: self.objective.train(),
            teacher: self.teacher.train(),
            run: self.run,
        }
    }
}
