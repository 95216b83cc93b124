use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{Device, FloatDType, Gradients, Tensor};
use burn::train::{InferenceStep, Interrupter, TrainOutput, TrainStep};
use burn_distill_eval::kl_to_teacher;
use burn_distill_models::{Student, Teacher, mix_seed};

use crate::TrainError;
use crate::balance::TaskObservation;
use crate::buffers::Buffers;
use crate::gradients;
use crate::objective::{Classification, Evaluated, NoParts, Objective, Outputs, TermValue};
use crate::output::{DistillOutput, OutputState, Pending, PendingTask};
use crate::state::{Fault, NonFinite, RunState};

/// A student on its way: the module that burn-train trains.
///
/// One step, as the data sees it: the teacher looks at the batch outside the gradient graph, the student looks at the
/// same batch, the objective compares them, the total goes backward, the optimiser steps. The teacher is not trained;
/// whether it is in a checkpoint is its own affair ([`Frozen`](burn_distill_models::Frozen) is not).
///
/// [`Distillation`](crate::Distillation) builds and runs it; take it as it is for a training loop of your own: it
/// implements burn-train's [`TrainStep`] and [`InferenceStep`]. There it should be able to stop the loop:
/// [`with_interrupter`](Self::with_interrupter), and [`check`](Self::check) afterwards.
///
/// Before every batch it seeds the student's device, for dropout. On backends with one generator per process (`flex`)
/// whatever else draws random tensors meanwhile changes the masks.
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
    pub fn new(student: S, teacher: T, objective: Objective<S::Output, T::Output, B, P>) -> Result<Self, TrainError> {
        objective.validate()?;
        let device = student.devices().into_iter().next().unwrap_or_default();
        let objective = objective.with_task_parameters(&device);
        Ok(Self { student, objective, teacher, run: Arc::default() })
    }

    /// Stops a training loop of your own at the first value that is not finite: give it the interrupter that
    /// burn-train's loop looks at. Comes before training.
    pub fn with_interrupter(self, interrupter: &Interrupter) -> Self {
        self.with_run(Arc::new(RunState::stopping(interrupter)))
    }

    /// Whether every value so far was finite. After one that was not, the weights do not move any more.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] with the first value that was not.
    pub fn check(&self) -> Result<(), TrainError> {
        self.run.fault().map_or(Ok(()), |fault| Err(TrainError::of_fault(fault, None)))
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

    /// The student, the learned parts of the objective, and the teacher.
    pub(crate) fn into_models(self) -> (S, P, T) {
        (self.student, self.objective.into_parts(), self.teacher)
    }

    /// Of a batch, and the teacher's answer to it if it was asked ahead.
    fn evaluate(&self, batch: &B, answer: Option<T::Output>) -> (Evaluated, f64) {
        let step = self.run.step();
        let temperature = self.objective.temperature_at(step, &self.run.gap());
        let teacher = answer.unwrap_or_else(|| self.teacher.forward(batch));
        let student = self.student.forward(batch);
        let outputs = Outputs { student: &student, teacher: &teacher, batch, temperature };
        let state = self.run.grad_norm_state().clone();
        (self.objective.evaluate(outputs, step, &state), temperature)
    }

    fn output(&self, evaluated: Evaluated, temperature: f64) -> DistillOutput {
        let mut scalars: Vec<(Arc<str>, f64)> = vec![("temperature".into(), temperature)];
        let terms = evaluated.terms.iter().chain(evaluated.tasks.iter().flat_map(|task| &task.terms));
        scalars.extend(terms.map(|term| (format!("weight:{}", term.name).into(), term.weight)));
        let tasks = evaluated.tasks.into_iter().map(|task| PendingTask {
            name: task.name,
            loss: task.loss,
            weight: task.weight,
            terms: task.terms,
            present: task.present,
            classification: task.classification.map(without_autodiff),
        });
        let pending = Pending {
            total: evaluated.total.detach(),
            terms: evaluated.terms,
            tasks: tasks.collect(),
            classification: evaluated.classification.map(without_autodiff),
            scalars,
        };
        DistillOutput { state: OutputState::Pending(Box::new(pending)) }
    }

    /// The first term whose value counts and is not finite, or the total, in one read from the device.
    fn first_fault(&self, evaluated: &Evaluated) -> Option<(Arc<str>, f64)> {
        let mut counted: Vec<_> = evaluated.counted().cloned().collect();
        let total = evaluated.total.clone().detach();
        counted.push(TermValue { name: "total".into(), weight: 1.0, value: total });
        let values = counted.iter().map(|term| term.value.clone().cast(FloatDType::F32)).collect();
        let values = Tensor::cat(values, 0).into_data();
        let named = counted.into_iter().map(|term| term.name).zip(values.iter::<f32>().map(f64::from));
        named.into_iter().find(|(_, value)| !value.is_finite())
    }

    /// The gradients of the total, none while every weight is 0, and under GradNorm how each task pulls.
    fn gradients(&self, evaluated: &Evaluated) -> (GradientsParams, Vec<Option<TaskObservation>>) {
        let (mut grads, mut pulls) = (GradientsParams::new(), Vec::new());
        if evaluated.total.is_tracked() {
            let gradients = evaluated.total.backward();
            if self.objective.grad_norm().is_some() {
                pulls = self.pulls(evaluated, &gradients);
            }
            grads = GradientsParams::from_grads(gradients, self);
        }
        if grads.is_empty() && evaluated.counted().next().is_some() {
            let allowed = "one through which a gradient reaches the student or a learned part";
            self.run.stop(Fault::Setting { field: "term", allowed, given: "none that is".to_string() });
        }
        (grads, pulls)
    }

    /// How each task pulls at the shared features, in one read from the device; `None` for a task without a row.
    fn pulls(&self, evaluated: &Evaluated, gradients: &Gradients) -> Vec<Option<TaskObservation>> {
        let mut values = Vec::with_capacity(3 * evaluated.tasks.len());
        for task in &evaluated.tasks {
            let device = task.loss.device().inner();
            let squared_norm = task.pull.as_ref().and_then(|pull| pull(gradients));
            if task.pull.is_some() && squared_norm.is_none() {
                let allowed = "the one through which the task's head reads the shared features";
                let given = format!("one of `{}` that no gradient reaches", task.name);
                self.run.stop(Fault::Setting { field: "branch", allowed, given });
            }
            let number = |value: f64| Tensor::<1>::full([1], value, &device);
            let present = match &task.present {
                Some(present) if task.counts => present.clone().without_autodiff(),
                _ => number(f64::from(u8::from(task.counts))),
            };
            let squared_norm = squared_norm.unwrap_or_else(|| number(0.0));
            values.extend([squared_norm, task.loss.clone().without_autodiff(), present]);
        }
        let values = values.into_iter().map(|value| value.cast(FloatDType::F32)).collect();
        let values: Vec<f64> = Tensor::cat(values, 0).into_data().iter::<f32>().map(f64::from).collect();
        let observation = |task: &[f64]| TaskObservation { squared_norm: task[0], loss: task[1] };
        values.chunks_exact(3).map(|task| (task[2] > 0.0).then(|| observation(task))).collect()
    }

    fn observe_gap(&self, evaluated: &Evaluated) {
        if let (Some(gap), Some(rows)) = (self.objective.gap_temperature(), &evaluated.classification)
            && let Some(teacher_logits) = &rows.teacher_logits
        {
            let student_logits = rows.student_logits.clone().without_autodiff();
            let mean = kl_to_teacher(student_logits, teacher_logits.clone().without_autodiff(), None);
            gap.observe(&mut self.run.gap(), mean.value().unwrap_or(f64::NAN));
        }
    }

    /// What the summed gradients are multiplied with before the optimiser sees them: to their mean over batches, and
    /// down to the largest norm allowed. `None` when there is to be no step.
    fn admit<'a>(&self, grads: impl IntoIterator<Item = &'a GradientsParams>) -> Option<f64> {
        let micro_batches = self.run.take_micro_batches();
        if self.run.fault().is_some() || micro_batches == 0 {
            self.run.grad_norm_state().forget();
            return None; // stopped, or every batch was skipped
        }
        let mean = 1.0 / micro_batches as f64;
        let norm = gradients::global_norm(self, grads) * mean;
        if !norm.is_finite() {
            self.run.not_finite("gradient", norm);
            self.run.grad_norm_state().forget();
            return None;
        }
        self.run.add_grad_norm(norm);
        let clip = self.run.max_grad_norm.map_or(1.0, |max| if norm > max { max / norm } else { 1.0 });
        Some(mean * clip)
    }

    pub(crate) fn train_step(&self, batch: B, answer: Option<T::Output>) -> TrainOutput<DistillOutput> {
        let micro_batch = self.run.start_micro_batch() as u64;
        if let Some(device) = self.student.devices().first() {
            // Dropout is a pure function of the step, so that a resumed run draws the same masks.
            device.seed(mix_seed(&[self.run.seed, self.run.step() as u64, micro_batch]));
        }
        let skips = self.run.non_finite == NonFinite::Skip;
        let before = skips.then(|| Buffers::of(self));
        let (evaluated, temperature) = self.evaluate(&batch, answer);
        let mut fault = self.first_fault(&evaluated);
        let (mut grads, mut pulls) = (GradientsParams::new(), Vec::new());
        if fault.is_none() {
            (grads, pulls) = self.gradients(&evaluated);
            // Here, and not only before the optimiser's step, as the batch-norm statistics of this batch must go too.
            let norm = if skips { gradients::global_norm(self, [&grads]) } else { 0.0 };
            fault = (!norm.is_finite()).then(|| ("gradient".into(), norm));
        }
        if let Some((term, value)) = fault {
            self.run.not_finite(&term, value);
            self.run.drop_micro_batch();
            if let Some(before) = before {
                before.restore(self);
            }
            return TrainOutput { grads: GradientsParams::new(), item: DistillOutput::skipped() };
        }
        self.observe_gap(&evaluated);
        if !pulls.is_empty() {
            self.run.grad_norm_state().observe(&pulls);
        }
        TrainOutput { grads, item: self.output(evaluated, temperature) }
    }

    pub(crate) fn inference_step(&self, batch: B, answer: Option<T::Output>) -> DistillOutput {
        let (evaluated, temperature) = self.evaluate(&batch, answer);
        if self.run.non_finite == NonFinite::Stop
            && let Some((term, value)) = self.first_fault(&evaluated)
        {
            self.run.not_finite(&term, value);
        }
        self.output(evaluated, temperature)
    }

    fn after_optimizer(self) -> Self {
        if let Some((alpha, learning_rate)) = self.objective.grad_norm() {
            self.run.grad_norm_state().step(alpha, learning_rate);
        }
        let teacher = self.teacher.after_step(&self.student, self.run.step());
        self.run.advance();
        Self { teacher, ..self }
    }
}

fn without_autodiff(rows: Classification) -> Classification {
    Classification {
        student_logits: rows.student_logits.without_autodiff(),
        teacher_logits: rows.teacher_logits.map(Tensor::without_autodiff),
        targets: rows.targets,
        labelled: rows.labelled,
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
        self.train_step(batch, None)
    }

    fn optimize(self, optimizer: &mut ModuleOptimizer, rate: ModuleLearningRate, grads: GradientsParams) -> Self {
        let Some(factor) = self.admit([&grads]) else {
            return self;
        };
        let grads = gradients::scale(&self, grads, factor);
        optimizer.step(rate, self, grads).after_optimizer()
    }

    fn optimize_multi(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        mut grads: MultiGradientsParams,
    ) -> Self {
        let Some(factor) = self.admit(grads.grads.iter().map(|(grads, _)| grads)) else {
            return self;
        };
        for (part, _) in &mut grads.grads {
            *part = gradients::scale(&self, std::mem::take(part), factor);
        }
        optimizer.step_multi(rate, self, grads).after_optimizer()
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
        self.inference_step(batch, None)
    }
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
