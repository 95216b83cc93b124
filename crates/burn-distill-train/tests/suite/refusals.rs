//! A checkpoint that does not fit is refused, and the message says why.

use std::fs;
use std::path::{Path, PathBuf};

use burn_distill_models::Frozen;
use burn_distill_train::{
    CheckpointError, Distillation, OptimizerConfig, Progress, Resume, TrainError, WeightDecay, read_metrics,
};
use serde_json::json;

use crate::fixture::*;

fn run(folder: &Path) -> FromTeacher {
    from_teacher(Mlp::plain(1), loader(samples(8, 5), 4), folder)
        .term("hard", 1.0, hard)
        .optimizer(OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(0.1)))
        .config(json!({ "data": { "name": "points" } }))
}

fn trained(epochs: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path()).epochs(epochs).run().unwrap();
    folder
}

fn part(folder: &Path, name: &str) -> PathBuf {
    folder.join("checkpoint").join(name)
}

#[test]
fn parts_that_are_cut_altered_or_missing() {
    let folder = trained(1);
    for name in ["epoch-0001-model.bpk", "epoch-0001-optimizer.bpk", "epoch-0001-schedules.bpk"] {
        let path = part(folder.path(), name);
        let bytes = fs::read(&path).unwrap();
        let refused = |bytes: Option<&[u8]>| {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            run(folder.path()).epochs(2).run().unwrap_err().to_string()
        };
        let error = refused(Some(&bytes[..bytes.len() / 2]));
        assert!(error.contains(name) && error.contains("`size` is"), "{error}");
        for place in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            let error = refused(Some(&altered));
            assert!(error.contains(name) && error.contains("`sha256` is"), "{error}");
        }
        assert!(refused(Some(&[])).contains("`size` is 0"));
        assert!(refused(None).contains(name));
        fs::write(&path, &bytes).unwrap();
    }
    run(folder.path()).epochs(2).run().unwrap();
}

#[test]
fn manifests_that_are_none() {
    let folder = trained(1);
    let path = part(folder.path(), "epoch-0001.json");
    for garbage in ["", "{", "[]", "null", "{\"format\": 1}", "\u{0}\u{1}"] {
        fs::write(&path, garbage).unwrap();
        let error = run(folder.path()).epochs(2).run().unwrap_err();
        assert!(matches!(&error, TrainError::Checkpoint(CheckpointError::Manifest { .. })), "{error}");
        assert!(error.to_string().contains("epoch-0001.json"), "{error}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(run(folder.path()).epochs(2).run().unwrap_err().to_string().contains("epoch-0001.json"));
}

#[test]
fn another_configuration_by_the_path_of_its_field() {
    let folder = trained(1);
    let refused = |run: FromTeacher| run.epochs(2).run().unwrap_err().to_string();
    let decay = |decay| OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(decay));
    let cases: [(&str, FromTeacher); 9] = [
        ("`optimizer.weight_decay.l2` is 0.1 in the checkpoint and 0.2", run(folder.path()).optimizer(decay(0.2))),
        ("`optimizer.rule.adam` is absent", run(folder.path()).optimizer(OptimizerConfig::adam())),
        ("`learning_rate", run(folder.path()).learning_rate(0.01)),
        ("`clip_grad_norm` is null in the checkpoint and 1.0", run(folder.path()).clip_grad_norm(1.0)),
        ("`accumulate` is 1 in the checkpoint and 2", run(folder.path()).accumulate(2)),
        ("`seed` is 0 in the checkpoint and 1", run(folder.path()).seed(1)),
        ("`objective.terms.kd` is absent", run(folder.path()).term("kd", 0.1, soft)),
        ("`objective.temperature", run(folder.path()).temperature(2.0)),
        (
            "`run.data.name` is \"points\" in the checkpoint and \"other\"",
            run(folder.path()).config(json!({ "data": { "name": "other" } })),
        ),
    ];
    for (expected, run) in cases {
        let error = refused(run);
        assert!(error.contains(expected) || expected.contains("rule") && error.contains("`optimizer.rule"), "{error}");
    }
    let other_data = from_teacher(Mlp::plain(1), loader(samples(12, 5), 4), folder.path()).term("hard", 1.0, hard);
    let error = refused(
        other_data
            .optimizer(OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(0.1)))
            .config(json!({ "data": { "name": "points" } })),
    );
    assert!(error.contains("`train_items` is 8 in the checkpoint and 12"), "{error}");
    // What is refused leaves everything as it was.
    run(folder.path()).epochs(2).run().unwrap();
}

#[test]
fn another_teacher_and_another_student() {
    let folder = trained(1);
    let of = |student: Mlp, teacher: Mlp| {
        Distillation::new(student, Frozen::new(teacher), loader(samples(8, 5), 4), loader(samples(7, 99), 4))
            .folder(folder.path())
            .progress(Progress::Silent)
            .term("hard", 1.0, hard)
            .optimizer(OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(0.1)))
            .config(json!({ "data": { "name": "points" } }))
            .epochs(2)
            .run()
            .unwrap_err()
    };
    let teacher = |seed| Mlp::new(9, false, 0.0, seed, &device());
    let error = of(Mlp::plain(1), teacher(1001));
    assert!(matches!(&error, TrainError::Checkpoint(CheckpointError::OtherTeacher { .. })), "{error}");
    let (old, new) =
        (fingerprint::<Batch, _>(&Frozen::new(teacher(1000))), fingerprint::<Batch, _>(&Frozen::new(teacher(1001))));
    assert!(error.to_string().contains(&format!("`teacher` is {old} in the checkpoint and {new}")), "{error}");
    let error = of(Mlp::new(6, false, 0.0, 1, &device()), teacher(1000));
    assert!(error.to_string().contains("`student_parameters` is 43 in the checkpoint and 51"), "{error}");
    // The same number of parameters in other shapes: 4 w + w + 3 w + 3 = 8 w + 3 with w = 5, and 10 w + 3 with
    // w = 4 and batch norm (4 of which, the running statistics, Burn counts).
    let error = of(Mlp::new(4, true, 0.0, 1, &device()), teacher(1000)).to_string();
    assert!(error.contains("`student_parameters`") || error.contains("`model` does not fit this run"), "{error}");
}

#[test]
fn a_student_of_other_shapes_but_as_many_parameters() {
    use burn::module::{Module, Param};
    use burn::tensor::Tensor;
    use burn_distill_models::{NoTeacher, Student};

    #[derive(Module, Debug)]
    struct Matrix<const D: usize> {
        values: Param<Tensor<D>>,
    }
    impl<const D: usize> Student<Batch> for Matrix<D> {
        type Output = Tensor<1>;
        fn forward(&self, _batch: &Batch) -> Tensor<1> {
            self.values.val().sum()
        }
    }
    fn train<const D: usize>(shape: [usize; D], folder: &Path) -> Result<(), TrainError> {
        let student = Matrix {
            values: Param::initialized(Default::default(), Tensor::<D>::ones(shape, &device()).require_grad()),
        };
        let one = || loader(samples(2, 0), 2);
        let epochs = 1 + usize::from(shape[0] != 6);
        let run = Distillation::new(student, NoTeacher::new(), one(), one()).folder(folder).progress(Progress::Silent);
        run.term("sum", 1.0, |view| view.student.clone()).epochs(epochs).run().map(drop)
    }
    let folder = tempfile::tempdir().unwrap();
    train([6, 1], folder.path()).unwrap();
    for error in [train([2, 3], folder.path()), train([1, 2, 3], folder.path())] {
        let error = error.unwrap_err();
        assert!(matches!(&error, TrainError::Checkpoint(CheckpointError::OtherModel { .. })), "{error}");
        let error = error.to_string();
        assert!(error.contains("`model` does not fit this run") && error.contains("student.values"), "{error}");
    }
}

#[test]
fn starting_anew_deletes_our_files_and_no_others() {
    let folder = trained(2);
    let (before, foreign) =
        (student_of(folder.path()), ["notes.txt", "checkpoint/notes.txt", "checkpoint/epoch-x.json"]);
    for name in foreign {
        fs::write(folder.path().join(name), "mine").unwrap();
    }
    // Another configuration, which a checkpoint would refuse.
    run(folder.path()).learning_rate(0.5).resume(Resume::Never).epochs(1).run().unwrap();
    for name in foreign {
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "mine");
    }
    assert_eq!(read_metrics(folder.path().join("metrics.jsonl")).unwrap().len(), 2);
    assert!(!part(folder.path(), "epoch-0002.json").exists());
    assert_ne!(student_of(folder.path()), before);
}

#[test]
fn metrics_that_are_torn_or_of_epochs_that_come_again() {
    let whole = trained(3);
    let folder = trained(2);
    let path = folder.path().join("metrics.jsonl");
    let mut text = fs::read_to_string(&path).unwrap();
    let row = text.lines().last().unwrap().to_string();
    // The train row of an epoch whose checkpoint never came, and half of its validation row.
    text += &format!("{}\n", row.replace("\"epoch\":2", "\"epoch\":3").replace("valid", "train"));
    text += &row[..row.len() / 2];
    fs::write(&path, text).unwrap();
    run(folder.path()).epochs(3).run().unwrap();
    assert_eq!(timeless(folder.path()), timeless(whole.path()));
    assert_eq!(student_of(folder.path()), student_of(whole.path()));
}

#[test]
fn the_best_checkpoint_is_kept_beside_the_last_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = from_teacher(Mlp::plain(1), loader(samples(8, 5), 4), folder.path())
        .term("hard", 1.0, hard)
        .term("steps", 1.0, |view| view.student.logits.clone().sum().mul_scalar(0.0).add_scalar(view.step as f64))
        .monitor(burn_distill_train::Monitor::lowest("steps"))
        .keep_checkpoints(1)
        .epochs(4);
    let trained = run.run().unwrap();
    assert_eq!(trained.best_epoch, 1);
    let mut left: Vec<_> =
        fs::read_dir(folder.path().join("checkpoint")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    let manifests: Vec<_> = left.iter().filter(|name| name.to_string_lossy().ends_with(".json")).collect();
    assert_eq!(manifests, ["epoch-0001.json", "epoch-0004.json"]);
    assert_eq!(left.len(), 8);
}
