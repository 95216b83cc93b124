use burn::{config::Config, tensor::Tensor};

use crate::{
    ClipEmbeddings, ConfigError, Mask, Reduction,
    divergence::kl_from,
    error::expect_temperature,
    floor::{log_softmax, softmax},
};

/// Configuration of [`ClipRelationLoss`].
#[derive(Config, Debug)]
pub struct ClipRelationLossConfig {
    /// Temperature that softens both sides' distributions beside their own logit scales, in (0, inf).
    #[config(default = 1.0)]
    pub temperature: f64,
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipRelationLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `temperature` is not in (0, inf).
    pub fn init(&self) -> Result<ClipRelationLoss, ConfigError> {
        Ok(ClipRelationLoss {
            temperature: ConfigError::check_temperature(self.temperature)?,
            reduction: self.reduction,
        })
    }
}

/// CLIP-KD's contrastive relational distillation (CRD): each image is as near to each text of the batch as it is for the
/// teacher, and each text to each image.
///
/// ```text
/// l_ij = logit_scale · cos(image_i, text_j),  each side with its own logit scale
/// p_i = softmax_j(l_ij / T) of the teacher,  q_i that of the student;  p'_i, q'_i the same of l_ji
/// loss = T² · 1/2 · mean over i of ( KL(p_i, q_i) + KL(p'_i, q'_i) )
/// ```
///
/// Not the contrastive representation distillation that is called CRD for image models. Pairs need not match: the
/// teacher says which text belongs to which image, and 0 is reached for any pairing.
///
/// **Scale**: true KL in nats, times temperature squared; the two directions are averaged. The authors have T = 1. The
/// loss normalises the embeddings. [`AffinityMimickingLoss`](crate::AffinityMimickingLoss) is the cross-entropy form of
/// it, with the same gradient at T = 1.
///
/// # Shapes
/// - `student`: [`ClipEmbeddings`] with images and texts `[batch, width]`; `teacher`: the same batch, any width;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`, the mean of both directions for each pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`.
///
/// # Errors
/// [`ClipRelationLossConfig::init`] if the temperature is not in (0, inf).
///
/// # Panics
/// `forward` if the batches differ, or images and texts of one side differ in shape.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipEmbeddings, ClipRelationLossConfig};
///
/// let device = Device::flex();
/// let one = Tensor::<2>::eye(2, &device);
/// let teacher = ClipEmbeddings::new(one.clone(), one.clone(), 3f64.ln());
/// let student = ClipEmbeddings::new(Tensor::ones([2, 5], &device), Tensor::ones([2, 5], &device), 100.0);
/// // p = (3/4, 1/4), q = (1/2, 1/2) everywhere: KL = 0.130812.
/// let value = ClipRelationLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 0.130812).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *CLIP-KD: An Empirical Study of CLIP Model Distillation*, 2024, arXiv 2307.12732, "Contrastive
///   Relational Distillation".
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`ckd_loss` of `KDClipLoss`), weight 1.
#[derive(Debug, Clone)]
pub struct ClipRelationLoss {
    temperature: f64,
    reduction: Reduction,
}

impl ClipRelationLoss {
    /// The same loss at another temperature, for schedules.
    ///
    /// # Panics
    /// If `temperature` is not in (0, inf).
    #[track_caller]
    pub fn at_temperature(&self, temperature: f64) -> Self {
        Self { temperature: expect_temperature(temperature), ..self.clone() }
    }

    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let (teacher, student) = (teacher.teacher(&student).logits(), student.logits());
        let of_images = self.divergence(student.clone(), teacher.clone());
        let of_texts = self.divergence(student.transpose(), teacher.transpose());
        (of_images + of_texts).mul_scalar(0.5 * self.temperature.powi(2))
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }

    fn divergence(&self, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        kl_from(softmax(teacher, self.temperature), log_softmax(student, self.temperature))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    fn sides() -> [ClipEmbeddings; 2] {
        let device = Device::flex();
        device.seed(3);
        let random = |width| Tensor::<2>::random([5, width], Distribution::Default, &device);
        [3, 7].map(|width| ClipEmbeddings::new(random(width), random(width), 10.0))
    }

    fn turned(side: ClipEmbeddings) -> ClipEmbeddings {
        ClipEmbeddings { images: side.texts, texts: side.images, logit_scale: side.logit_scale }
    }

    #[test]
    fn modalities_may_change_places() {
        let [student, teacher] = sides();
        let loss = ClipRelationLossConfig::new().init().unwrap();
        let straight = loss.forward(student.clone(), teacher.clone());
        let turned = loss.forward(turned(student), turned(teacher));
        assert!((straight - turned).into_scalar::<f64>().abs() < 1e-6);
    }

    #[test]
    fn a_temperature_divides_both_logit_scales() {
        let [student, teacher] = sides();
        let loss = ClipRelationLossConfig::new().init().unwrap();
        let tempered = loss.at_temperature(2.0).forward(student.clone(), teacher.clone()).into_scalar::<f64>();
        let cooler = |side: ClipEmbeddings| ClipEmbeddings::new(side.images, side.texts, 5.0);
        let scaled = loss.forward(cooler(student), cooler(teacher)).into_scalar::<f64>();
        assert!((tempered - 4.0 * scaled).abs() < 1e-5, "{tempered} is not 4 times {scaled}");
    }

    #[test]
    fn rejects_temperatures_out_of_range() {
        let error = ClipRelationLossConfig::new().with_temperature(0.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`temperature` must be in (0, inf), got 0");
    }
}
