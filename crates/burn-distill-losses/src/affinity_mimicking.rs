use burn::{config::Config, tensor::Tensor};

use crate::{
    ClipEmbeddings, ConfigError, Mask, Reduction,
    divergence::cross_entropy,
    floor::{log_softmax, softmax},
};

/// Configuration of [`AffinityMimickingLoss`].
#[derive(Config, Debug)]
pub struct AffinityMimickingLossConfig {
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl AffinityMimickingLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<AffinityMimickingLoss, ConfigError> {
        Ok(AffinityMimickingLoss { reduction: self.reduction })
    }
}

/// TinyCLIP's affinity mimicking: the teacher's affinities of images with texts, and of texts with images, are the soft
/// labels of the student's.
///
/// ```text
/// l_ij = logit_scale · cos(image_i, text_j),  each side with its own logit scale
/// p_i = softmax_j(l_ij) of the teacher,  q_i that of the student;  p'_i, q'_i the same of l_ji
/// loss = - 1/2 · mean over i of ( Σ_j p_ij ln q_ij  +  Σ_j p'_ij ln q'_ij )
/// ```
///
/// **Scale**: a cross-entropy in nats, as published: at equality it is the teacher's entropy, not 0. It is
/// [`ClipRelationLoss`](crate::ClipRelationLoss) (0 at equality, the house convention) plus that entropy, and the
/// gradient is the same; take this one to compare values with TinyCLIP's. The two directions are averaged, as in the
/// authors' code. The loss normalises the embeddings.
///
/// # Shapes
/// - `student`: [`ClipEmbeddings`] with images and texts `[batch, width]`; `teacher`: the same batch, any width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`, the mean of both directions for each pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`.
///
/// # Panics
/// `forward` if the batches differ, or images and texts of one side differ in shape.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{AffinityMimickingLossConfig, ClipEmbeddings};
///
/// let device = Device::flex();
/// let one = Tensor::<2>::eye(2, &device);
/// let teacher = ClipEmbeddings::new(Tensor::ones([2, 5], &device), Tensor::ones([2, 5], &device), 50.0);
/// let student = ClipEmbeddings::new(one.clone(), one, 3f64.ln());
/// // p = (1/2, 1/2), q = (3/4, 1/4) everywhere: - (ln 0.75 + ln 0.25) / 2 = 0.836988.
/// let value = AffinityMimickingLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 0.836988).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Wu et al., *TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance*, 2023, arXiv 2309.12314,
///   "Affinity Mimicking".
/// - Reference code: wkcn/TinyCLIP `src/open_clip/clip_soft_loss.py` at ad981bf3 (`ClipSoftLoss`) on embeddings that are
///   normalised already. Its scripts begin with a logit scale of 50 on both sides and no task loss.
#[derive(Debug, Clone)]
pub struct AffinityMimickingLoss {
    reduction: Reduction,
}

impl AffinityMimickingLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let (teacher, student) = (teacher.teacher(&student).logits(), student.logits());
        let of_images = soft_cross_entropy(student.clone(), teacher.clone());
        let of_texts = soft_cross_entropy(student.transpose(), teacher.transpose());
        (of_images + of_texts).mul_scalar(0.5)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// The cross-entropy of each row with the teacher's probabilities, `[rows]`.
fn soft_cross_entropy(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    cross_entropy(softmax(teacher, 1.0).0, log_softmax(student, 1.0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::ClipRelationLossConfig;

    #[test]
    fn it_is_the_relational_divergence_plus_the_teachers_entropy() {
        let device = Device::flex().autodiff();
        device.seed(4);
        let [images, texts] =
            [0, 1].map(|_| Tensor::<2>::random([6, 3], Distribution::Default, &device).require_grad());
        let teacher = [0, 1].map(|_| Tensor::<2>::random([6, 5], Distribution::Default, &device));
        let student = ClipEmbeddings::new(images.clone(), texts, 9.0);
        let [teacher_images, teacher_texts] = teacher;
        let teacher = ClipEmbeddings::new(teacher_images, teacher_texts, 20.0);
        let loss = AffinityMimickingLossConfig::new().init().unwrap();
        let relation = ClipRelationLossConfig::new().init().unwrap().forward(student.clone(), teacher.clone());
        let entropy = loss.forward(teacher.clone(), teacher.clone());
        let value = loss.forward(student, teacher);
        assert!((value.clone() - entropy - relation.clone()).into_scalar::<f64>().abs() < 1e-5);
        let slopes = [value, relation].map(|loss| images.grad(&loss.backward()).unwrap());
        let [one, other] = slopes;
        assert!((one - other).abs().max().into_scalar::<f64>() < 1e-6);
    }
}
