//! A run that reads its teacher's logits from disk is the run that wrote them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill_models::{Frozen, Keyed, MeanTeacher, SeededLoader, SeededLoaderConfig, Teacher};
use burn_distill_train::{
    CacheCounts, CacheIdentity, CachedOutput, CachedTeacher, Classification, Distillation, OfflineTeacher, Progress,
    TeacherCache, Trained,
};
use burn_distill_vision::{
    AugmentConfig, ImageBatch, ImageBatcher, ImageDataset, Normalization, ResNet, ResNetConfig, ResNetOutput, Split,
};

use crate::fixture::{device, student_of, timeless, with_weights};

const IMAGES: usize = 40;
const HELD_OUT: usize = 20;
/// So many epochs pass before a view comes again.
const VIEWS: usize = 2;
const EPOCHS: usize = 3;

fn net(seed: u64) -> ResNet {
    with_weights(ResNetConfig::from_name("resnet8", 10).unwrap().with_in_channels(1).init(&device()).unwrap(), seed)
}

/// Two data sets whose indices, and whose loaders' seeds, are the same.
fn images() -> [ImageDataset; 2] {
    let images = ImageDataset::fashion_mnist_embedded(Split::Train);
    let (held_out, train) = images.balanced_subset(IMAGES + HELD_OUT, 0).unwrap().split(1.0 / 3.0, 0).unwrap();
    [train, held_out]
}

fn loaders() -> [Arc<dyn DataLoader<ImageBatch>>; 2] {
    let [train, held_out] = images();
    let random = AugmentConfig::new(Normalization::fashion_mnist()).with_crop_padding(2).with_flip_probability(0.5);
    let loader = |images: ImageDataset, augment: &AugmentConfig, config: SeededLoaderConfig| {
        let batcher = ImageBatcher::new(augment.init(images.shape()).unwrap(), 10).unwrap();
        Arc::new(SeededLoader::new(Arc::new(images), batcher, config).unwrap()) as Arc<dyn DataLoader<ImageBatch>>
    };
    let config = SeededLoaderConfig::new(8).with_shuffle(true).with_views(Some(VIEWS));
    [loader(train, &random, config), loader(held_out, &random.for_evaluation(), SeededLoaderConfig::new(10))]
}

fn identity<T: Teacher<ImageBatch>>(teacher: &T) -> CacheIdentity {
    let dataset = images().map(|images| images.fingerprint()).join(" ");
    CacheIdentity { teacher: teacher.fingerprint(), dataset, classes: 10 }
}

fn open(folder: &Path) -> Arc<TeacherCache> {
    Arc::new(TeacherCache::open_for(folder, identity(&Frozen::new(net(2)))).unwrap())
}

fn run<T>(teacher: T, logits: fn(&T::Output) -> &Tensor<2>, folder: &Path) -> Trained<ResNet>
where
    T: Teacher<ImageBatch> + 'static,
    T::Output: 'static,
{
    run_for(EPOCHS, teacher, logits, folder)
}

fn run_for<T>(epochs: usize, teacher: T, logits: fn(&T::Output) -> &Tensor<2>, folder: &Path) -> Trained<ResNet>
where
    T: Teacher<ImageBatch> + 'static,
    T::Output: 'static,
{
    let [train, valid] = loaders();
    let (kd, hard) = (KdLossConfig::new().init().unwrap(), CrossEntropyLossConfig::new().init().unwrap());
    Distillation::new(net(1), teacher, train, valid)
        .term("kd", 0.9, move |view| kd.forward(view.student.logits.clone(), logits(view.teacher).clone(), None))
        .term("hard", 0.1, move |view| hard.forward(view.student.logits.clone(), view.batch.targets.clone(), None))
        .classification(move |view| Classification {
            student_logits: view.student.logits.clone(),
            teacher_logits: Some(logits(view.teacher).clone()),
            targets: Some(view.batch.targets.clone()),
            labelled: None,
        })
        .learning_rate(0.01)
        .epochs(epochs)
        .folder(folder)
        .progress(Progress::Silent)
        .run()
        .unwrap()
}

fn of_cache(output: &CachedOutput) -> &Tensor<2> {
    &output.logits
}

fn cached<T>(teacher: T, cache: &Arc<TeacherCache>) -> CachedTeacher<T, ImageBatch>
where
    T: Teacher<ImageBatch, Output = ResNetOutput>,
{
    CachedTeacher::new(teacher, cache.clone(), |output: &ResNetOutput| output.logits.clone()).unwrap()
}

/// A teacher with the fingerprint of another, that must not be asked more often than it allows.
#[derive(Module, Debug)]
struct Limited {
    inner: Frozen<ResNet>,
    #[module(skip)]
    left: Arc<AtomicUsize>,
}

impl Limited {
    fn new(forwards: usize) -> Self {
        Self { inner: Frozen::new(net(2)), left: Arc::new(AtomicUsize::new(forwards)) }
    }
}

impl Teacher<ImageBatch> for Limited {
    type Output = ResNetOutput;

    fn forward(&self, batch: &ImageBatch) -> ResNetOutput {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.expect("the teacher was asked once too often");
        Teacher::forward(&self.inner, batch)
    }

    fn fingerprint(&self) -> String {
        Teacher::<ImageBatch>::fingerprint(&self.inner)
    }
}

/// Metrics and student of a run.
fn result(folder: &Path) -> (Vec<burn_distill_train::MetricsRow>, (serde_json::Value, Vec<u8>)) {
    (timeless(folder), student_of(folder))
}

#[test]
fn a_run_that_reads_gives_the_numbers_of_the_run_that_wrote() {
    let (disk, [live, first, second, third]) =
        (tempfile::tempdir().unwrap(), std::array::from_fn(|_| tempfile::tempdir().unwrap()));
    run(Frozen::new(net(2)), |output: &ResNetOutput| &output.logits, live.path());

    let cache = open(disk.path());
    // 5 batches in each of the first two epochs, and 2 of held-out images in the first.
    let batches = VIEWS * IMAGES / 8 + HELD_OUT / 10;
    run(cached(Limited::new(batches), &cache), of_cache, first.path());
    assert_eq!(cache.len(), VIEWS * IMAGES + HELD_OUT);
    let asked = (VIEWS * IMAGES + HELD_OUT) as u64;
    assert_eq!(cache.counts(), CacheCounts { asked, cached: (EPOCHS * (IMAGES + HELD_OUT)) as u64 - asked });
    drop(cache);

    let cache = open(disk.path());
    run(cached(Limited::new(0), &cache), of_cache, second.path());
    assert_eq!(cache.counts(), CacheCounts { asked: 0, cached: (EPOCHS * (IMAGES + HELD_OUT)) as u64 });
    drop(cache);

    let cache = Arc::new(TeacherCache::open(disk.path()).unwrap());
    run(OfflineTeacher::new(cache), of_cache, third.path());

    let expected = result(first.path());
    assert!(expected.0.iter().any(|row| row.metrics.contains_key("agreement")));
    assert_eq!(result(second.path()), expected, "reading");
    assert_eq!(result(third.path()), expected, "reading without a teacher");
    // The same batches were put together for the teacher's first answer in every epoch, so here even this holds.
    let epoch = |rows: Vec<burn_distill_train::MetricsRow>| {
        rows.into_iter().filter(|row| row.epoch <= VIEWS).collect::<Vec<_>>()
    };
    assert_eq!(epoch(result(live.path()).0), epoch(expected.0), "without a cache");
}

#[test]
fn a_run_goes_on_with_a_cache_or_without_it() {
    let (disk, whole, resumed) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = open(disk.path());
    run(cached(Frozen::new(net(2)), &cache), of_cache, whole.path());
    cache.finish().unwrap();
    run_for(1, Frozen::new(net(2)), |output: &ResNetOutput| &output.logits, resumed.path());
    run_for(2, cached(Limited::new(0), &cache), of_cache, resumed.path());
    run_for(3, OfflineTeacher::new(cache), of_cache, resumed.path());
    assert_eq!(result(resumed.path()), result(whole.path()));
}

#[test]
fn a_cache_that_was_cut_short_is_completed_to_the_same_numbers() {
    let (disk, whole, again) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(cached(Frozen::new(net(2)), &open(disk.path())), of_cache, whole.path());
    let path = std::fs::read_dir(disk.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let cache = open(disk.path());
    let left = cache.len();
    assert!((1..VIEWS * IMAGES + HELD_OUT).contains(&left), "{left}");
    run(cached(Frozen::new(net(2)), &cache), of_cache, again.path());
    assert_eq!(cache.counts().asked as usize, VIEWS * IMAGES + HELD_OUT - left);
    assert_eq!(result(again.path()), result(whole.path()));
}

#[test]
fn part_of_a_batch_may_be_there() {
    let disk = tempfile::tempdir().unwrap();
    let cache = open(disk.path());
    let [train, _] = loaders();
    let batch = train.to_device(&Device::flex()).iter().next().unwrap().unwrap();
    let keys = batch.keys();
    // Numbers no teacher gave, to see where they go.
    cache.append(&keys[2..3], &[7.0; 10]).unwrap();
    let teacher = cached(Frozen::new(net(2)), &cache);
    let rows = |output: CachedOutput| output.logits.into_data().try_to_vec::<f32>().unwrap();
    let answer = rows(teacher.forward(&batch));
    let live = Teacher::forward(&Frozen::new(net(2)), &batch).logits.into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(answer[20..30], [7.0; 10]);
    assert_eq!((&answer[..20], &answer[30..]), (&live[..20], &live[30..]));
    assert_eq!(cache.counts(), CacheCounts { cached: 1, asked: 7 });
    assert_eq!(rows(teacher.forward(&batch)), answer);
    assert_eq!(cache.counts(), CacheCounts { cached: 9, asked: 7 });
    // Among gradients the same batch has the same answer, which is where the batch is and takes no gradient.
    let on = train.to_device(&device()).iter().next().unwrap().unwrap();
    let among = teacher.fork(&device()).forward(&on);
    assert!(among.logits.is_autodiff() && !among.logits.is_require_grad());
    assert_eq!(rows(among), answer);
}

/// Draws the same sample twice, with answers that differ from row to row.
#[test]
fn a_view_that_is_in_a_batch_twice_has_one_answer() {
    #[derive(Module, Debug)]
    struct RowNumber {}
    impl Teacher<ImageBatch> for RowNumber {
        type Output = Tensor<2>;
        fn forward(&self, batch: &ImageBatch) -> Tensor<2> {
            let rows: Vec<f32> = (0..batch.len()).flat_map(|row| [row as f32; 10]).collect();
            Tensor::from_data(TensorData::new(rows, [batch.len(), 10]), &batch.device())
        }
    }
    let disk = tempfile::tempdir().unwrap();
    let cache = Arc::new(TeacherCache::open_for(disk.path(), identity(&RowNumber {})).unwrap());
    let teacher = CachedTeacher::new(RowNumber {}, cache, |logits: &Tensor<2>| logits.clone()).unwrap();
    let [_, valid] = loaders();
    let mut batch = valid.to_device(&Device::flex()).iter().next().unwrap().unwrap();
    batch.indices[4] = batch.indices[1];
    let first = teacher.forward(&batch).logits.into_data();
    assert_eq!(first.try_to_vec::<f32>().unwrap()[40..50], [1.0; 10]);
    assert_eq!(teacher.forward(&batch).logits.into_data(), first);
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let disk = tempfile::tempdir().unwrap();
    let cache = open(disk.path());
    let read = |output: &ResNetOutput| output.logits.clone();
    let other = CachedTeacher::<_, ImageBatch>::new(Frozen::new(net(3)), cache.clone(), read).unwrap_err().to_string();
    let [own, given] = [2, 3].map(|seed| Teacher::<ImageBatch>::fingerprint(&Frozen::new(net(seed))));
    let start = format!("{}: `teacher` is `{own}`, expected `{given}`", disk.path().display());
    assert!(other.starts_with(&start), "{other}");
    let mean = MeanTeacher::new(&net(1), 0.9).unwrap();
    let error = CachedTeacher::<_, ImageBatch>::new(mean, cache, read).unwrap_err().to_string();
    assert!(error.ends_with("got one that learns (mean teacher, decay 0.9); it cannot be cached"), "{error}");
}

#[test]
#[should_panic(expected = "has no answer to sample 0, view 0 of data set")]
fn a_view_that_is_not_there_is_named() {
    let disk = tempfile::tempdir().unwrap();
    let [_, valid] = loaders();
    let batch = valid.to_device(&Device::flex()).iter().next().unwrap().unwrap();
    OfflineTeacher::new(open(disk.path())).forward(&batch);
}

/// The cache is no part of a record, and the teacher's identity is the live one's.
#[test]
fn a_cache_changes_nothing_that_a_checkpoint_holds() {
    let disk = tempfile::tempdir().unwrap();
    let cache = open(disk.path());
    let live = Frozen::new(net(2));
    let (cached, offline) = (cached(live.clone(), &cache), OfflineTeacher::new(cache));
    assert!(cached.clone().into_record().is_empty() && offline.clone().into_record().is_empty());
    let fingerprint = Teacher::<ImageBatch>::fingerprint(&live);
    assert_eq!(cached.fingerprint(), fingerprint);
    assert_eq!(Teacher::<ImageBatch>::fingerprint(&offline), fingerprint);
    assert_eq!((cached.parameter_count(), Teacher::<ImageBatch>::parameter_count(&offline)), (0, 0));
}
