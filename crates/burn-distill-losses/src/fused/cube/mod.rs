//! The kernels of wgpu, Vulkan and CUDA, written once in CubeCL.

mod kernel;

use burn::backend::{TensorMetadata, ops::IntTensorOps};
use burn::tensor::{DType, IntDType, Shape};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, ops::numeric::empty_device_dtype, tensor::CubeTensor};
use cubecl::prelude::*;

use self::kernel::{Family, NumbersLaunch, Options, SizesLaunch, rows};
use super::{
    backend::DenseKernel,
    spec::{Divergence, Spec},
};

impl DenseKernel for CubeBackend {
    fn dense_values(
        student: CubeTensor,
        teacher: CubeTensor,
        weights: CubeTensor,
        targets: CubeTensor,
        spec: Spec,
    ) -> CubeTensor {
        launch(student, teacher, weights, targets, spec, false).0
    }

    fn dense_gradient(
        student: CubeTensor,
        teacher: CubeTensor,
        weights: CubeTensor,
        targets: CubeTensor,
        spec: Spec,
    ) -> (CubeTensor, CubeTensor) {
        launch(student, teacher, weights, targets, spec, true)
    }
}

/// The widest cube; a row of a vocabulary keeps all of its units busy.
const UNITS: u32 = 256;
/// WebGPU's limit of cubes along one axis.
const CUBES: u32 = 65_535;

fn launch(
    student: CubeTensor,
    teacher: CubeTensor,
    weights: CubeTensor,
    targets: CubeTensor,
    spec: Spec,
    gradient: bool,
) -> (CubeTensor, CubeTensor) {
    let (student, teacher) = (into_contiguous(student), into_contiguous(teacher));
    let (weights, targets) = (into_contiguous(weights), CubeBackend::int_cast(targets, IntDType::I32));
    let targets = into_contiguous(targets);
    let ([count, width], [_, taught]) = (student.shape().dims(), teacher.shape().dims());
    let (client, device) = (student.client.clone(), student.device.clone());
    let empty = |shape: Shape| empty_device_dtype(client.clone(), device.clone(), shape, DType::F32);
    let vector = [4, 2].into_iter().find(|size| [width, taught, spec.classes].iter().all(|n| n.is_multiple_of(*size)));
    let vector_size = vector.unwrap_or(1);
    let values = empty(Shape::new([count]));
    // Where no gradient is written, the kernel still binds a buffer of one vector.
    let output = empty(if gradient { Shape::new([count, width]) } else { Shape::new([1, vector_size]) });
    if count == 0 || width == 0 {
        return (values, output);
    }

    let columns = (spec.classes / vector_size).max(1) as u32;
    let units = UNITS.min(client.properties().hardware.max_units_per_cube).min(columns.next_power_of_two());
    let (across, down) = ((count as u32).min(CUBES), (count as u32).div_ceil(CUBES));
    let (family, first, second) = family(spec.divergence);
    let options = Options { family, hard: spec.hard != 0.0, gradient, units };
    let sizes = SizesLaunch::new(
        count as u32,
        spec.classes as u32,
        width as u32,
        taught as u32,
        u32::from(weights.shape()[0] > 1),
        u32::from(targets.shape()[0] > 1),
    );
    let numbers = NumbersLaunch::new(
        (1.0 / spec.temperature) as f32,
        spec.soft as f32,
        spec.hard as f32,
        first as f32,
        second as f32,
    );
    #[expect(unsafe_code, reason = "the kernel stays within the sizes that it is given")]
    // SAFETY: every index of the kernel is below rows times width of the tensor it reads or writes.
    unsafe {
        rows::launch_unchecked(
            &client,
            CubeCount::Static(across, down, 1),
            CubeDim::new_1d(units),
            vector_size,
            student.into_tensor_arg(),
            teacher.into_tensor_arg(),
            weights.into_tensor_arg(),
            targets.into_tensor_arg(),
            values.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            sizes,
            numbers,
            options,
        );
    }
    (values, output)
}

fn family(divergence: Divergence) -> (Family, f64, f64) {
    match divergence {
        Divergence::ForwardKl => (Family::ForwardKl, 0.0, 0.0),
        Divergence::CrossEntropy => (Family::CrossEntropy, 0.0, 0.0),
        Divergence::ReverseKl { excluded } => (Family::ReverseKl, excluded.ln(), 0.0),
        Divergence::JensenShannon { beta } => (Family::JensenShannon, beta, 0.0),
        Divergence::SkewKl { alpha, cross_entropy: false } => (Family::SkewKl, alpha, 0.0),
        Divergence::SkewKl { alpha, cross_entropy: true } => (Family::SkewCrossEntropy, alpha, 0.0),
        Divergence::SkewReverseKl { alpha } => (Family::SkewReverseKl, alpha, 0.0),
        Divergence::Decoupled { alpha, beta } => (Family::Decoupled, alpha, beta),
    }
}
