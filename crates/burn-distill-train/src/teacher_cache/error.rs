use std::path::{Path, PathBuf};

/// Why a teacher cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeacherCacheError {
    /// What a file holds, or was made for, is something else than what was asked for.
    #[error("{}: `{field}` is {found}, expected {expected}; use another folder, or delete this one", path.display())]
    Mismatch {
        /// The file, or the folder.
        path: PathBuf,
        /// The field of the schema or its metadata.
        field: String,
        /// What is there.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file is no part of a teacher cache.
    #[error("{}: not a part of a teacher cache: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The folder has no part from which it could be told what the cache holds.
    #[error("{}: no part of a teacher cache, so it cannot be read without a teacher", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The teacher changes during a run, so that an answer of an earlier step is none for a later one.
    #[error("`teacher` must be one that stays as it is, got one that learns ({teacher}); it cannot be cached")]
    Learns {
        /// The teacher's fingerprint.
        teacher: String,
    },
    /// An argument lies outside its range.
    #[error("`{field}` must be {allowed}, got {given}")]
    Setting {
        /// The argument.
        field: &'static str,
        /// The allowed range, in words.
        allowed: &'static str,
        /// What was given.
        given: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Arrow could not encode rows or write them.
    #[error("{}: {source}", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// What Arrow said.
        source: arrow_schema::ArrowError,
    },
}

pub(super) type Result<T> = std::result::Result<T, TeacherCacheError>;

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TeacherCacheError {
    let path = path.to_path_buf();
    move |source| TeacherCacheError::Io { path, source }
}

pub(super) fn arrow(path: &Path) -> impl FnOnce(arrow_schema::ArrowError) -> TeacherCacheError {
    let path = path.to_path_buf();
    move |source| TeacherCacheError::Arrow { path, source }
}
