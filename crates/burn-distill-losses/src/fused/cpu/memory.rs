//! Pages of large buffers.

/// Asks for huge pages under a large buffer that is written next for the first time. On Linux a fault for each page of
/// 4 KiB, and giving them back, takes longer than the kernel.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "there is no safe binding")]
pub(super) fn prefer_huge_pages<T>(buffer: &mut [T]) {
    const HUGE: usize = 2 << 20;
    let range = buffer.as_mut_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(HUGE), range.end as usize / HUGE * HUGE);
    // A few of them are not worth the call.
    if end > start + 4 * HUGE {
        // SAFETY: the pages are within `buffer`, and the advice does not change what they hold. Where the kernel does not
        // take it, nothing happens.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn prefer_huge_pages<T>(_: &mut [T]) {}
