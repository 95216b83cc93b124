use burn::{
    config::Config,
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor},
};

use crate::{ClipEmbeddings, ConfigError, Mask, Reduction, clip::both_directions, learned::linear};

/// Configuration of [`ClipAugmentedLoss`].
#[derive(Config, Debug)]
pub struct ClipAugmentedLossConfig {
    /// Width of the student's embeddings, at least 1.
    pub student_width: usize,
    /// Width of the teacher's embeddings, at least 1.
    pub teacher_width: usize,
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipAugmentedLossConfig {
    /// The loss, with fusions that begin as PyTorch's linear layers do.
    ///
    /// # Errors
    /// If a width is 0.
    pub fn init(&self, device: &Device) -> Result<ClipAugmentedLoss, ConfigError> {
        let student = ConfigError::check_count("student_width", self.student_width)?;
        let teacher = ConfigError::check_count("teacher_width", self.teacher_width)?;
        let fusion = || LinearConfig::new(student + teacher, student).init(device);
        Ok(ClipAugmentedLoss { image_fusion: fusion(), text_fusion: fusion(), reduction: self.reduction })
    }
}

/// CLIP-KD's augmented feature distillation (AFD): the student's and the teacher's embeddings, fused by a learned layer
/// for each modality, find their pairs. The student learns what the teacher's embeddings lack.
///
/// ```text
/// f_i = W [student image_i, teacher image_i] + b,  g_i = W' [student text_i, teacher text_i] + b'   (unit embeddings)
/// loss = contrastive loss of f and g: ClipLoss with the student's logit scale
/// ```
///
/// **Scale**: nats; the two directions are averaged, as in the authors' code. At equality it is not 0. The logit scale is
/// `student.logit_scale`; the teacher's is not read. The authors learn a logit scale for this loss alone, which begins at
/// ln(1/0.07) = 2.66 because their code multiplies by the logarithm that CLIP would exponentiate; a `student` made with
/// another logit scale gives that too. The loss normalises the embeddings and what the fusions give.
///
/// # Shapes
/// - `student`: [`ClipEmbeddings`] with images and texts `[batch, student_width]`; `teacher`: the same batch,
///   `[batch, teacher_width]`;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`, the mean of both directions for each pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`, and to the fusions: a [`Module`] that belongs into the
/// learned parts of the objective.
///
/// # Errors
/// [`ClipAugmentedLossConfig::init`] if a width is 0.
///
/// # Panics
/// `forward` if the batches differ, images and texts of one side differ in shape, or a width is not the configured one.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipAugmentedLossConfig, ClipEmbeddings};
///
/// let device = Device::flex();
/// let one = Tensor::<2>::eye(2, &device);
/// let loss = ClipAugmentedLossConfig::new(2, 2).init(&device)?;
/// let (student, teacher) = (ClipEmbeddings::new(one.clone(), one.clone(), 0.0), ClipEmbeddings::new(one.clone(), one, 1.0));
/// // With a logit scale of 0 no text is preferred, whatever the fusions: ln 2.
/// let value = loss.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 2f64.ln()).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *CLIP-KD: An Empirical Study of CLIP Model Distillation*, 2024, arXiv 2307.12732, "Augmented Feature
///   Distillation".
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`afd_loss` of `KDClipLoss`). Where widths differ
///   it projects the student to the teacher's width before it fuses, yet expects the student's own width: it runs only
///   for equal widths, as compared here.
#[derive(Module, Debug)]
pub struct ClipAugmentedLoss {
    image_fusion: Linear,
    text_fusion: Linear,
    #[module(skip)]
    reduction: Reduction,
}

impl ClipAugmentedLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let teacher = teacher.teacher(&student);
        let fused = ClipEmbeddings {
            images: fuse(&self.image_fusion, student.images, teacher.images),
            texts: fuse(&self.text_fusion, student.texts, teacher.texts),
            logit_scale: student.logit_scale,
        };
        both_directions(fused.student().logits())
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// What `fusion` makes of both sides' embeddings of one modality.
fn fuse(fusion: &Linear, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<2> {
    let [inputs, student_width] = fusion.weight.dims();
    let ([_, width], [_, teacher_width]) = (student.dims(), teacher.dims());
    let expected = (student_width, inputs - student_width);
    assert_eq!((width, teacher_width), expected, "the widths of `student` and `teacher` must be those of the config");
    linear(fusion, Tensor::cat(vec![student, teacher], 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_width_of_zero() {
        let error = ClipAugmentedLossConfig::new(3, 0).init(&Device::flex()).unwrap_err();
        assert_eq!(error.to_string(), "`teacher_width` must be in [1, inf), got 0");
    }

    #[test]
    #[should_panic(expected = "the widths of `student` and `teacher` must be those of the config")]
    fn panics_at_another_width() {
        let device = Device::flex();
        let side = ClipEmbeddings::new(Tensor::ones([2, 3], &device), Tensor::ones([2, 3], &device), 1.0);
        ClipAugmentedLossConfig::new(3, 4).init(&device).unwrap().forward(side.clone(), side);
    }
}
