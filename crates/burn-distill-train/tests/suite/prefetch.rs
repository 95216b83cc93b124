//! A teacher that is asked ahead gives the run that asks it in turn. With dropout, which needs a process of its own:
//! `resume.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::tensor::Device;
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use burn_distill_models::{Frozen, MeanTeacher, OnDevice, SeededLoaderConfig, Teacher};
use burn_distill_train::{Distillation, NonFinite, Progress, TrainError};

use crate::fixture::*;

impl OnDevice for Batch {
    fn on_device(&self, device: &Device) -> Self {
        Self {
            inputs: self.inputs.on_device(device),
            targets: self.targets.on_device(device),
            labelled: self.labelled.on_device(device),
            indices: self.indices.clone(),
        }
    }
}

impl OnDevice for Out {
    fn on_device(&self, device: &Device) -> Self {
        Self { logits: self.logits.on_device(device), hidden: self.hidden.on_device(device) }
    }
}

type Run<T> = Distillation<Mlp, T, Batch>;

fn with<T>(teacher: T, folder: &Path) -> Run<T>
where
    T: Teacher<Batch, Output = Out> + 'static,
{
    let config = SeededLoaderConfig::new(6).with_shuffle(true).with_seed(3);
    let student = Mlp::normed(1);
    Distillation::new(student, teacher, loader_with(samples(40, 5), 0.1, config), loader(samples(10, 6), 4))
        .term("hard", 0.5, hard)
        .term("kd", 0.5, soft)
        .classification(rows)
        .learning_rate(0.1)
        .accumulate(2)
        .folder(folder)
        .progress(Progress::Silent)
}

fn frozen() -> Frozen<Mlp> {
    Frozen::new(Mlp::new(12, true, 0.0, 2, &device()))
}

/// A teacher that counts how often it is asked, where, and panics when it has had enough.
#[derive(Module, Debug)]
struct Watched {
    inner: Frozen<Mlp>,
    #[module(skip)]
    asked: Arc<AtomicUsize>,
    #[module(skip)]
    enough: usize,
    #[module(skip)]
    on_own_thread: Arc<AtomicUsize>,
}

impl Watched {
    fn new(enough: usize) -> Self {
        Self { inner: frozen(), asked: Arc::default(), enough, on_own_thread: Arc::default() }
    }
}

impl Teacher<Batch> for Watched {
    type Output = Out;

    fn forward(&self, batch: &Batch) -> Out {
        let own = std::thread::current().name() == Some("teacher");
        self.on_own_thread.fetch_add(usize::from(own), Ordering::SeqCst);
        assert!(self.asked.fetch_add(1, Ordering::SeqCst) < self.enough, "the teacher has had enough");
        Teacher::forward(&self.inner, batch)
    }

    fn fingerprint(&self) -> String {
        Teacher::<Batch>::fingerprint(&self.inner)
    }

    fn parameter_count(&self) -> u64 {
        0 // no comparison of speeds at the end, which would ask once more
    }
}

#[test]
fn the_numbers_are_those_of_a_teacher_that_is_asked_in_turn() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let plain = with(frozen(), folders[0].path()).epochs(3).run().unwrap();
    let teacher = Watched::new(usize::MAX);
    let (asked, own) = (teacher.asked.clone(), teacher.on_own_thread.clone());
    let ahead = with(teacher, folders[1].path()).prefetch_teacher().epochs(3).run().unwrap();
    // 7 batches of training and 3 of validation in each epoch, every one asked about on the teacher's thread.
    assert_eq!((asked.load(Ordering::SeqCst), own.load(Ordering::SeqCst)), (30, 30));
    with(frozen(), folders[2].path()).prefetch_teacher_on(Device::flex()).epochs(3).run().unwrap();
    assert_eq!(plain.steps, ahead.steps);
    for folder in &folders[1..] {
        assert_eq!(timeless(folder.path()), timeless(folders[0].path()));
        assert_eq!(student_of(folder.path()), student_of(folders[0].path()));
    }
}

#[test]
fn a_run_goes_on_with_it_or_without_it() {
    let (whole, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with(frozen(), whole.path()).epochs(4).run().unwrap();
    for (epochs, ahead) in [(1, true), (2, true), (3, false), (4, true)] {
        let run = with(frozen(), resumed.path()).epochs(epochs);
        if ahead { run.prefetch_teacher() } else { run }.run().unwrap();
    }
    assert_eq!(timeless(resumed.path()), timeless(whole.path()));
    assert_eq!(student_of(resumed.path()), student_of(whole.path()));
}

#[test]
fn several_devices_have_a_thread_each() {
    let run = |ahead: bool, folder: &Path| {
        let devices = vec![Device::flex(), Device::flex()];
        let run = from_teacher(Mlp::plain(1), loader(samples(8, 5), 2), folder)
            .term("kd", 1.0, soft)
            .learning_rate(0.2)
            .epochs(2)
            .devices(ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice));
        if ahead { run.prefetch_teacher() } else { run }.run().unwrap();
        numbers_of(folder)
    };
    let folders: [_; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    assert_close(&run(true, folders[0].path()), &run(false, folders[1].path()), 1e-6);
}

#[test]
fn a_teacher_that_panics_ends_the_run_with_an_error() {
    // In the first batch, within an epoch of training, and in validation.
    for enough in [0, 3, 8] {
        let folder = tempfile::tempdir().unwrap();
        let run = with(Watched::new(enough), folder.path()).prefetch_teacher().epochs(2);
        let error = run.run().unwrap_err();
        assert!(matches!(error, TrainError::Training { .. }), "{error:?}");
        assert!(error.to_string().contains("panicked: the teacher has had enough"), "{error}");
    }
}

#[test]
fn a_run_that_stops_early_leaves_no_thread_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let run = with(frozen(), folder.path()).prefetch_teacher().non_finite(NonFinite::Stop).epochs(2);
    let run = run.term("bad", 1.0, |view| view.student.logits.clone().sum() * f32::NAN);
    assert!(matches!(run.run().unwrap_err(), TrainError::NonFinite { .. }));
}

#[test]
fn a_teacher_that_learns_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mean = MeanTeacher::new(&Mlp::normed(1), 0.9).unwrap();
    let error = with(mean, folder.path()).prefetch_teacher().run().unwrap_err().to_string();
    assert_eq!(
        error,
        "`prefetch_teacher` must be used with a teacher that stays as it is, got a mean teacher, decay 0.9"
    );
}
