use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleStore, SafetensorsStore};

/// Writes a module under Burn's own parameter names, in one piece or not at all.
pub(crate) fn safetensors<M: Module>(module: &M, path: &Path) -> Result<(), String> {
    let temporary = path.with_extension("partial");
    let mut store = SafetensorsStore::from_file(&temporary).overwrite(true).validate(true);
    store.collect_from(module).map_err(|error| error.to_string())?;
    std::fs::rename(&temporary, path).map_err(|error| error.to_string())
}
