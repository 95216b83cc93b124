use std::path::PathBuf;

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file of the checkpoint is missing, too short, or altered.
    #[error("{}: `{field}` is {found}, the manifest says {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs: `size` or `sha256`.
        field: &'static str,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The manifest is not one, or of a format that this version does not read.
    #[error("{}: not a checkpoint manifest of this version: {message}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The checkpoint was written by a run with another configuration.
    #[error(
        "{}: `{field}` is {expected} in the checkpoint and {found} in this run; use the same value, or another folder",
        path.display()
    )]
    OtherConfig {
        /// The manifest.
        path: PathBuf,
        /// The path of the first field that differs.
        field: String,
        /// Its value in the checkpoint.
        expected: String,
        /// Its value in this run.
        found: String,
    },
    /// The checkpoint was written with another teacher.
    #[error(
        "{}: `teacher` is {expected} in the checkpoint and {found} in this run: another teacher, or other weights",
        path.display()
    )]
    OtherTeacher {
        /// The manifest.
        path: PathBuf,
        /// The fingerprint in the checkpoint.
        expected: String,
        /// The fingerprint of this run's teacher.
        found: String,
    },
    /// The records do not fit the student or the objective of this run.
    #[error("{}: `{part}` does not fit this run: {message}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The part.
        part: &'static str,
        /// What Burn says, naming the tensor.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
