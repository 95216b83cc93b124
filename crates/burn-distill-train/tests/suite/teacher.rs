//! The teacher stays as it is, and out of the checkpoint.

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Tolerance};
use burn_distill_losses::KdLossConfig;
use burn_distill_models::{Frozen, MeanTeacher, Student, Teacher, fingerprint as hash};
use burn_distill_train::{Distillation, Monitor, Progress, Resume};

use crate::fixture::*;

fn run<T>(teacher: T, student: Mlp, folder: &std::path::Path) -> burn_distill_train::Trained<Mlp>
where
    T: Teacher<Batch, Output = Out> + 'static,
{
    Distillation::new(student, teacher, loader(samples(12, 5), 4), loader(samples(7, 99), 4))
        .folder(folder)
        .progress(Progress::Silent)
        .term("hard", 0.5, hard)
        .term("kd", 0.5, soft)
        .learning_rate(0.1)
        .epochs(2)
        .run()
        .unwrap()
}

/// How often each of the paths' first names occurs in the last checkpoint's model.
fn names(folder: &std::path::Path) -> Vec<String> {
    let bytes = std::fs::read(folder.join("checkpoint/epoch-0002-model.bpk")).unwrap();
    let count = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes.clone())).unwrap().len();
    let text = String::from_utf8_lossy(&bytes);
    let starts = ["student.", "objective.", "teacher."].iter().filter(|start| text.contains(**start));
    starts.map(|start| start.to_string()).chain([count.to_string()]).collect()
}

#[test]
fn a_frozen_teacher_is_neither_moved_nor_saved() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = Mlp::new(9, true, 0.5, 1000, &device());
    let frozen = Frozen::new(teacher.clone());
    let batch = loader(samples(12, 5), 12).to_device(&device().inner()).iter().next().unwrap().unwrap();
    let before = (hash(&teacher), hash(frozen.inner()), frozen.forward(&batch).logits.into_data());
    run(frozen.clone(), Mlp::normed(1), folder.path());
    assert_eq!((hash(&teacher), hash(frozen.inner())), (before.0, before.1));
    frozen.forward(&batch).logits.into_data().assert_approx_eq::<f32>(&before.2, Tolerance::absolute(0.0));
    // Two layers of two tensors, and batch norm with four.
    assert_eq!(names(folder.path()), ["student.", "8"]);
}

#[test]
fn an_average_is_saved_and_moves_beside_the_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let student = Mlp::normed(1);
    run(MeanTeacher::new(&student, 0.9).unwrap(), student, folder.path());
    assert_eq!(names(folder.path()), ["student.", "teacher.", "16"]);
    let optimizer = std::fs::read(folder.path().join("checkpoint/epoch-0002-optimizer.bpk")).unwrap();
    assert!(!String::from_utf8_lossy(&optimizer).contains("teacher."));
}

#[test]
fn the_average_of_the_best_epoch_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let student = Mlp::normed(1);
    let valid = loader(samples(7, 99), 7);
    let run = || {
        Distillation::new(
            student.clone(),
            MeanTeacher::new(&student, 0.9).unwrap(),
            loader(samples(12, 5), 4),
            valid.clone(),
        )
        .folder(folder.path())
        .progress(Progress::Silent)
        .keep_checkpoints(4)
        .term("hard", 1.0, hard)
        .term("kd", 0.0, soft)
        .learning_rate(0.1)
    };
    let batch = valid.to_device(&device().inner()).iter().next().unwrap().unwrap();
    let kd = |student: &Mlp, teacher: &MeanTeacher<Mlp>| {
        let (student, teacher) = (student.valid().forward(&batch), teacher.forward(&batch));
        KdLossConfig::new().with_temperature(1.0).init().unwrap().forward(student.logits, teacher.logits, None)
    };
    // Two epochs that differ, so that one of them is not the last.
    let mut seen = Vec::new();
    for lowest in [true, false] {
        let monitor = if lowest { Monitor::lowest("kd") } else { Monitor::highest("kd") };
        let (trained, teacher) = run().resume(Resume::Never).monitor(monitor).epochs(4).run_with_teacher().unwrap();
        let given = kd(&trained.student, &teacher).into_scalar::<f64>();
        assert!((given - trained.best("kd").unwrap()).abs() < 1e-6, "{given} is not of epoch {}", trained.best_epoch);
        seen.push((trained.best_epoch, hash(teacher.average())));
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn the_students_other_clones_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let student = Mlp::normed(1);
    let before = hash(&student);
    let trained = run(Frozen::new(Mlp::normed(2)), student.clone(), folder.path());
    assert_eq!(hash(&student), before, "running statistics are shared by clones of a module");
    assert_ne!(hash(&trained.student), before);
    // Another run of the same clone starts from the same numbers.
    let again = tempfile::tempdir().unwrap();
    run(Frozen::new(Mlp::normed(2)), student, again.path());
    assert_eq!(student_of(folder.path()), student_of(again.path()));
}

#[test]
fn the_student_that_comes_back_is_the_one_exported() {
    let folder = tempfile::tempdir().unwrap();
    let trained = run(Frozen::new(Mlp::normed(2)), Mlp::normed(1), folder.path());
    let batch = loader(samples(5, 8), 5).to_device(&device().inner()).iter().next().unwrap().unwrap();
    let logits = trained.student.forward(&batch).logits;
    assert!(!logits.is_require_grad());
    let mut student = Mlp::normed(77);
    let mut store = burn::store::SafetensorsStore::from_file(folder.path().join("student.safetensors"));
    burn::store::ModuleSnapshot::load_from(&mut student, &mut store).unwrap();
    let loaded = student.valid().forward(&batch).logits;
    loaded.into_data().assert_approx_eq::<f32>(&logits.into_data(), Tolerance::absolute(0.0));
}

#[test]
fn a_student_whose_device_has_no_gradients_yet_is_trained_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let device = crate::fixture::device().inner();
    let trained =
        run(Frozen::new(Mlp::new(9, false, 0.0, 2, &device)), Mlp::new(5, true, 0.0, 1, &device), folder.path());
    assert_ne!(hash(&trained.student), hash(&Mlp::new(5, true, 0.0, 1, &device)));
    let other = tempfile::tempdir().unwrap();
    run(Frozen::new(Mlp::new(9, false, 0.0, 2, &crate::fixture::device())), Mlp::normed(1), other.path());
    assert_eq!(student_of(folder.path()), student_of(other.path()));
}
