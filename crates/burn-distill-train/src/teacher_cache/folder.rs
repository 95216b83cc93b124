//! The parts of a folder: finding them, beginning to read them, and finishing those whose process has ended.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use arrow_schema::Schema;

use super::error::{Result, TeacherCacheError, io};
use super::identity::CacheIdentity;
use super::part::{End, Part};
use super::writer::{WHOLE, Writer};

/// A part and its schema; `None` where the schema is torn, or the part is gone.
pub(super) fn begin(path: &Path) -> Result<Option<(Part, Schema)>> {
    let mut part = match Part::open(path) {
        // Its writer, or another process, has just made it a whole one.
        Err(TeacherCacheError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            match Part::open(&path.with_extension(WHOLE)) {
                Err(TeacherCacheError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
                part => part?,
            }
        }
        part => part?,
    };
    let is_whole = path.extension().is_some_and(|extension| extension == WHOLE);
    let schema = part.schema().or_else(|error| torn(error, is_whole).map(|_| None))?;
    if schema.is_none() {
        log::warn!("{}: the header is torn; no row is read from it", path.display());
    }
    Ok(schema.map(|schema| (part, schema)))
}

/// In a part that was not finished, what a power cut left may be anything: it ends where it makes no sense.
pub(super) fn torn(error: TeacherCacheError, is_whole: bool) -> Result<usize> {
    match error {
        TeacherCacheError::Format { path, message } if !is_whole => {
            log::warn!("{}: {message}; nothing is read from there on", path.display());
            Ok(0)
        }
        error => Err(error),
    }
}

/// The parts with these extensions, by name, which begins with the time they were begun at.
pub(super) fn parts(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("part-")
            && path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
        {
            paths.push(path);
        }
    }
    paths.sort_by_key(|path| path.with_extension(""));
    Ok(paths)
}

/// Makes the open part of a process that has ended a whole one; one that is still being written stays as it is.
pub(super) fn adopt(path: &Path, identity: &CacheIdentity) -> Result<()> {
    let lock = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(path)(error)),
    };
    if lock.try_lock().is_err() || !path.exists() {
        return Ok(()); // its writer is alive, or another process was faster
    }
    let (mut kept, mut damaged, mut bytes) = (0, 0, 0);
    if let Some((mut part, schema)) = begin(path)? {
        identity.check(&schema, path)?;
        let mut whole = Writer::replace(&path.with_extension("partial"), identity)?;
        while let Some(rows) = part.next_rows(identity.classes).or_else(|error| torn(error, false).map(|_| None))? {
            let (mut keys, mut logits) = (Vec::new(), Vec::new());
            for row in rows {
                match part.logits(&row, identity.classes)? {
                    Some(values) => {
                        keys.push(row.key);
                        logits.extend(values);
                    }
                    None => damaged += 1,
                }
            }
            whole.write(&keys, &logits)?;
            kept += keys.len();
        }
        whole.finish()?;
        if let End::Torn { bytes: torn } = part.end()? {
            bytes = torn;
        }
    }
    log::warn!(
        "{}: its process has ended; {kept} rows are kept, {damaged} are damaged, and {bytes} bytes at the end belong to \
         no whole record batch",
        path.display()
    );
    fs::remove_file(path).map_err(io(path))
}
