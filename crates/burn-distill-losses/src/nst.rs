use burn::{config::Config, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    ConfigError, Mask, Reduction,
    norm::l2_normalize,
    pool::{average_pool, smaller_size},
    precision::features,
};

/// How alike two channels are, in [`NstLoss`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NstKernel {
    /// `x·y`: only the channels' means are compared.
    Linear,
    /// `(x·y)²`: second moments; what RepDistiller computes.
    #[default]
    Polynomial,
}

/// Configuration of [`NstLoss`].
#[derive(Config, Debug)]
pub struct NstLossConfig {
    /// How alike two channels are.
    #[config(default = "NstKernel::Polynomial")]
    pub kernel: NstKernel,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl NstLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<NstLoss, ConfigError> {
        Ok(NstLoss { kernel: self.kernel, reduction: self.reduction })
    }
}

/// Neuron selectivity transfer (NST): the channels of student and teacher, each a pattern over the positions, come from
/// the same distribution, by the maximum mean discrepancy (MMD).
///
/// ```text
/// x_c = channel c of the student over the positions, of length 1;   y_d = channel d of the teacher, of length 1
/// loss = mean over samples of  mean_cc' k(x_c, x_c') + mean_dd' k(y_d, y_d') - 2 mean_cd k(x_c, y_d)
/// Polynomial:  k(x, y) = (x·y)²,    Linear:  k(x, y) = x·y
/// ```
///
/// **Scale**: the squared MMD of each sample, at most 4; the teacher's own term, a constant, is included so that equal
/// sides give 0. Any number of channels; where heights or widths differ, the larger features are reduced by adaptive
/// average pooling, as in RepDistiller. The paper's third kernel, the Gaussian with a width taken from the batch, is left
/// out: there is no reference code to agree with.
///
/// # Shapes
/// - `student`: `[batch, channels, height, width]`; `teacher`: the same batch, any channels, height and width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only; 0 for a channel that is zero everywhere.
///
/// # Panics
/// `forward` if the batches differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::NstLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<4>::from_floats([[[[2.0, 0.0]], [[0.0, 3.0]]]], &device);
/// let teacher = Tensor::<4>::from_floats([[[[1.0, 0.0]]]], &device);
/// // Student (1 + 0 + 0 + 1) / 4, teacher 1, between them (1 + 0) / 2.
/// let value = NstLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - (0.5 + 1.0 - 2.0 * 0.5)).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Huang, Wang, *Like What You Like: Knowledge Distill via Neuron Selectivity Transfer*, 2017, arXiv 1707.01219,
///   sections 3.2 and 4.
/// - Reference code: RepDistiller `distiller_zoo/NST.py` at b84f547c (polynomial; it pools to a square).
#[derive(Debug, Clone)]
pub struct NstLoss {
    kernel: NstKernel,
    reduction: Reduction,
}

impl NstLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        let (batch, teacher_batch) = (student.dims()[0], teacher.dims()[0]);
        assert_eq!(batch, teacher_batch, "`student` has {batch} samples and `teacher` {teacher_batch}");
        let (student, teacher) = features(student, teacher);
        let size = smaller_size(&student, &teacher);
        let (student, teacher) = (patterns(student, size), patterns(teacher, size));
        match self.kernel {
            // With the linear kernel the discrepancy is the squared distance of the means.
            NstKernel::Linear => {
                let difference = student.mean_dim(1) - teacher.mean_dim(1);
                difference.square().sum_dim(2).squeeze_dim::<2>(2).squeeze_dim(1)
            }
            NstKernel::Polynomial => {
                let between = mean_square(student.clone(), teacher.clone());
                mean_square(student.clone(), student) + mean_square(teacher.clone(), teacher) - between.mul_scalar(2.0)
            }
        }
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: Tensor<4>, teacher: Tensor<4>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// `[batch, channels, positions]` at `size`, each channel of length 1.
fn patterns(features: Tensor<4>, size: [usize; 2]) -> Tensor<3> {
    l2_normalize(average_pool(features, size).flatten(2, 3), 2)
}

/// The mean over pairs of channels of `(x·y)²`, `[batch]`.
fn mean_square(x: Tensor<3>, y: Tensor<3>) -> Tensor<1> {
    let squares = x.matmul(y.transpose()).square();
    let [batch, rows, columns] = squares.dims();
    squares.reshape([batch, rows * columns]).mean_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn order_and_strength_of_the_channels_do_not_matter() {
        let device = Device::flex();
        device.seed(6);
        let teacher = Tensor::<4>::random([2, 4, 3, 3], Distribution::Default, &device);
        for kernel in [NstKernel::Linear, NstKernel::Polynomial] {
            let loss = NstLossConfig::new().with_kernel(kernel).init().unwrap();
            let student = teacher.clone().flip([1]).mul_scalar(7.0);
            // Each channel twice is the same distribution.
            let student = Tensor::cat(vec![student.clone(), student.mul_scalar(0.5)], 1);
            let value = loss.forward(student, teacher.clone()).into_scalar::<f64>();
            assert!(value.abs() < 1e-6, "{kernel:?}: {value}");
            // Where in the picture they are active does.
            let value = loss.forward(teacher.clone().flip([3]), teacher.clone()).into_scalar::<f64>();
            assert!(value > 1e-4, "{kernel:?}: {value}");
        }
    }
}
