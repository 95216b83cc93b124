//! Alone in its process, as the resident memory of a process belongs to all its threads.

use burn_distill_eval::peak_memory;

const MIB: u64 = 1 << 20;

#[test]
#[cfg(target_os = "linux")]
fn a_peak_is_seen_after_it_is_over_and_forgotten_by_the_next() {
    let allocate = |mib: u64| {
        let block = vec![1u8; (mib * MIB) as usize];
        block.iter().map(|&byte| u64::from(byte)).sum::<u64>()
    };
    let (sum, memory) = peak_memory(|| allocate(128));
    assert_eq!(sum, 128 * MIB);
    let large = memory.expect("Linux tells the peak");
    assert!((120 * MIB..200 * MIB).contains(&large.growth_bytes()), "{large:?}");
    assert!(large.peak_bytes >= large.before_bytes + 120 * MIB);

    let (_, memory) = peak_memory(|| allocate(32));
    let small = memory.expect("Linux tells the peak");
    assert!(small.growth_bytes() < 64 * MIB, "the first peak must not leak into the second: {small:?}");
}
