//! What does a small network gain from a large one's soft targets, over labels alone?
//!
//! ```text
//! cargo run --release --example resnet_kd
//! ```
//!
//! A ResNet-20 teaches a ResNet-8 on Fashion-MNIST, which is inside the program. The same student is trained from the
//! same seeds on labels alone, on labels and soft targets (KD, with a temperature that falls), and with a term on
//! features beside. It ends with a table and one verdict line; runs, reports and the best students are in `--out`.
//!
//! Expect about 68 % for labels alone, 69 % for KD and 74 % for KD with attention transfer, each within 2 points, in
//! 3 minutes on 2 idle cores. `--train-teacher` makes the default teacher again (90 %, 10 minutes).

mod args;
mod cache;
mod data;
mod features;
mod methods;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_distill::eval::ClassificationStats;
use burn_distill::losses::CrossEntropyLossConfig;
use burn_distill::models::{Frozen, NoTeacher, Teacher};
use burn_distill::schedules::Schedule;
use burn_distill::train::{
    CachedTeacher, Classification, Distillation, OptimizerConfig, Progress, Resume, TeacherCache, Trained, WeightDecay,
    evaluate, keep_freed_memory,
};
use burn_distill::vision::{ImageBatch, ResNet, ResNetConfig, ResNetOutput};
use clap::Parser;

use args::{Args, DatasetName};
use data::Images;
use methods::{Method, hard, rows};

/// The default teacher: this example's own, by `--train-teacher`.
const FASHION_MNIST_TEACHER: &[u8] = include_bytes!("teacher-resnet20.safetensors");

fn main() -> Result<()> {
    keep_freed_memory();
    let args = Args::parse();
    let device = args.device.device()?.autodiff();
    let images = Images::read(&args)?;
    println!(
        "{} training images, {} held out, {} for the test; {} classes; {:?} device",
        images.train.len(),
        images.held_out.len(),
        images.test.len(),
        images.classes(),
        args.device,
    );
    std::fs::create_dir_all(&args.out).with_context(|| format!("`--out` {}", args.out.display()))?;
    match args.train_teacher {
        true => train_teacher(&args, &images, &device),
        false => compare(&args, &images, &device),
    }
}

fn train_teacher(args: &Args, images: &Images, device: &Device) -> Result<()> {
    let teacher = network(&args.teacher_arch, images, 0, device)?;
    let cross_entropy = CrossEntropyLossConfig::new().init()?;
    let run = Distillation::new(
        teacher,
        NoTeacher::new(),
        images.train_loader(args, 0)?,
        images.eval_loader(&images.held_out)?,
    )
    .term("hard", 1.0, move |view| hard(&cross_entropy, view.student, view.batch))
    .classification(|view| rows(view.student, None, view.batch));
    let trained = common(run, args, images, "teacher", 0)?.run()?;
    let path = args.out.join(format!("teacher-{}.safetensors", args.teacher_arch));
    trained.student.save_safetensors(&path)?;
    let test = evaluate(&trained.student, &*images.eval_loader(&images.test)?, |out, batch| rows(&out, None, batch))?;
    let accuracy = test.top1.as_ref().and_then(|mean| mean.value()).unwrap_or(f64::NAN);
    println!("{}: {:.2} % of the test images, written to {}", args.teacher_arch, 100.0 * accuracy, path.display());
    Ok(())
}

fn compare(args: &Args, images: &Images, device: &Device) -> Result<()> {
    let teacher = read_teacher(args, images, device)?;
    let cache = cache::open(args, images, &teacher)?;
    let on_teacher = TeacherOnTest::new(&teacher, images)?;
    let methods: Vec<Option<Method>> = std::iter::once(None).chain(args.loss.iter().copied().map(Some)).collect();
    let mut results: Vec<Vec<ClassificationStats>> = vec![Vec::new(); methods.len()];
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); methods.len()];
    let mut student = None;
    for seed in 0..args.seeds() as u64 {
        for ((method, results), seconds) in methods.iter().zip(&mut results).zip(&mut seconds) {
            let trained = train_student(args, images, (&teacher, cache.as_ref()), *method, seed, device)?;
            results.push(on_teacher.test(&trained, images)?);
            seconds.push(epoch_seconds(&trained));
            student = Some(trained);
        }
    }
    let student = student.context("`--seeds` must be at least 1")?;
    let names = methods.iter().map(|method| method.map_or("labels only", Method::name));
    if let Some(cache) = cache {
        cache::finish(&cache)?;
    }
    let results: Vec<_> = names.zip(results).collect();
    if let Some(path) = &args.markdown {
        let text = table::with_gains(args, &results, &seconds, &on_teacher.stats)?;
        std::fs::write(path, text).with_context(|| format!("`--markdown` {}", path.display()))?;
    }
    table::print(args, images, &results, &student, &teacher, &on_teacher.stats)
}

/// The mean time of an epoch of training, without validation.
fn epoch_seconds(trained: &Trained<ResNet, ()>) -> f64 {
    let seconds: Vec<f64> = trained.metrics.iter().filter(|row| row.split == "train").map(|row| row.seconds).collect();
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

/// A network with fresh weights; the same seed gives the same weights.
fn network(name: &str, images: &Images, seed: u64, device: &Device) -> Result<ResNet> {
    device.seed(seed);
    let [channels, ..] = images.train.shape();
    Ok(ResNetConfig::from_name(name, images.classes())?.with_in_channels(channels).init(device)?)
}

fn read_teacher(args: &Args, images: &Images, device: &Device) -> Result<ResNet> {
    let [channels, ..] = images.train.shape();
    let config = ResNetConfig::from_name(&args.teacher_arch, images.classes())?.with_in_channels(channels);
    let path = match &args.teacher {
        Some(path) => path.clone(),
        None => {
            let inside = args.dataset == DatasetName::FashionMnist && args.teacher_arch == "resnet20";
            ensure!(
                inside,
                "only a resnet20 for fashion-mnist is inside the program: train one by `--train-teacher`, and give it by `--teacher FILE`"
            );
            let path = args.out.join("teacher.safetensors");
            std::fs::write(&path, FASHION_MNIST_TEACHER).with_context(|| path.display().to_string())?;
            path
        }
    };
    Ok(config.load(&path, device)?)
}

fn train_student(
    args: &Args,
    images: &Images,
    (teacher, cache): (&ResNet, Option<&Arc<TeacherCache>>),
    method: Option<Method>,
    seed: u64,
    device: &Device,
) -> Result<Trained<ResNet, ()>> {
    let student = network(&args.student_arch, images, seed, device)?;
    let (train, valid) = (images.train_loader(args, seed)?, images.eval_loader(&images.held_out)?);
    Ok(match method {
        None => {
            let run = methods::from_labels(Distillation::new(student, NoTeacher::new(), train, valid))?;
            without_parts(common(run, args, images, "labels only", seed)?.run()?)
        }
        Some(method) => {
            let (live, steps) = (Frozen::new(teacher.clone()), steps(args, images));
            let trained = match cache {
                Some(cache) => {
                    let cached = CachedTeacher::new(live, cache.clone(), |out: &ResNetOutput| out.logits.clone())?;
                    let run = Distillation::new(student.clone(), cached, train, valid);
                    let run = methods::from_logits(run, method, (&student, teacher), args, steps, device)?;
                    common(run, args, images, method.name(), seed)?.run()?
                }
                None => {
                    let run = Distillation::new(student.clone(), live, train, valid);
                    let run = methods::from_logits(run, method, (&student, teacher), args, steps, device)?;
                    let run = features::features(run, method, steps)?
                        .multiply_adds(macs(&student, images), macs(teacher, images));
                    common(run, args, images, method.name(), seed)?.run()?
                }
            };
            without_parts(trained)
        }
    })
}

fn without_parts<P>(trained: Trained<ResNet, P>) -> Trained<ResNet, ()> {
    let Trained { student, best_epoch, metrics, skipped_batches, steps, folder, .. } = trained;
    Trained { student, parts: (), best_epoch, metrics, skipped_batches, steps, folder }
}

fn macs(network: &ResNet, images: &Images) -> u64 {
    let [_, height, width] = images.train.shape();
    network.config().multiply_adds(height, width)
}

fn steps(args: &Args, images: &Images) -> usize {
    args.epochs() * (images.train.len() / args.batch_size()).max(1)
}

/// What every run here has in common.
fn common<T, P>(
    run: Distillation<ResNet, T, ImageBatch, P>,
    args: &Args,
    images: &Images,
    name: &str,
    seed: u64,
) -> Result<Distillation<ResNet, T, ImageBatch, P>>
where
    T: Teacher<ImageBatch> + 'static,
    T::Output: 'static,
    P: Module + 'static,
{
    let steps = steps(args, images);
    let warm_up = steps / 10;
    let rate = Schedule::cosine(args.learning_rate(), 0.0, (steps - warm_up).max(1))?;
    let rate = if warm_up > 0 { rate.with_warmup(warm_up)? } else { rate };
    let folder: PathBuf =
        args.out.join(format!("{}-seed{seed}", name.replace([' ', ','], "").replace('+', "-").to_lowercase()));
    let mut config = serde_json::json!({
        "dataset": args.dataset,
        "images": images.train.fingerprint(),
        "augment": images.augment,
        "batch_size": args.batch_size(),
        "student": args.student_arch,
        "loader_seed": seed,
        "epochs": args.epochs(),
    });
    if let Some(views) = args.views {
        config["views"] = views.into();
    }
    Ok(run
        .label(&format!("{name}, seed {seed}"))
        .folder(folder)
        .seed(seed)
        .epochs(args.epochs())
        .optimizer(OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(5e-4)))
        .learning_rate(rate)
        .item_name("images")
        .config(config)
        .resume(if args.fresh { Resume::Never } else { Resume::Auto })
        .progress(if args.plain { Progress::Lines } else { Progress::Auto })
        .export(|student: &ResNet, path| student.save_safetensors(path)))
}

/// The teacher's answers to the test images, given once.
struct TeacherOnTest {
    logits: Tensor<2>,
    stats: ClassificationStats,
}

impl TeacherOnTest {
    fn new(teacher: &ResNet, images: &Images) -> Result<Self> {
        let logits = std::cell::RefCell::new(Vec::new());
        let stats = evaluate(teacher, &*images.eval_loader(&images.test)?, |out, batch| {
            logits.borrow_mut().push(out.logits.clone());
            rows(&out, None, batch)
        })?;
        Ok(Self { logits: Tensor::cat(logits.into_inner(), 0), stats })
    }

    fn test(&self, trained: &Trained<ResNet, ()>, images: &Images) -> Result<ClassificationStats> {
        Ok(evaluate(&trained.student, &*images.eval_loader(&images.test)?, |out, batch| {
            let first = batch.indices[0]; // test images come in order
            let teacher_logits = Some(self.logits.clone().narrow(0, first, batch.len()));
            Classification { teacher_logits, ..rows(&out, None, batch) }
        })?)
    }
}
