use std::sync::Arc;

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;
use burn_distill_models::{Keyed, Teacher};

use super::cache::TeacherCache;
use super::cached::{CachedOutput, output};

/// A cache alone as the teacher: no model is loaded, and every view must be there.
///
/// Its [`fingerprint`](Teacher::fingerprint) is that of the teacher that wrote the cache, so that a run begun with the
/// live teacher goes on without it.
///
/// # Panics
/// [`Teacher::forward`] when a view is not in the cache or cannot be read, with a message that names the sample and the
/// view.
#[derive(Clone, Debug)]
pub struct OfflineTeacher {
    cache: Arc<TeacherCache>,
}

impl OfflineTeacher {
    /// Teaches what the cache holds.
    pub fn new(cache: Arc<TeacherCache>) -> Self {
        Self { cache }
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<TeacherCache> {
        &self.cache
    }
}

impl<B: Keyed> Teacher<B> for OfflineTeacher {
    type Output = CachedOutput;

    fn forward(&self, batch: &B) -> CachedOutput {
        let (keys, classes) = (batch.keys(), self.cache.identity().classes);
        let mut values = Vec::with_capacity(keys.len() * classes);
        for key in &keys {
            let folder = self.cache.folder().display();
            match self.cache.get(key) {
                Ok(Some(row)) => values.extend(row),
                Ok(None) => panic!(
                    "the teacher cache {folder} has no answer to sample {}, view {} of data set {:016x}: let the live \
                     teacher see the same views first (`CachedTeacher`; same seed, and at least as many epochs)",
                    key.sample, key.view, key.dataset
                ),
                Err(error) => panic!("sample {}, view {}: {error}", key.sample, key.view),
            }
        }
        self.cache.count(keys.len(), 0);
        output(values, keys.len(), classes, &batch.device())
    }

    fn fingerprint(&self) -> String {
        self.cache.identity().teacher.clone()
    }
}

/// Nothing that burn would see.
impl Module for OfflineTeacher {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        self
    }

    fn to_device(self, _device: &Device) -> Self {
        self
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<Mapper: ModuleMapper>(self, _mapper: &mut Mapper) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}

impl ModuleDisplayDefault for OfflineTeacher {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("A cache of {} views", self.cache.len())).optional()
    }
}

impl ModuleDisplay for OfflineTeacher {}
