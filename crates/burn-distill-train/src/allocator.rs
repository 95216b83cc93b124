/// Lets the allocator keep the memory of freed tensors for the next ones, instead of giving large buffers back to the
/// system and faulting fresh ones in, page by page, at every step. To be called first in `main` of a program that trains
/// on a CPU; `false` where it does nothing: it is for glibc, the C library of most Linux programs.
///
/// The process then stays as large as it ever was. A training step of a ResNet pair on `flex` took 12 to 18 % less time
/// (`docs/performance.md`). What it sets, the environment can set as well:
/// `MALLOC_MMAP_THRESHOLD_=2147483647 MALLOC_TRIM_THRESHOLD_=2147483647`. Another allocator, such as mimalloc, is another
/// way.
///
/// ```
/// let kept = burn_distill_train::keep_freed_memory();
/// assert_eq!(kept, cfg!(all(target_os = "linux", target_env = "gnu")));
/// ```
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no safe binding")]
        // SAFETY: it sets two numbers of the allocator, under its lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, i32::MAX) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
