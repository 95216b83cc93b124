//! One build for every processor of an architecture: the widest instructions are chosen at run time.

use pulp::{Arch, NullaryFnOnce};

/// A loop that LLVM vectorises for whatever it is inlined into.
pub(super) trait Kernel {
    type Output;

    /// `FMA`: whether there is a fused multiply-add instruction. To be marked `#[inline(always)]`.
    fn run<const FMA: bool>(self) -> Self::Output;
}

struct Vectorised<K>(K);

impl<K: Kernel> NullaryFnOnce for Vectorised<K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.0.run::<true>()
    }
}

/// Runs a kernel with AVX-512, AVX2, NEON or what every processor has.
pub(super) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match Arch::new() {
        Arch::Scalar => kernel.run::<false>(),
        #[allow(unreachable_patterns, reason = "some architectures have no other variant")]
        arch => arch.dispatch(Vectorised(kernel)),
    }
}
