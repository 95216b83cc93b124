//! Writing one part.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::{FixedSizeListArray, Float32Array, RecordBatch, UInt32Array, UInt64Array};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::Schema;
use burn_distill_models::ViewKey;

use super::error::{Result, arrow, io};
use super::identity::{CacheIdentity, item};
use super::part::checksum;

/// A whole part.
pub(super) const WHOLE: &str = "arrow";
/// A part that a process is writing, or was when it ended. Its writer holds the lock on it.
pub(super) const OPEN: &str = "open";

/// How many parts this process began: each has a name of its own, also after one that is finished.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// An Arrow IPC file that grows by whole record batches and gets its footer and its name at the end.
pub(super) struct Writer {
    writer: FileWriter<BufWriter<File>>,
    schema: Arc<Schema>,
    classes: usize,
    path: PathBuf,
}

impl Writer {
    /// A part of this process alone, under a name that no other has; its header is in the file.
    pub(super) fn create(folder: &Path, identity: &CacheIdentity) -> Result<Self> {
        let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        loop {
            let count = PARTS.fetch_add(1, Ordering::Relaxed);
            let name = format!("part-{milliseconds:013}-{}-{count}.{OPEN}", std::process::id());
            let path = folder.join(name);
            if path.with_extension(WHOLE).exists() {
                continue; // of another machine
            }
            match File::create_new(&path) {
                Ok(file) => {
                    // Between the two lines another process may have taken it for the part of one that ended.
                    let locked = file.lock();
                    if !path.exists() {
                        continue;
                    }
                    if let Err(error) = locked {
                        log::debug!("{}: no lock: {error}", path.display());
                    }
                    return Self::begin(file, path, identity);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(&path)(error)),
            }
        }
    }

    /// A part at this path, which is overwritten.
    pub(super) fn replace(path: &Path, identity: &CacheIdentity) -> Result<Self> {
        Self::begin(File::create(path).map_err(io(path))?, path.into(), identity)
    }

    fn begin(file: File, path: PathBuf, identity: &CacheIdentity) -> Result<Self> {
        let schema = identity.schema();
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).map_err(arrow(&path))?;
        let writer = FileWriter::try_new_with_options(BufWriter::new(file), &schema, options);
        let mut writer = writer.map_err(arrow(&path))?;
        writer.flush().map_err(arrow(&path))?;
        Ok(Self { writer, schema: Arc::new(schema), classes: identity.classes, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends rows and hands them to the system: after it, a killed process loses none of them.
    pub(super) fn write(&mut self, keys: &[ViewKey], logits: &[f32]) -> Result<()> {
        let column = |read: fn(&ViewKey) -> u64| Arc::new(UInt64Array::from_iter_values(keys.iter().map(read)));
        let checksums = keys.iter().zip(logits.chunks_exact(self.classes)).map(|(key, row)| checksum(key, row));
        let checksums = UInt32Array::from_iter_values(checksums);
        let values = Arc::new(Float32Array::from(logits.to_vec()));
        let lists = FixedSizeListArray::try_new(item(), self.classes as i32, values, None);
        let lists = lists.map_err(arrow(&self.path))?;
        let batch = RecordBatch::try_new(
            self.schema.clone(),
            vec![
                column(|key| key.dataset),
                column(|key| key.sample),
                column(|key| key.view),
                Arc::new(checksums),
                Arc::new(lists),
            ],
        );
        let batch = batch.map_err(arrow(&self.path))?;
        self.writer.write(&batch).and_then(|()| self.writer.flush()).map_err(arrow(&self.path))
    }

    /// Writes the footer, makes the part durable and gives it the name of a whole one.
    pub(super) fn finish(self) -> Result<PathBuf> {
        let Self { writer, path, .. } = self;
        let buffered = writer.into_inner().map_err(arrow(&path))?;
        let file = buffered.into_inner().map_err(|error| io(&path)(error.into_error()))?;
        file.sync_all().map_err(io(&path))?;
        let whole = path.with_extension(WHOLE);
        fs::rename(&path, &whole).map_err(io(&path))?;
        Ok(whole)
    }
}
