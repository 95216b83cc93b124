use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Bytes;
use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CheckpointError, RunIdentity};

const FORMAT: u32 = 1;
const PARTS: [&str; 3] = ["model", "optimizer", "schedules"];

/// What `epoch-0007.json` holds. A checkpoint without it does not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) epoch: usize,
    pub(crate) step: usize,
    #[serde(default)]
    pub(crate) skipped_batches: usize,
    #[serde(flatten)]
    identity: RunIdentity,
    files: BTreeMap<String, Part>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    file: String,
    size: u64,
    sha256: String,
}

/// The checkpoints of one run, in one folder.
#[derive(Debug)]
pub(crate) struct CheckpointStore {
    folder: PathBuf,
    identity: RunIdentity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Epochs whose parts are being written.
    pending: BTreeMap<usize, Pending>,
}

/// A checkpoint on its way.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    step: usize,
    skipped_batches: usize,
    /// How many of the last epochs stay when this one is whole, itself among them, and which one beside them. Others
    /// go then and not before, so that a kill in between loses none.
    keep: usize,
    best: Option<usize>,
    files: BTreeMap<String, Part>,
}

impl Pending {
    pub(crate) fn new(step: usize, skipped_batches: usize, keep: usize, best: Option<usize>) -> Self {
        Self { step, skipped_batches, keep, best, files: BTreeMap::new() }
    }
}

impl CheckpointStore {
    pub(crate) fn open(folder: PathBuf, identity: RunIdentity) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        Ok(Self { folder, identity, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manifest_path(&self, epoch: usize) -> PathBuf {
        self.folder.join(format!("epoch-{epoch:04}.json"))
    }

    fn part_path(&self, epoch: usize, part: &str) -> PathBuf {
        self.folder.join(format!("epoch-{epoch:04}-{part}.bpk"))
    }

    /// The epochs whose checkpoints are whole, in order.
    pub(crate) fn epochs(&self) -> Result<Vec<usize>, CheckpointError> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io(&self.folder))? {
            let name = entry.map_err(io(&self.folder))?.file_name();
            let epoch = name
                .to_str()
                .and_then(|name| name.strip_prefix("epoch-")?.strip_suffix(".json")?.parse::<usize>().ok());
            epochs.extend(epoch);
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Reads a manifest and checks that it belongs to this run and that its files are whole.
    pub(crate) fn verify(&self, epoch: usize) -> Result<Manifest, CheckpointError> {
        let manifest = self.manifest(epoch)?;
        self.identity.check(&manifest.identity, &self.manifest_path(epoch))?;
        for part in manifest.files.values() {
            self.read(part)?;
        }
        Ok(manifest)
    }

    fn manifest(&self, epoch: usize) -> Result<Manifest, CheckpointError> {
        let path = self.manifest_path(epoch);
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let invalid = |message: String| CheckpointError::Manifest { path: path.clone(), message };
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(invalid(format!("`format` is {}, this version reads {FORMAT}", manifest.format)));
        }
        match PARTS.iter().find(|part| !manifest.files.contains_key(**part)) {
            Some(part) => Err(invalid(format!("`files.{part}` is missing"))),
            None => Ok(manifest),
        }
    }

    fn read(&self, part: &Part) -> Result<Vec<u8>, CheckpointError> {
        let path = self.folder.join(&part.file);
        let bytes = fs::read(&path).map_err(io(&path))?;
        let damaged = |field, expected: &dyn ToString, found: &dyn ToString| CheckpointError::Damaged {
            path: path.clone(),
            field,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        if bytes.len() as u64 != part.size {
            return Err(damaged("size", &part.size, &bytes.len()));
        }
        match sha256(&bytes) {
            hash if hash == part.sha256 => Ok(bytes),
            hash => Err(damaged("sha256", &part.sha256, &hash)),
        }
    }

    /// One part of a whole checkpoint.
    pub(crate) fn load<R: Checkpoint>(&self, epoch: usize, part: &'static str) -> Result<R, CheckpointError> {
        let manifest = self.manifest(epoch)?;
        let bytes = self.read(&manifest.files[part])?;
        R::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|error| CheckpointError::OtherModel {
            path: self.part_path(epoch, part),
            part,
            message: error.to_string(),
        })
    }

    /// Announces that the parts of an epoch will come.
    pub(crate) fn begin(&self, epoch: usize, checkpoint: Pending) {
        self.state().pending.insert(epoch, checkpoint);
    }

    fn save(&self, epoch: usize, part: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.part_path(epoch, part);
        write_atomically(&path, bytes).map_err(io(&path))?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let saved = Part { file, size: bytes.len() as u64, sha256: sha256(bytes) };
        let mut state = self.state();
        let mut pending = state.pending.remove(&epoch).unwrap_or_default();
        pending.files.insert(part.to_string(), saved);
        if pending.files.len() < PARTS.len() {
            state.pending.insert(epoch, pending);
            return Ok(());
        }
        let Pending { step, skipped_batches, keep, best, files } = pending;
        let identity = self.identity.clone();
        let manifest = Manifest { format: FORMAT, epoch, step, skipped_batches, identity, files };
        let path = self.manifest_path(epoch);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| CheckpointError::Manifest { path: path.clone(), message: error.to_string() })?;
        write_atomically(&path, &text).map_err(io(&path))?;
        let old = self.epochs()?.into_iter().filter(|old| old + keep <= epoch && Some(*old) != best);
        old.into_iter().try_for_each(|old| self.remove(old))
    }

    /// Deletes what a killed run left: files of checkpoints that have no manifest, and halves of files.
    pub(crate) fn sweep(&self) -> Result<(), CheckpointError> {
        let whole: BTreeSet<_> = self.epochs()?.into_iter().collect();
        for entry in fs::read_dir(&self.folder).map_err(io(&self.folder))? {
            let path = entry.map_err(io(&self.folder))?.path();
            let Some(epoch) = epoch_of(&path) else { continue };
            let is_half = path.extension().is_some_and(|extension| extension == "partial");
            if is_half || !whole.contains(&epoch) {
                remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(())
    }

    /// Deletes every checkpoint, and nothing else.
    pub(crate) fn clear(&self) -> Result<(), CheckpointError> {
        self.epochs()?.into_iter().try_for_each(|epoch| self.remove(epoch))?;
        self.sweep()
    }

    /// Deletes a checkpoint, manifest first, so that what is left of it does not count.
    pub(crate) fn remove(&self, epoch: usize) -> Result<(), CheckpointError> {
        let parts = PARTS.iter().map(|part| self.part_path(epoch, part));
        for path in std::iter::once(self.manifest_path(epoch)).chain(parts) {
            remove_file(&path).map_err(io(&path))?;
        }
        Ok(())
    }
}

/// The epoch of a file of a checkpoint: `epoch-0007.json`, `epoch-0007-model.bpk`, `epoch-0007-model.partial`.
fn epoch_of(path: &Path) -> Option<usize> {
    let (stem, extension) = path.file_name()?.to_str()?.strip_prefix("epoch-")?.split_once('.')?;
    let (epoch, part) = stem.split_once('-').unwrap_or((stem, ""));
    let is_ours = match extension {
        "json" => part.is_empty(),
        "bpk" => PARTS.contains(&part),
        "partial" => part.is_empty() || PARTS.contains(&part),
        _ => false,
    };
    is_ours.then(|| epoch.parse().ok()).flatten()
}

/// Deletes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One part's side of a [`CheckpointStore`], as burn-train wants it.
pub(crate) struct PartCheckpointer {
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) part: &'static str,
}

impl PartCheckpointer {
    /// For the model, the optimiser and the schedules, in burn-train's order.
    pub(crate) fn all(store: &Arc<CheckpointStore>) -> [Self; 3] {
        PARTS.map(|part| Self { store: store.clone(), part })
    }
}

impl<R: Checkpoint> Checkpointer<R> for PartCheckpointer {
    fn save(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let bytes = record.checkpoint_into_bytes().map_err(CheckpointerError::Record)?;
        self.store.save(epoch, self.part, &bytes).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        self.store.remove(epoch).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        self.store.load(epoch, self.part).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }
}

/// Writes under another name, makes it durable, and renames: a reader sees the old file or the whole new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("partial");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The new name must outlive a power failure too, where a folder can be opened for that.
    match path.parent().map(File::open) {
        Some(Ok(folder)) if cfg!(unix) => folder.sync_all(),
        _ => Ok(()),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module;
    use burn::nn::LinearConfig;
    use burn::store::ModuleRecord;
    use burn::tensor::Device;
    use serde_json::json;

    fn store(folder: &Path) -> Arc<CheckpointStore> {
        let identity = RunIdentity { config: json!({ "seed": 1 }), teacher: "t".into() };
        Arc::new(CheckpointStore::open(folder.into(), identity).unwrap())
    }

    fn record() -> ModuleRecord {
        LinearConfig::new(2, 2).init(&Device::flex()).into_record()
    }

    fn save(store: &Arc<CheckpointStore>, epoch: usize, parts: usize) {
        replace(store, epoch, parts, 100);
    }

    fn replace(store: &Arc<CheckpointStore>, epoch: usize, parts: usize, keep: usize) {
        store.begin(epoch, Pending::new(10 * epoch, 0, keep, None));
        for checkpointer in PartCheckpointer::all(store).into_iter().take(parts) {
            checkpointer.save(epoch, record()).unwrap();
        }
    }

    #[test]
    fn a_checkpoint_exists_only_when_all_parts_do() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        save(&store, 1, 3);
        save(&store, 2, 2); // killed before the last part
        assert_eq!(store.epochs().unwrap(), [1]);
        assert_eq!(store.verify(1).unwrap().step, 10);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        save(&store, 1, 3);
        save(&store, 2, 2);
        for name in ["epoch-0001.partial", "epoch-0003-model.partial", "epoch-0002-notes.txt", "epoch-0002-plot.bpk"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        store.sweep().unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let parts = ["epoch-0001-model.bpk", "epoch-0001-optimizer.bpk", "epoch-0001-schedules.bpk", "epoch-0001.json"];
        assert_eq!(left, [&parts[..], &["epoch-0002-notes.txt", "epoch-0002-plot.bpk"]].concat());
        assert!(store.verify(1).is_ok());
        store.clear().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_old_checkpoint_goes_only_when_a_newer_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        save(&store, 1, 3);
        replace(&store, 2, 2, 1);
        assert_eq!(store.epochs().unwrap(), [1]);
        replace(&store, 2, 3, 1);
        assert_eq!(store.epochs().unwrap(), [2]);
    }

    #[test]
    fn a_truncated_and_an_altered_file_are_refused_by_field() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        save(&store, 1, 3);
        let path = store.part_path(1, "optimizer");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = store.verify(1).unwrap_err().to_string();
        assert!(error.contains("epoch-0001-optimizer.bpk: `size` is"), "{error}");
        let mut altered = bytes.clone();
        altered[20] ^= 1;
        fs::write(&path, altered).unwrap();
        assert!(store.verify(1).unwrap_err().to_string().contains("`sha256` is"));
        fs::remove_file(&path).unwrap();
        assert!(store.verify(1).unwrap_err().to_string().contains("epoch-0001-optimizer.bpk"));
    }

    #[test]
    fn a_manifest_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        save(&store, 1, 3);
        let path = store.manifest_path(1);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(store.verify(1).unwrap_err().to_string().contains("not a checkpoint manifest"));
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
        assert!(store.verify(1).unwrap_err().to_string().contains("`format` is 9, this version reads 1"));
    }
}
