//! A run that is killed and goes on ends with the numbers of one that never was.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_distill_losses::{CrdLossConfig, CrdNegatives, HintLossConfig};
use burn_distill_models::{
    Frozen, LinearConnector, LinearConnectorConfig, MeanTeacher, Seeded, SeededLoaderConfig, Student, Teacher,
};
use burn_distill_schedules::{GapTemperature, ReduceOnPlateau, Schedule};
use burn_distill_train::{Balance, Distillation, LearningRate, Monitor, OptimizerConfig, Progress, WeightDecay};
use rand::RngExt;

use crate::fixture::*;
use crate::tasks::{class_task, side_task, two_tasks};

const FOLDER: &str = "BURN_DISTILL_TEST_FOLDER";
const VARIANT: &str = "BURN_DISTILL_TEST_VARIANT";
const EPOCHS: &str = "BURN_DISTILL_TEST_EPOCHS";

/// Runs a training in a process of its own: the tests kill it, and dropout draws from the process's one generator.
#[test]
#[ignore = "the other tests of this file start it as a process"]
fn child() {
    let read = |name| std::env::var(name).unwrap();
    for epochs in read(EPOCHS).split(',') {
        train(&read(VARIANT), Path::new(&read(FOLDER)), epochs.parse().unwrap());
    }
}

fn train(variant: &str, folder: &Path, epochs: usize) {
    let student = Mlp::new(8, true, 0.3, 1, &device());
    let samples = samples(40, 5);
    match variant {
        "frozen" => {
            let config = SeededLoaderConfig::new(6).with_shuffle(true).with_seed(3);
            let teacher = Frozen::new(Mlp::new(12, true, 0.0, 2, &device()));
            distil(student, teacher, 12, loader_with(samples, 0.1, config), folder, epochs).run().unwrap();
        }
        "ahead" => {
            let config = SeededLoaderConfig::new(6).with_shuffle(true).with_seed(3);
            let teacher = Frozen::new(Mlp::new(12, true, 0.0, 2, &device()));
            let run = distil(student, teacher, 12, loader_with(samples, 0.1, config), folder, epochs);
            run.prefetch_teacher().run().unwrap();
        }
        "mean_teacher" => {
            let config = SeededLoaderConfig::new(6).with_shuffle(true).with_seed(3).with_prefetch(0);
            let teacher = MeanTeacher::new(&student, 0.9).unwrap();
            distil(student, teacher, 8, loader_with(samples, 0.1, config), folder, epochs).run().unwrap();
        }
        "memory" => {
            let targets: Vec<usize> = samples.iter().map(|sample| sample.target.unwrap()).collect();
            // This process draws nothing but its initial memory from the generator.
            device().seed(17);
            let config = CrdLossConfig::new(8, 12, samples.len()).with_width(6).with_negatives(9);
            let crd = config.init(&device()).unwrap().other_classes(&targets);
            let teacher = Frozen::new(Mlp::new(12, true, 0.0, 2, &device()));
            let config = SeededLoaderConfig::new(6).with_shuffle(true).with_seed(3);
            Distillation::new(student, teacher, loader_with(samples, 0.1, config), loader(samples_of_validation(), 4))
                .parts(with_weights(crd, 4))
                .term("hard", 0.5, hard)
                .term("crd", 0.1, |view| {
                    let (student, teacher) = (view.student.hidden.clone(), view.teacher.hidden.clone());
                    let negatives = CrdNegatives::at_step(view.step);
                    view.parts.forward(student, teacher, &view.batch.indices, negatives)
                })
                .optimizer(OptimizerConfig::sgd())
                .learning_rate(0.05)
                .monitor(Monitor::lowest("hard"))
                .accumulate(2)
                .seed(11)
                .epochs(epochs)
                .folder(folder)
                .progress(Progress::Silent)
                .run()
                .unwrap();
        }
        "burn_loader" => {
            let teacher = Frozen::new(Mlp::new(12, true, 0.0, 2, &device()));
            let train = DataLoaderBuilder::new(FromSamples).batch_size(6).shuffle(7).build(InMemDataset::new(samples));
            distil(student, teacher, 12, train, folder, epochs).run().unwrap();
        }
        "uncertainty" => distil_tasks(Balance::Uncertainty, folder, epochs),
        "grad_norm" => distil_tasks(Balance::grad_norm(1.5), folder, epochs),
        other => panic!("no variant {other}"),
    }
}

fn samples_of_validation() -> Vec<Sample> {
    samples(10, 6)
}

/// For Burn's own loader, whose items have no seeds.
#[derive(Clone)]
struct FromSamples;

impl Batcher<Sample, Batch> for FromSamples {
    fn batch(&self, items: Vec<Sample>, device: &Device) -> Batch {
        let seeded = items.into_iter().map(|item| Seeded { item, index: 0, seed: 0 });
        Stack { noise: 0.0 }.batch(seeded.collect(), device)
    }
}

/// Everything that moves: momentum, gap temperature, plateau, warm-up of a weight, learned part, accumulation,
/// clipping.
fn distil<T>(
    student: Mlp,
    teacher: T,
    width: usize,
    train: Loader,
    folder: &Path,
    epochs: usize,
) -> Distillation<Mlp, T, Batch, LinearConnector>
where
    T: Teacher<Batch, Output = <Mlp as Student<Batch>>::Output> + 'static,
{
    let connector = with_weights(LinearConnectorConfig::new(8, width).init(&device()), 4);
    let plateau = ReduceOnPlateau::new(0.5, 0).unwrap();
    let rate = LearningRate::Plateau { base: Schedule::cosine(0.2, 0.05, 40).unwrap(), plateau };
    Distillation::new(student, teacher, train, loader(samples_of_validation(), 4))
        .parts(connector)
        .term("hard", 0.5, hard)
        .term("kd", Schedule::linear(0.0, 0.5, 10).unwrap(), soft)
        .term("hint", 0.1, |view| {
            let student = view.parts.forward(view.student.hidden.clone());
            HintLossConfig::new().init().unwrap().forward(student, view.teacher.hidden.clone())
        })
        .classification(rows)
        .temperature(GapTemperature::new(1.0, 6.0, 0.3).unwrap())
        .optimizer(OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(1e-3)))
        .learning_rate(rate)
        .monitor(Monitor::lowest("hard"))
        .clip_grad_norm(0.5)
        .accumulate(2)
        .seed(11)
        .epochs(epochs)
        .folder(folder)
        .progress(Progress::Silent)
}

/// Two tasks, one of which has few rows and in some batches none.
fn distil_tasks(balance: Balance, folder: &Path, epochs: usize) {
    let mut samples = samples(40, 5);
    samples.iter_mut().enumerate().filter(|(index, _)| index % 5 > 0).for_each(|(_, sample)| sample.target = None);
    let config = SeededLoaderConfig::new(3).with_shuffle(true).with_seed(3);
    let train = loader_with(samples, 0.1, config);
    Distillation::new(two_tasks(6, 1), Frozen::new(two_tasks(9, 2)), train, loader(self::samples(10, 6), 4))
        .task("class", |task| class_task(task.mask(|view| view.batch.labelled.clone())))
        .task("side", side_task)
        .balance(balance)
        .learning_rate(0.02)
        .clip_grad_norm(2.0)
        .accumulate(2)
        .epochs(epochs)
        .folder(folder)
        .progress(Progress::Silent)
        .run()
        .unwrap();
}

fn start(variant: &str, folder: &Path, epochs: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::child", "--ignored", "--test-threads", "1"])
        .env(VARIANT, variant)
        .env(FOLDER, folder)
        .env(EPOCHS, epochs)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn finish(variant: &str, folder: &Path, epochs: &str) {
    assert!(start(variant, folder, epochs).wait().unwrap().success());
}

fn last_checkpoint(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder.join("checkpoint")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let epochs = names.filter_map(|name| name.strip_prefix("epoch-")?.strip_suffix(".json")?.parse().ok());
    epochs.max().unwrap_or(0)
}

/// Kills the run with SIGKILL, some random time after another checkpoint or after its start, and gives after how many
/// epochs.
fn kill_at_random_moments(variant: &str, folder: &Path, epochs: usize) -> Vec<usize> {
    let mut rng = rand::rng();
    let mut killed_after = Vec::new();
    for attempt in 0..6 {
        let before = last_checkpoint(folder);
        if before + 1 >= epochs {
            break;
        }
        let mut child = start(variant, folder, &epochs.to_string());
        let started = Instant::now();
        let waits = attempt % 2 == 0;
        while waits && last_checkpoint(folder) == before && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..if waits { 12_000 } else { 60_000 })));
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            killed_after.push(last_checkpoint(folder));
        }
    }
    killed_after
}

fn assert_killed_run_equals_whole(variant: &str) {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let epochs = 24;
    finish(variant, whole.path(), &epochs.to_string());
    let moments = kill_at_random_moments(variant, killed.path(), epochs);
    assert!(moments.iter().any(|epoch| (1..epochs).contains(epoch)), "no kill came between checkpoints: {moments:?}");
    finish(variant, killed.path(), &epochs.to_string());
    assert_same_run(&format!("killed after epochs {moments:?}"), killed.path(), whole.path());
    assert_eq!(files(killed.path()), files(whole.path()), "killed after epochs {moments:?}");
}

/// The names of all files, to see that a killed run leaves nothing behind in the end.
fn files(folder: &Path) -> Vec<String> {
    let list = |folder: &Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let mut names = [list(folder), list(&folder.join("checkpoint"))].concat();
    names.sort();
    names
}

#[test]
fn killed_under_a_frozen_teacher() {
    assert_killed_run_equals_whole("frozen");
}

#[test]
fn killed_while_the_teacher_is_asked_ahead() {
    assert_killed_run_equals_whole("ahead");
}

#[test]
fn a_teacher_that_is_asked_ahead_changes_no_number_and_no_mask_of_dropout() {
    let [turn, ahead] = ["frozen", "ahead"].map(|variant| {
        let folder = tempfile::tempdir().unwrap();
        finish(variant, folder.path(), "6");
        folder
    });
    assert_eq!(timeless(ahead.path()), timeless(turn.path()));
    assert_eq!(student_of(ahead.path()), student_of(turn.path()));
}

#[test]
fn killed_under_the_average_of_itself() {
    assert_killed_run_equals_whole("mean_teacher");
}

#[test]
fn killed_while_uncertainties_are_learned() {
    assert_killed_run_equals_whole("uncertainty");
}

#[test]
fn killed_while_gradients_are_balanced() {
    assert_killed_run_equals_whole("grad_norm");
}

#[test]
fn killed_with_a_memory_of_every_sample() {
    assert_killed_run_equals_whole("memory");
}

#[test]
fn killed_with_burns_own_shuffled_loader() {
    assert_killed_run_equals_whole("burn_loader");
}

#[test]
fn continued_at_every_epoch_boundary() {
    for variant in ["frozen", "mean_teacher", "memory", "uncertainty", "grad_norm"] {
        let whole = tempfile::tempdir().unwrap();
        finish(variant, whole.path(), "3");
        for epochs in ["1,3", "2,3", "1,2,3", "3,3"] {
            let continued = tempfile::tempdir().unwrap();
            finish(variant, continued.path(), epochs);
            assert_same_run(&format!("{variant}, {epochs}"), continued.path(), whole.path());
        }
    }
}

#[test]
fn what_the_tests_above_rely_on_does_move() {
    let folder = tempfile::tempdir().unwrap();
    finish("frozen", folder.path(), "24");
    let rows = timeless(folder.path());
    let of = |epoch, name| value(&rows, epoch, "train", name).unwrap();
    assert_ne!(of(1, "temperature"), of(24, "temperature"));
    assert_ne!(of(1, "weight:kd"), of(24, "weight:kd"));
    assert_ne!(of(1, "learning_rate"), of(24, "learning_rate"));
    // 7 batches in groups of 2: 4 steps an epoch.
    assert_eq!(rows.last().unwrap().step, 96);
    let unshrunk = Schedule::cosine(0.2, 0.05, 40).unwrap().value(95);
    assert!(of(24, "learning_rate") < 0.75 * unshrunk, "the plateau never shrank the rate");
    for variant in ["uncertainty", "grad_norm"] {
        let folder = tempfile::tempdir().unwrap();
        finish(variant, folder.path(), "8");
        let rows = timeless(folder.path());
        let weights = [1, 8].map(|epoch| value(&rows, epoch, "valid", "weight:class").unwrap());
        assert!((weights[0] - weights[1]).abs() > 0.01, "{variant}: {weights:?}");
    }
}

/// Whatever random an unrelated part of the process draws: the masks come from the run's seed.
#[test]
fn another_seed_draws_other_masks() {
    let run = |seed: u64| {
        let folder = tempfile::tempdir().unwrap();
        let student = Mlp::new(8, false, 0.5, 1, &device());
        from_teacher(student, loader(samples(8, 5), 4), folder.path())
            .term("hard", 1.0, hard)
            .seed(seed)
            .run()
            .unwrap();
        numbers_of(folder.path())
    };
    assert_ne!(run(1), run(2));
}
