use burn::{config::Config, tensor::Tensor};

use crate::{ClipEmbeddings, ConfigError, Mask, Reduction, clip_embeddings::pair_cross_entropy};

/// Configuration of [`ClipInteractiveLoss`].
#[derive(Config, Debug)]
pub struct ClipInteractiveLossConfig {
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipInteractiveLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<ClipInteractiveLoss, ConfigError> {
        Ok(ClipInteractiveLoss { reduction: self.reduction })
    }
}

/// CLIP-KD's interactive contrastive learning (ICL): the student's image finds its text among the teacher's, and the
/// student's text its image among the teacher's.
///
/// ```text
/// a_ij = logit_scale · cos(student image_i, teacher text_j)
/// b_ij = logit_scale · cos(student text_i, teacher image_j)
/// loss = 1/2 · mean over i of ( - ln softmax_j(a_ij) at j = i   - ln softmax_j(b_ij) at j = i )
/// ```
///
/// **Scale**: nats; the two directions are averaged, as in the authors' code. At equality it is the teacher's own
/// contrastive loss, not 0. The logit scale is `student.logit_scale`; the teacher's is not read. The loss normalises the
/// embeddings, the student's after its connector. The authors learn a logit scale for this loss alone, which begins at
/// ln(1/0.07) = 2.66 because their code multiplies by the logarithm that CLIP would exponentiate; a `student` made with
/// another logit scale gives that too.
///
/// # Shapes
/// - `student`, `teacher`: [`ClipEmbeddings`] with images and texts of the same shape `[batch, width]`. Where widths
///   differ, the student's go through a connector first, one for each modality;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`, the mean of both directions for each pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`.
///
/// # Panics
/// `forward` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipEmbeddings, ClipInteractiveLossConfig};
///
/// let device = Device::flex();
/// let (one, turned) = (Tensor::<2>::eye(2, &device), Tensor::<2>::eye(2, &device).flip([0]));
/// let student = ClipEmbeddings::new(one.clone(), turned, 3f64.ln());
/// let teacher = ClipEmbeddings::new(one.clone(), one, 100.0);
/// // The student's images find the teacher's texts with 3/4, its texts the teacher's images with 1/4:
/// // - (ln 0.75 + ln 0.25) / 2 = 0.836988.
/// let value = ClipInteractiveLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 0.836988).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *CLIP-KD: An Empirical Study of CLIP Model Distillation*, 2024, arXiv 2307.12732, "Interactive
///   Contrastive Learning".
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`icl_loss` of `KDClipLoss`), weight 1.
#[derive(Debug, Clone)]
pub struct ClipInteractiveLoss {
    reduction: Reduction,
}

impl ClipInteractiveLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let teacher = teacher.teacher(&student);
        student.assert_same_width(&teacher);
        let of_images = pair_cross_entropy(student.scaled(&student.images, &teacher.texts));
        let of_texts = pair_cross_entropy(student.scaled(&student.texts, &teacher.images));
        (of_images + of_texts).mul_scalar(0.5)
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
    use crate::ClipLossConfig;

    #[test]
    fn a_student_equal_to_its_teacher_has_the_teachers_contrastive_loss() {
        let device = Device::flex();
        device.seed(5);
        let [images, texts] = [0, 1].map(|_| Tensor::<2>::random([6, 3], Distribution::Default, &device));
        let same = ClipEmbeddings::new(images, texts, 9.0);
        let interactive = ClipInteractiveLossConfig::new().init().unwrap().forward(same.clone(), same.clone());
        let clip = ClipLossConfig::new().init().unwrap().forward(same);
        assert!((interactive - clip).into_scalar::<f64>().abs() < 1e-6);
    }
}
