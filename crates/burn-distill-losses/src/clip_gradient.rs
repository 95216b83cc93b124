use burn::{
    config::Config,
    tensor::{Tensor, activation::softmax},
};

use crate::{ClipEmbeddings, ConfigError, Mask, Reduction};

/// Configuration of [`ClipGradientLoss`].
#[derive(Config, Debug)]
pub struct ClipGradientLossConfig {
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipGradientLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<ClipGradientLoss, ConfigError> {
        Ok(ClipGradientLoss { reduction: self.reduction })
    }
}

/// CLIP-KD's gradient distillation (GD): the contrastive loss pulls the student's embeddings in the directions in which
/// it would pull the teacher's.
///
/// ```text
/// u = images, v = texts, each row divided by its length;  s = logit_scale, n = batch
/// P = softmax over rows of s u vᵀ, minus 1 on the diagonal;  Q = the same of s v uᵀ
/// image to text:  ∂/∂u = s P v / n    ∂/∂v = s Pᵀ u / n
/// text to image:  ∂/∂v = s Q u / n    ∂/∂u = s Qᵀ v / n
/// loss = Σ over these four of  mean over pairs and width of (student's - teacher's)²
/// ```
///
/// **Scale**: mean over the elements. The gradients are those of losses averaged over the batch, to the unit embeddings,
/// so the value falls with the square of the batch and grows with the square of the logit scales: the weight must be
/// found for the batch at hand. Each direction's gradients are compared on their own, as in the authors' code, not those
/// of the symmetric loss. Their trainer gives the logit scale where their function divides by a temperature, so their
/// logits are divided by the scale; their weight of 1e8 belongs to that. Here the formula is computed; 1 / logit_scale on
/// both sides gives their value. The loss normalises the embeddings, the student's after its connector.
///
/// # Shapes
/// - `student`, `teacher`: [`ClipEmbeddings`] with images and texts of the same shape `[batch, width]`. Where widths
///   differ, the student's go through a connector first, one for each modality;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`: the four gradients to the embeddings of the pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`, through the formulas above.
///
/// # Panics
/// `forward` if the shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipEmbeddings, ClipGradientLossConfig};
///
/// let device = Device::flex();
/// let one = Tensor::<2>::eye(2, &device);
/// let (student, teacher) = (ClipEmbeddings::new(one.clone(), one.clone(), 3f64.ln()), ClipEmbeddings::new(one.clone(), one, 0.0));
/// // The teacher's gradients are 0. The student's rows of P are (-1/4, 1/4): each gradient has elements ± ln 3 / 4 / 2.
/// let value = ClipGradientLossConfig::new().init()?.forward(student, teacher).into_scalar::<f64>();
/// assert!((value - 4.0 * (3f64.ln() / 8.0).powi(2)).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *CLIP-KD: An Empirical Study of CLIP Model Distillation*, 2024, arXiv 2307.12732, "Gradient
///   Distillation".
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`get_grad`, and `gd_loss` of `KDClipLoss`).
#[derive(Debug, Clone)]
pub struct ClipGradientLoss {
    reduction: Reduction,
}

impl ClipGradientLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        let student = student.student();
        let teacher = teacher.teacher(&student);
        student.assert_same_width(&teacher);
        let difference = slopes(&student) - slopes(&teacher);
        let [four, batch, width] = difference.dims();
        difference.square().sum_dim(2).div_scalar(width as f64).reshape([four, batch]).sum_dim(0).squeeze_dim(0)
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings, teacher: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher), &Mask::from(None))
    }
}

/// The gradients of both directions' contrastive losses to the unit embeddings, `[4, batch, width]`: of image to text to
/// images and to texts, of text to image to texts and to images.
fn slopes(side: &ClipEmbeddings) -> Tensor<3> {
    let batch = side.images.dims()[0];
    let own = Tensor::<2>::eye(batch, &side.images.device()).without_autodiff().cast(side.images.dtype());
    let logits = side.logits();
    let scale = side.logit_scale.clone().div_scalar(batch as f64).unsqueeze_dim::<2>(0);
    let of_images = (softmax(logits.clone(), 1) - own.clone()) * scale.clone();
    let of_texts = (softmax(logits.transpose(), 1) - own) * scale;
    let (images, texts) = (side.images.clone(), side.texts.clone());
    Tensor::stack(
        vec![
            of_images.clone().matmul(texts.clone()),
            of_images.transpose().matmul(images.clone()),
            of_texts.clone().matmul(images),
            of_texts.transpose().matmul(texts),
        ],
        0,
    )
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{clip::both_directions, norm::l2_normalize};

    #[test]
    fn slopes_are_those_of_the_contrastive_loss() {
        let device = Device::flex().autodiff();
        device.seed(6);
        let [images, texts] = [0, 1].map(|_| {
            l2_normalize(Tensor::<2>::random([5, 3], Distribution::Default, &device), 1).detach().require_grad()
        });
        let side = ClipEmbeddings::new(images.clone(), texts.clone(), 9.0);
        let gradients = both_directions(side.logits()).mean().backward();
        let expected = [images, texts].map(|leaf| leaf.grad(&gradients).unwrap());
        let [of_images, of_images_to_texts, of_texts, of_texts_to_images] =
            [0, 1, 2, 3].map(|index| slopes(&side).inner().narrow(0, index, 1).squeeze_dim::<2>(0));
        // Half the sum of the two directions.
        let sums = [of_images + of_texts_to_images, of_texts + of_images_to_texts];
        for (sum, expected) in sums.into_iter().zip(expected) {
            let apart = (sum.mul_scalar(0.5) - expected.clone()).abs().max().into_scalar::<f64>();
            assert!(apart < 1e-6 && expected.abs().max().into_scalar::<f64>() > 0.1, "{apart}");
        }
    }
}
