//! The report at the end of a run: curves, the best epoch, and teacher against student.

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn_distill_eval::{Comparison, LatencyConfig, ModelProfile, compare_latency, peak_memory};
use burn_distill_models::{Student, Teacher};

use crate::report::{MetricsRow, Report, Table};
use crate::{Distiller, NonFinite};

/// What [`Distillation::run`](crate::Distillation::run) knows when it writes its report.
pub(crate) struct Summary<'a> {
    pub(crate) title: &'a str,
    pub(crate) config: &'a serde_json::Value,
    pub(crate) metrics: &'a [MetricsRow],
    pub(crate) best_epoch: usize,
    pub(crate) skipped_batches: usize,
    pub(crate) multiply_adds: Option<(u64, u64)>,
}

impl Summary<'_> {
    pub(crate) fn report<S, T, B, P>(&self, distiller: &Distiller<S, T, B, P>, valid: &dyn DataLoader<B>) -> Report
    where
        S: Student<B>,
        T: Teacher<B>,
        P: Module,
    {
        let mut report = Report::new(self.title)
            .config(self.config.clone())
            .metrics(self.metrics.to_vec())
            .table(self.best_epoch_table());
        if let Some(comparison) = self.comparison(distiller, valid) {
            report = report.comparison(comparison);
        }
        if self.skipped_batches > 0 {
            let batches = self.skipped_batches;
            report =
                report.note(format!("{batches} batches were skipped: a value was not finite ({:?}).", NonFinite::Skip));
        }
        report
    }

    fn best(&self, split: &str) -> Option<&MetricsRow> {
        self.metrics.iter().find(|row| row.epoch == self.best_epoch && row.split == split)
    }

    fn best_epoch_table(&self) -> Table {
        let rows = self.best("valid").into_iter().flat_map(|row| &row.metrics);
        let train = self.best("train");
        let cell = |value: Option<&f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let rows = rows.map(|(name, value)| {
            vec![name.clone(), cell(train.and_then(|row| row.metrics.get(name))), cell(Some(value))]
        });
        Table {
            caption: format!("Epoch {}, the best", self.best_epoch),
            header: ["metric", "training", "validation"].map(String::from).to_vec(),
            rows: rows.collect(),
        }
    }

    /// Both models on the same first validation batch, in turns, in this process.
    fn comparison<S, T, B, P>(&self, distiller: &Distiller<S, T, B, P>, valid: &dyn DataLoader<B>) -> Option<Comparison>
    where
        S: Student<B>,
        T: Teacher<B>,
        P: Module,
    {
        let mut student = ModelProfile::of("student", distiller.student());
        let mut teacher = ModelProfile {
            name: "teacher".to_string(),
            parameters: distiller.teacher().parameter_count(),
            weight_bytes: distiller.teacher().weight_bytes(),
            ..student.clone()
        };
        if teacher.parameters == 0 {
            return None; // nobody, or a cache
        }
        let metric = |name: &str| self.best("valid").and_then(|row| row.metrics.get(name)).copied();
        student.accuracy = metric("accuracy");
        teacher.accuracy = metric("teacher_accuracy");
        student.multiply_adds = self.multiply_adds.map(|(student, _)| student);
        teacher.multiply_adds = self.multiply_adds.map(|(_, teacher)| teacher);

        let device = distiller.student().devices().into_iter().next().unwrap_or_default();
        let valid = valid.to_device(&device);
        let mut batches = valid.iter();
        let batch = batches.next()?.ok()?;
        let config = LatencyConfig::new(batches.progress().items_processed).with_runs(3).with_warm_up(1);
        // Without the wait a device may still be working when the clock stops.
        let run_student = || {
            let _output = distiller.student().forward(&batch);
            let _ = device.sync();
        };
        let run_teacher = || {
            let _output = distiller.teacher().forward(&batch);
            let _ = device.sync();
        };
        // A forward pass that fits into what training has freed adds nothing that could be seen: no number then.
        let growth = |run: &dyn Fn()| peak_memory(run).1.map(|memory| memory.growth_bytes()).filter(|bytes| *bytes > 0);
        student.peak_memory_bytes = growth(&run_student);
        teacher.peak_memory_bytes = growth(&run_teacher);
        if let Ok((of_student, of_teacher)) = compare_latency(&config, run_student, run_teacher) {
            student.latency = Some(of_student);
            teacher.latency = Some(of_teacher);
        }
        Some(Comparison { student, teacher })
    }
}
