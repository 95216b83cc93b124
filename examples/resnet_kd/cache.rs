//! The teacher's logits, kept on disk.

use std::sync::Arc;

use anyhow::{Result, bail};
use burn_distill::models::{Frozen, Teacher};
use burn_distill::train::{CacheCounts, CacheIdentity, TeacherCache};
use burn_distill::vision::{ImageBatch, ResNet};

use crate::args::Args;
use crate::data::Images;

/// The cache of `--teacher-cache`, which serves the methods that compare logits alone.
pub(crate) fn open(args: &Args, images: &Images, teacher: &ResNet) -> Result<Option<Arc<TeacherCache>>> {
    let Some(folder) = &args.teacher_cache else { return Ok(None) };
    if let Some(method) = args.loss.iter().find(|method| !method.needs_logits_only()) {
        bail!(
            "`--teacher-cache` holds the teacher's logits, and {} compares its features: leave the method out of \
             `--loss`, or the cache",
            method.name()
        );
    }
    let teacher = Teacher::<ImageBatch>::fingerprint(&Frozen::new(teacher.clone()));
    let identity = CacheIdentity { teacher, dataset: images.identity()?, classes: images.classes() };
    Ok(Some(Arc::new(TeacherCache::open_for(folder, identity)?)))
}

/// Writes what is still in memory, and says how often the teacher was asked.
pub(crate) fn finish(cache: &TeacherCache) -> Result<()> {
    cache.finish()?;
    let CacheCounts { asked, cached } = cache.counts();
    println!("\n{}: {cached} rows came from the cache, {asked} were asked of the teacher", cache.folder().display());
    Ok(())
}
