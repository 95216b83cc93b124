/// What the process held in physical memory while a piece of work ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakMemory {
    /// Resident before the work began, in bytes.
    pub before_bytes: u64,
    /// The most that was resident until the work ended, in bytes.
    pub peak_bytes: u64,
}

impl PeakMemory {
    /// What the work added, in bytes.
    ///
    /// A lower bound: memory that the process had freed but not returned to the system is used again unseen. For
    /// numbers to compare, measure each model in a process of its own, with loading it inside the work.
    pub fn growth_bytes(&self) -> u64 {
        self.peak_bytes.saturating_sub(self.before_bytes)
    }
}

/// Runs `work` and tells the peak of the resident memory of the whole process meanwhile.
///
/// Measured by the Linux kernel (`VmHWM`, reset through `/proc/self/clear_refs`), so allocations of every thread and
/// library count, device memory does not. `None` on other systems and where the kernel does not allow the reset.
///
/// Two calls at the same time in one process disturb each other.
///
/// ```
/// let (sum, memory) = burn_distill_eval::peak_memory(|| vec![1u8; 1 << 20].iter().map(|&byte| byte as u64).sum::<u64>());
/// assert_eq!(sum, 1 << 20);
/// if let Some(memory) = memory {
///     assert!(memory.peak_bytes >= 1 << 20);
/// }
/// ```
pub fn peak_memory<T>(work: impl FnOnce() -> T) -> (T, Option<PeakMemory>) {
    let before_bytes = reset_peak().and_then(|()| status_bytes("VmRSS:"));
    let value = work();
    let memory =
        before_bytes.and_then(|before_bytes| Some(PeakMemory { before_bytes, peak_bytes: status_bytes("VmHWM:")? }));
    (value, memory)
}

/// Lowers the recorded peak to what is resident now.
fn reset_peak() -> Option<()> {
    if cfg!(target_os = "linux") { std::fs::write("/proc/self/clear_refs", "5").ok() } else { None }
}

fn status_bytes(field: &str) -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?, field)
}

fn parse_status(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_in_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t      12 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(parse_status(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(parse_status(status, "VmSwap:"), None);
    }
}
