use burn::{config::Config, tensor::Tensor};

use crate::{ClipEmbeddings, ConfigError, Mask, Reduction, clip_embeddings::pair_cross_entropy};

/// Configuration of [`ClipLoss`].
#[derive(Config, Debug)]
pub struct ClipLossConfig {
    /// How pairs become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl ClipLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<ClipLoss, ConfigError> {
        Ok(ClipLoss { reduction: self.reduction })
    }
}

/// CLIP's contrastive loss (InfoNCE in both directions): each image finds its text in the batch, each text its image.
/// The task loss beside which a student of images and texts is distilled; it has no teacher.
///
/// ```text
/// u_i = image_i / |image_i|,  v_j = text_j / |text_j|,  l_ij = logit_scale · u_i · v_j
/// loss = 1/2 · mean over i of ( - ln softmax_j(l_ij) at j = i   - ln softmax_j(l_ji) at j = i )
/// ```
///
/// **Scale**: nats; the two directions are averaged, as in CLIP and open_clip; ln(batch) where the embeddings say
/// nothing. The loss normalises the embeddings. The value depends on the size of the batch, whose other pairs are the
/// negatives.
///
/// # Shapes
/// - `student`: [`ClipEmbeddings`] with images and texts `[batch, width]`;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`, the mean of both directions for each pair.
///
/// # Gradients
/// To the images, the texts and the logit scale of `student`.
///
/// # Panics
/// `forward` if images and texts differ in shape.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::{ClipEmbeddings, ClipLossConfig};
///
/// let device = Device::flex();
/// let images = Tensor::<2>::from_floats([[2.0, 0.0], [0.0, 1.0]], &device);
/// let texts = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 3.0]], &device);
/// let student = ClipEmbeddings::new(images, texts, 3f64.ln());
/// // Cosine 1 with the own text and 0 with the other: softmax (3/4, 1/4) everywhere, - ln 0.75 = 0.287682.
/// let value = ClipLossConfig::new().init()?.forward(student).into_scalar::<f64>();
/// assert!((value - 0.287682).abs() < 1e-5);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, 2021, arXiv 2103.00020,
///   figure 3.
/// - Reference code: winycg/CLIP-KD `src/open_clip/loss.py` at f3ae18b9 (`ClipLoss`, which is open_clip's) on embeddings
///   that are normalised already. Its gathering of negatives from other devices is not here.
#[derive(Debug, Clone)]
pub struct ClipLoss {
    reduction: Reduction,
}

impl ClipLoss {
    /// The loss of each pair, `[batch]`.
    pub fn forward_no_reduction(&self, student: ClipEmbeddings) -> Tensor<1> {
        both_directions(student.student().logits())
    }

    /// The reduced loss, `[1]`.
    pub fn forward(&self, student: ClipEmbeddings) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student), &Mask::from(None))
    }
}

/// The mean of the cross-entropies of the rows and of the columns of `[batch, batch]` logits with their own pair.
pub(crate) fn both_directions(logits: Tensor<2>) -> Tensor<1> {
    (pair_cross_entropy(logits.clone()) + pair_cross_entropy(logits.transpose())).mul_scalar(0.5)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn modalities_may_change_places() {
        let device = Device::flex();
        device.seed(1);
        let [images, texts] = [0, 1].map(|_| Tensor::<2>::random([5, 3], Distribution::Default, &device));
        let loss = ClipLossConfig::new().init().unwrap();
        let straight = loss.forward(ClipEmbeddings::new(images.clone(), texts.clone(), 20.0));
        let turned = loss.forward(ClipEmbeddings::new(texts, images, 20.0));
        assert!((straight - turned).into_scalar::<f64>().abs() < 1e-5);
    }

    #[test]
    fn embeddings_that_say_nothing_give_the_logarithm_of_the_batch() {
        let same = Tensor::<2>::ones([7, 3], &Device::flex());
        let value = ClipLossConfig::new().init().unwrap().forward(ClipEmbeddings::new(same.clone(), same, 14.3));
        assert!((value.into_scalar::<f64>() - 7f64.ln()).abs() < 1e-5);
    }
}
