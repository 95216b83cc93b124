use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor, TensorData};
use burn_distill_models::{Keyed, OnDevice, Teacher, ViewKey};

use super::cache::TeacherCache;
use super::error::{Result, TeacherCacheError};

/// What a cache can say about a batch: a teacher's features are not in it.
#[derive(Clone, Debug)]
pub struct CachedOutput {
    /// Unnormalised class scores, `[rows, classes]`, in f32.
    pub logits: Tensor<2>,
}

impl OnDevice for CachedOutput {
    fn on_device(&self, device: &Device) -> Self {
        Self { logits: self.logits.on_device(device) }
    }
}

/// A live teacher that is asked only for views that are not in its cache, which are added to it.
///
/// Its output is the logits alone, whether they were read or just computed, so that terms do not depend on how full the
/// cache is. If any row of a batch is missing, the teacher is asked for the whole batch, and the rows that were there
/// keep their cached numbers. So the numbers of a run that only reads are, bit for bit, those of the run that wrote;
/// a run without a cache may differ from both in the last bits where the teacher's answer to a sample depends, by
/// rounding, on the batch around it, and agrees where batches are the same.
///
/// Logits are held in f32: a teacher in half precision is held exactly, one in f64 is rounded.
///
/// [`fingerprint`](Teacher::fingerprint) is the live teacher's, so a run can be resumed with or without a cache; what a
/// checkpoint holds of the teacher does not change either. It counts no parameters: with a cache a report compares no
/// speed.
///
/// A failure to write is a warning in the log, and the run goes on without writing; a failure to read asks the teacher.
///
/// # Panics
/// [`Teacher::forward`] when the batch's keys and the teacher's logits differ in number, or the logits have another
/// width than the cache.
pub struct CachedTeacher<T: Teacher<B>, B> {
    live: T,
    cache: Arc<TeacherCache>,
    logits: ReadLogits<T::Output>,
    failed: Arc<AtomicBool>,
}

type ReadLogits<O> = Arc<dyn Fn(&O) -> Tensor<2> + Send + Sync>;

impl<T: Teacher<B>, B: Keyed> CachedTeacher<T, B> {
    /// Puts a cache before a teacher; `logits` reads `[rows, classes]` from the teacher's output. Several teachers and
    /// runs of one process may share a cache.
    ///
    /// # Errors
    /// When the cache is another teacher's, or the teacher [`learns`](Teacher::learns).
    pub fn new(
        teacher: T,
        cache: Arc<TeacherCache>,
        logits: impl Fn(&T::Output) -> Tensor<2> + Send + Sync + 'static,
    ) -> Result<Self> {
        let fingerprint = teacher.fingerprint();
        if teacher.learns() {
            return Err(TeacherCacheError::Learns { teacher: fingerprint });
        }
        let expected = super::CacheIdentity { teacher: fingerprint, ..cache.identity().clone() };
        expected.check_same(cache.identity(), cache.folder())?;
        Ok(Self { live: teacher, cache, logits: Arc::new(logits), failed: Arc::default() })
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<TeacherCache> {
        &self.cache
    }

    fn with_live(self, f: impl FnOnce(T) -> T) -> Self {
        Self { live: f(self.live), ..self }
    }

    /// The live teacher's logits, row by row.
    fn ask(&self, batch: &B, rows: usize) -> Vec<f32> {
        let logits = (self.logits)(&self.live.forward(batch));
        let classes = self.cache.identity().classes;
        assert_eq!(logits.dims(), [rows, classes], "the teacher's logits must be [keys of the batch, `classes`]");
        logits.into_data().convert::<f32>().iter::<f32>().collect()
    }

    fn warn_once(&self, what: &str, error: &TeacherCacheError) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            log::warn!("the teacher cache is not {what} any more: {error}");
        }
    }
}

impl<T: Teacher<B>, B: Keyed> Teacher<B> for CachedTeacher<T, B> {
    type Output = CachedOutput;

    fn forward(&self, batch: &B) -> CachedOutput {
        let keys = batch.keys();
        let mut rows: Vec<Option<Vec<f32>>> = Vec::with_capacity(keys.len());
        for key in &keys {
            rows.push(self.cache.get(key).unwrap_or_else(|error| {
                self.warn_once("read", &error);
                None
            }));
        }
        let missing = rows.iter().filter(|row| row.is_none()).count();
        self.cache.count(keys.len() - missing, missing);
        let classes = self.cache.identity().classes;
        let values = if missing == 0 {
            rows.into_iter().flatten().flatten().collect()
        } else {
            let mut values = self.ask(batch, keys.len());
            // What is kept is what is handed out: rows that were there, and of a view that is there twice the first.
            let mut kept: HashMap<ViewKey, Vec<f32>> = HashMap::new();
            for ((key, row), values) in keys.iter().zip(rows).zip(values.chunks_exact_mut(classes)) {
                values.copy_from_slice(kept.entry(*key).or_insert_with(|| row.unwrap_or_else(|| values.to_vec())));
            }
            if self.cache.is_writable()
                && !self.failed.load(Ordering::Relaxed)
                && let Err(error) = self.cache.append(&keys, &values)
            {
                self.warn_once("written", &error);
            }
            values
        };
        output(values, keys.len(), classes, &batch.device())
    }

    fn fingerprint(&self) -> String {
        self.live.fingerprint()
    }

    fn parameter_count(&self) -> u64 {
        0
    }

    fn weight_bytes(&self) -> u64 {
        0
    }
}

pub(super) fn output(values: Vec<f32>, rows: usize, classes: usize, device: &Device) -> CachedOutput {
    CachedOutput { logits: Tensor::from_data(TensorData::new(values, [rows, classes]), device) }
}

impl<T: Teacher<B>, B> Clone for CachedTeacher<T, B> {
    fn clone(&self) -> Self {
        let Self { live, cache, logits, failed } = self;
        Self { live: live.clone(), cache: cache.clone(), logits: logits.clone(), failed: failed.clone() }
    }
}

impl<T: Teacher<B>, B> fmt::Debug for CachedTeacher<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedTeacher").field("live", &self.live).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// What burn sees of it is the live teacher.
impl<T: Teacher<B>, B: Keyed> Module for CachedTeacher<T, B> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.live.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with_live(|live| live.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with_live(|live| live.to_device(device))
    }

    fn materialize(self) -> Self {
        self.with_live(T::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.live.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.with_live(|live| live.map(mapper))
    }

    fn valid(&self) -> Self {
        self.clone().with_live(|live| live.valid())
    }

    fn train(self) -> Self {
        self.with_live(T::train)
    }
}

impl<T: Teacher<B>, B: Keyed> ModuleDisplayDefault for CachedTeacher<T, B> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("Teacher behind a cache of {} views", self.cache.len())).optional()
    }
}

impl<T: Teacher<B>, B: Keyed> ModuleDisplay for CachedTeacher<T, B> {}
