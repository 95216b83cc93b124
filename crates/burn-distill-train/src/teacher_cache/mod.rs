//! A teacher's answers on disk: written while the teacher is asked, read when a view comes again.

mod cache;
mod cached;
mod error;
mod folder;
mod identity;
mod offline;
mod part;
#[cfg(test)]
mod tests;
mod writer;

pub use cache::{CacheCounts, TeacherCache};
pub use cached::{CachedOutput, CachedTeacher};
pub use error::TeacherCacheError;
pub use identity::CacheIdentity;
pub use offline::OfflineTeacher;
