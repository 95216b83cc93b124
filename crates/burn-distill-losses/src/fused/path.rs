use std::fmt;

use burn::backend::DispatchDevice;
#[cfg(feature = "libtorch")]
use burn::backend::libtorch::LibTorchDevice;
use burn::tensor::{DType, Device, Tensor};

use super::{
    Fused,
    spec::{Divergence, Spec},
};
use crate::{Tail, TeacherLogits};

/// How a loss on logits is computed for given inputs: what `kernel_path` of a loss gives, and what `forward` takes.
///
/// Each `forward` also writes it to the log, at level debug.
///
/// ```
/// use burn::tensor::{DType, Device, Tensor};
/// use burn_distill_losses::{KdLossConfig, KernelPath};
///
/// let loss = KdLossConfig::new().init()?;
/// let teacher = Tensor::<2>::zeros([2, 3], &Device::flex());
/// let student = Tensor::<2>::ones([2, 3], &Device::flex());
/// assert_eq!(loss.kernel_path(&student, &teacher.clone().into()), KernelPath::Cpu);
/// let path = loss.kernel_path(&student.cast(DType::F64), &teacher.into());
/// assert_eq!(path.to_string(), "composed of tensor operations: kernels compute in f32, the student is in F64");
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelPath {
    /// One pass on the CPU, of `flex` or of `libtorch`: SIMD and several threads.
    Cpu,
    /// One kernel launch on a GPU (wgpu, Vulkan, CUDA), by CubeCL.
    Cube,
    /// Tensor operations, and why no kernel fits.
    Composed(String),
}

impl fmt::Display for KernelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("kernel of the CPU"),
            Self::Cube => f.write_str("kernel by CubeCL"),
            Self::Composed(reason) => write!(f, "composed of tensor operations: {reason}"),
        }
    }
}

/// A backend with kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Cpu,
    Cube,
}

impl Backend {
    fn of(device: &Device) -> Option<Self> {
        match device.clone().without_autodiff().as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => Some(Self::Cpu),
            #[cfg(feature = "libtorch")]
            DispatchDevice::LibTorch(LibTorchDevice::Cpu) => Some(Self::Cpu),
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(_) => Some(Self::Cube),
            #[allow(unreachable_patterns, reason = "which backends there are is decided by features")]
            _ => None,
        }
    }
}

impl From<&Result<Fused, String>> for KernelPath {
    fn from(fused: &Result<Fused, String>) -> Self {
        match fused {
            Ok(fused) => match fused.backend {
                Backend::Cpu => Self::Cpu,
                Backend::Cube => Self::Cube,
            },
            Err(reason) => Self::Composed(reason.clone()),
        }
    }
}

impl Fused {
    /// The kernel for these inputs, or why there is none.
    pub(crate) fn new<const D: usize>(
        student_logits: &Tensor<D>,
        teacher_logits: &TeacherLogits,
        spec: Spec,
    ) -> Result<Self, String> {
        let backend = Backend::of(&student_logits.device()).ok_or("this backend has no kernels")?;
        let dtype = student_logits.dtype();
        let supported = match backend {
            Backend::Cpu => matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            Backend::Cube => dtype == DType::F32,
        };
        if !supported {
            return Err(format!("kernels compute in f32, the student is in {dtype:?}"));
        }
        if !(1e-30..=1e30).contains(&spec.temperature) {
            return Err(format!("temperature {} is beyond f32", spec.temperature));
        }
        match teacher_logits {
            TeacherLogits::Sparse(_) if backend == Backend::Cube => return Err("the teacher is sparse".into()),
            TeacherLogits::Sparse(teacher)
                if teacher.tail() == Tail::Drop && matches!(spec.divergence, Divergence::Decoupled { .. }) =>
            {
                return Err("DKD without the tail".into());
            }
            TeacherLogits::Dense(teacher) if backend == Backend::Cube && teacher.dtype() != DType::F32 => {
                return Err(format!("kernels compute in f32, the teacher is in {:?}", teacher.dtype()));
            }
            _ => {}
        }
        Ok(Self { backend, spec })
    }
}
