use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_distill_models::ViewKey;

use super::error::{Result, TeacherCacheError, io};
use super::folder::{adopt, begin, parts, torn};
use super::identity::CacheIdentity;
use super::part::{End, Part, Row};
use super::writer::{OPEN, WHOLE, Writer};

/// A teacher's logits on disk, found by sample and view.
///
/// A cache is a folder of parts, each an Arrow IPC file (`part-*.arrow`) with the columns `dataset`, `sample`, `view`,
/// `crc32` and `logits` (f32, one per class, not divided by a temperature). In memory are the keys and
/// places alone, 40 bytes a row beside the gaps of a hash table; logits are read from the file when they are asked for,
/// and compared with their checksum.
///
/// A process that writes has a part of its own (`part-*.open`, locked), to which each [`append`](Self::append) adds one
/// record batch; [`finish`](Self::finish), or the end of the cache's life, gives it a footer and the name of a whole
/// one. So several processes may read and write one folder at a time. What a killed process left is made a whole part
/// by the next one that opens the folder for writing; a record batch that is torn, or a row whose checksum is wrong,
/// is left out with a warning in the log, and the teacher is asked again.
///
/// Where two parts hold one view, because two processes met it at the same time, the one that was begun first counts.
///
/// ```
/// use burn_distill_models::ViewKey;
/// use burn_distill_train::{CacheIdentity, TeacherCache};
///
/// # let folder = tempfile::tempdir()?;
/// let identity = CacheIdentity { teacher: "a1b2".into(), dataset: "my images, flipped".into(), classes: 2 };
/// let cache = TeacherCache::open_for(folder.path(), identity.clone())?;
/// let keys = [7, 8].map(|sample| ViewKey { dataset: 0, sample, view: 42 });
/// cache.append(&keys, &[0.5, -0.5, 2.0, 1.0])?;
/// drop(cache);
///
/// let cache = TeacherCache::open(folder.path())?; // no teacher needed
/// assert_eq!(cache.identity(), &identity);
/// assert_eq!(cache.get(&keys[1])?, Some(vec![2.0, 1.0]));
///
/// let other = CacheIdentity { classes: 3, ..identity };
/// let error = TeacherCache::open_for(folder.path(), other).unwrap_err().to_string();
/// assert!(error.contains("`classes` is `2`, expected `3`"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TeacherCache {
    folder: PathBuf,
    identity: CacheIdentity,
    writable: bool,
    state: Mutex<State>,
    cached: AtomicU64,
    asked: AtomicU64,
}

/// How many rows of the batches so far came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Rows that were read.
    pub cached: u64,
    /// Rows that were not there, for which the live teacher was asked.
    pub asked: u64,
}

/// Which part holds a row, and what else is known of it beside its key.
#[derive(Clone, Copy)]
struct Place {
    part: u32,
    crc: u32,
    offset: u64,
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    index: HashMap<ViewKey, Place>,
    /// The part of this process, and its place among `parts`.
    writer: Option<(Writer, u32)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("parts", &self.parts.len()).field("rows", &self.index.len()).finish()
    }
}

impl State {
    /// Indexes the rows of a part from where it was read to; gives how many are new.
    fn index(&mut self, part: u32, classes: usize) -> Result<usize> {
        let before = self.index.len();
        while let Some(rows) = self.parts[part as usize].next_rows(classes)? {
            for Row { key, crc, offset } in rows {
                self.index.entry(key).or_insert(Place { part, crc, offset });
            }
        }
        Ok(self.index.len() - before)
    }
}

impl TeacherCache {
    /// Opens a cache to read it, with no expectation about what it was made from; nothing in the folder changes.
    ///
    /// # Errors
    /// When the folder has no part with a whole header, parts differ in their identity, or one is no part of a cache of
    /// this version.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::read(folder.as_ref(), None)
    }

    /// Opens a cache of this identity to read and extend it, or begins one; the folder is made if it is not there.
    ///
    /// # Errors
    /// [`TeacherCacheError::Mismatch`] with the first field in which a part differs from `identity`; a file that is no
    /// part of a cache; a failure of the disk.
    pub fn open_for(folder: impl AsRef<Path>, identity: CacheIdentity) -> Result<Self> {
        identity.validate()?;
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(io(folder))?;
        for path in parts(folder, &[OPEN])? {
            adopt(&path, &identity)?;
        }
        Self::read(folder, Some(identity))
    }

    fn read(folder: &Path, expected: Option<CacheIdentity>) -> Result<Self> {
        let (writable, mut identity) = (expected.is_some(), expected);
        let mut state = State::default();
        for path in parts(folder, &[WHOLE, OPEN])? {
            let Some((part, schema)) = begin(&path)? else { continue };
            match &identity {
                Some(identity) => identity.check(&schema, &path)?,
                None => identity = Some(CacheIdentity::of_schema(&schema, &path)?),
            }
            let classes = identity.as_ref().map_or(0, |identity| identity.classes);
            state.parts.push(part);
            let part = state.parts.len() as u32 - 1;
            let is_whole = path.extension().is_some_and(|extension| extension == WHOLE);
            state.index(part, classes).or_else(|error| torn(error, is_whole))?;
            if let (End::Torn { bytes }, true) = (state.parts[part as usize].end()?, is_whole) {
                log::warn!("{}: torn; {bytes} bytes at its end belong to no whole record batch", path.display());
            }
        }
        let identity = identity.ok_or_else(|| TeacherCacheError::Empty { path: folder.into() })?;
        let (state, cached, asked) = (Mutex::new(state), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { folder: folder.into(), identity, writable, state, cached, asked })
    }

    /// What the cache was made from.
    pub fn identity(&self) -> &CacheIdentity {
        &self.identity
    }

    /// The folder of its parts.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was opened to be extended.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The number of different views.
    pub fn len(&self) -> usize {
        self.state().index.len()
    }

    /// Whether there is no view.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The logits of a view, `[classes]`; `None` if it is not there, or damaged (a warning in the log says so).
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn get(&self, key: &ViewKey) -> Result<Option<Vec<f32>>> {
        let mut state = self.state();
        let Some(Place { part, crc, offset }) = state.index.get(key).copied() else { return Ok(None) };
        let row = Row { key: *key, crc, offset };
        let logits = state.parts[part as usize].logits(&row, self.identity.classes)?;
        if logits.is_none() {
            log::warn!("{}: the logits of {key:?} are damaged; they are asked for again", self.folder.display());
            state.index.remove(key);
        }
        Ok(logits)
    }

    /// Adds views that are not there yet, and gives how many were new. `logits` is `[keys, classes]`, row by row. When
    /// it returns, a kill of the process loses none of them; a power cut may, until [`finish`](Self::finish).
    ///
    /// # Errors
    /// A cache that was opened by [`open`](Self::open), or a failure of the disk.
    ///
    /// # Panics
    /// When `logits` has another length.
    pub fn append(&self, keys: &[ViewKey], logits: &[f32]) -> Result<usize> {
        let classes = self.identity.classes;
        assert_eq!(logits.len(), keys.len() * classes, "`logits` must be [keys, classes]");
        if !self.writable {
            let given = "one that was opened by `TeacherCache::open`".to_string();
            return Err(TeacherCacheError::Setting { field: "cache", allowed: "one to be extended", given });
        }
        let mut state = self.state();
        let mut new: HashMap<ViewKey, &[f32]> = HashMap::new();
        let mut order = Vec::new();
        for (key, row) in keys.iter().zip(logits.chunks_exact(classes)) {
            if !state.index.contains_key(key) && !new.contains_key(key) {
                new.insert(*key, row);
                order.push(*key);
            }
        }
        if order.is_empty() {
            return Ok(0);
        }
        let rows: Vec<f32> = order.iter().flat_map(|key| new[key]).copied().collect();
        // A part that could not be written to is left as it is; the next rows begin another.
        let (mut writer, part) = match state.writer.take() {
            Some(writer) => writer,
            None => {
                let writer = Writer::create(&self.folder, &self.identity)?;
                let mut part = Part::open(writer.path())?;
                part.schema()?;
                state.parts.push(part);
                (writer, state.parts.len() as u32 - 1)
            }
        };
        writer.write(&order, &rows)?;
        state.writer = Some((writer, part));
        state.index(part, classes)
    }

    /// Makes what this process added a whole part, durable, which every Arrow reader can open. The next
    /// [`append`](Self::append) begins another.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn finish(&self) -> Result<()> {
        let writer = self.state().writer.take();
        writer.map_or(Ok(()), |(writer, _)| writer.finish().map(drop))
    }

    /// How many rows the teachers of this cache were asked for since it was opened.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts { cached: self.cached.load(Ordering::Relaxed), asked: self.asked.load(Ordering::Relaxed) }
    }

    pub(super) fn count(&self, cached: usize, asked: usize) {
        self.cached.fetch_add(cached as u64, Ordering::Relaxed);
        self.asked.fetch_add(asked as u64, Ordering::Relaxed);
    }

    /// A thread that panicked with the lock leaves an index that holds what the files do, or less.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TeacherCache {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            log::warn!("a part of the teacher cache is not finished: {error}");
        }
    }
}
