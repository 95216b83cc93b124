use burn::{config::Config, tensor::Tensor};

use crate::{ClipEmbeddings, ConfigError, Mask, Reduction, hint::squared_difference};

/// Configuration of [`ClipFeatureLoss`].
#[derive(Config, Debug)]
pub struct ClipFeatureLossConfig {
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipFeatureLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<ClipFeatureLoss, ConfigError> {
        Ok(ClipFeatureLoss { reduction: self.reduction })
    }
}

/// CLIP-KD's feature distillation (FD): the student's image and text embeddings point where the teacher's do.
///
/// ```text
/// u = images, v = texts, each row divided by its length
/// loss = mean over pairs and width of (u_student - u_teacher)²  +  the same of v
/// ```
///
/// Masked feature distillation (MFD) is this loss too: the student then sees images of which most patches are masked
/// out, the teacher whole ones. Pairs need not match; images and texts may even be of different samples.
///
/// **Scale**: mean over the elements, as in PyTorch's `mse_loss` and in the authors' code: for embeddings of width w the
/// value is at most 8 / w, and 2 (1 - cos) / w for one modality, so weights are large; the authors use 2000. The logit
/// scales are not read. The loss normalises the embeddings, the student's after its connector.
///
/// # Shapes
/// - `student`, `teacher`: [`ClipEmbeddings`] with images and texts of the same shape `[batch, width]`. Where widths
///   differ, the student's go through a connector first, one for each modality;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To the images and texts of `student`; 0 for a zero embedding.
///
/// # Panics
/// `forward` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipEmbeddings, ClipFeatureLossConfig};
///
/// let device = Device::flex();
/// let side = |image: [f32; 2], text: [f32; 2]| {
///     ClipEmbeddings::new(Tensor::from_floats([image], &device), Tensor::from_floats([text], &device), 100.0)
/// };
/// let (student, teacher) = (side([5.0, 0.0], [0.0, 2.0]), side([3.0, 4.0], [0.0, 1.0]));
/// // Images (1, 0) against (0.6, 0.8): (0.16 + 0.64) / 2; texts point the same way.
/// let value = ClipFeatureLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 0.4).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *CLIP-KD: An Empirical Study of CLIP Model Distillation*, 2024, arXiv 2307.12732, "Feature
///   Distillation" and "Masked Feature Distillation".
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`fd_loss` of `KDClipLoss`), in which a teacher
///   comes normalised.
#[derive(Debug, Clone)]
pub struct ClipFeatureLoss {
    reduction: Reduction,
}

impl ClipFeatureLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let teacher = teacher.teacher(&student);
        student.assert_same_width(&teacher);
        squared_difference(student.images, teacher.images) + squared_difference(student.texts, teacher.texts)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn opposite_embeddings_are_farthest() {
        let device = Device::flex();
        device.seed(2);
        let [images, texts] = [0, 1].map(|_| Tensor::<2>::random([3, 4], Distribution::Default, &device));
        let teacher = ClipEmbeddings::new(images.clone().mul_scalar(-3.0), texts.clone().neg(), 100.0);
        let student = ClipEmbeddings::new(images, texts, 1.0);
        let value = ClipFeatureLossConfig::new().init().unwrap().forward(student, teacher).into_scalar::<f64>();
        assert!((value - 8.0 / 4.0).abs() < 1e-5, "{value}");
    }

    #[test]
    #[should_panic(expected = "a connector makes them equal")]
    fn panics_where_widths_differ() {
        let device = Device::flex();
        let side =
            |width| ClipEmbeddings::new(Tensor::ones([2, width], &device), Tensor::ones([2, width], &device), 1.0);
        ClipFeatureLossConfig::new().init().unwrap().forward(side(3), side(4));
    }
}
