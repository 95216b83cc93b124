use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleStore, SafetensorsStore};

use crate::checkpoint::write_atomically;

/// Writes a module under Burn's own parameter names, in one piece or not at all.
pub(crate) fn safetensors<M: Module>(module: &M, path: &Path) -> Result<(), String> {
    let mut store = SafetensorsStore::from_bytes(None);
    store.collect_from(module).map_err(|error| error.to_string())?;
    let bytes = store.get_bytes().map_err(|error| error.to_string())?;
    write_atomically(path, &bytes).map_err(|error| error.to_string())
}
