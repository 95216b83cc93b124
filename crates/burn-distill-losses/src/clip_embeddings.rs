use burn::tensor::{Int, Tensor};

use crate::{
    divergence::target_cross_entropy,
    norm::l2_normalize,
    precision::{constant, widen},
};

/// What a model of two modalities says of a batch of pairs: the embedding of each image and of its text.
///
/// Row i of `images` and row i of `texts` are a pair. The losses divide every embedding by its length themselves, so
/// the raw output of a projection and a normalised one give the same; a zero embedding stays zero.
///
/// `logit_scale` multiplies the cosines: CLIP's learned `exp(log_scale)`, 1/0.07 = 14.3 at the start of its training and
/// at most 100. It is the factor itself, not its logarithm, and the inverse of what papers call the temperature of a
/// contrastive loss. The student's gets a gradient where it is learned:
///
/// ```
/// use burn::{module::Param, tensor::{Device, Tensor}};
/// use burn_distill_losses::{ClipEmbeddings, ClipLossConfig};
///
/// let device = Device::flex().autodiff();
/// let log_scale = Param::from_tensor(Tensor::<1>::from_floats([(1f32 / 0.07).ln()], &device));
/// let student = ClipEmbeddings {
///     images: Tensor::from_floats([[1.0, 0.2], [0.1, 2.0]], &device),
///     texts: Tensor::from_floats([[0.9, 0.3], [0.2, 1.0]], &device),
///     logit_scale: log_scale.val().exp().clamp_max(100.0),
/// };
/// let gradients = ClipLossConfig::new().init()?.forward(student).backward();
/// assert!(log_scale.val().grad(&gradients).is_some());
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClipEmbeddings {
    /// Embeddings of the images, `[batch, width]`.
    pub images: Tensor<2>,
    /// Embeddings of their texts, `[batch, width]`.
    pub texts: Tensor<2>,
    /// The factor of the cosines, `[1]`.
    pub logit_scale: Tensor<1>,
}

impl ClipEmbeddings {
    /// Embeddings with a logit scale that is not learned.
    pub fn new(images: Tensor<2>, texts: Tensor<2>, logit_scale: f64) -> Self {
        let logit_scale = Tensor::full([1], logit_scale, (&images.device(), images.dtype()));
        Self { images, texts, logit_scale }
    }

    /// The student's side: unit embeddings in f32 or f64.
    ///
    /// # Panics
    /// If images and texts differ in shape.
    #[track_caller]
    pub(crate) fn student(self) -> Self {
        let (images, texts) = (self.images.dims(), self.texts.dims());
        assert_eq!(images, texts, "`images` and `texts` of one side must have the same shape [batch, width]");
        let images = widen(self.images);
        let dtype = images.dtype();
        Self {
            texts: l2_normalize(self.texts.cast(dtype), 1),
            logit_scale: self.logit_scale.cast(dtype),
            images: l2_normalize(images, 1),
        }
    }

    /// The teacher's side, without gradients, in the type of the student's.
    ///
    /// # Panics
    /// If images and texts differ in shape, or the student has another number of pairs.
    #[track_caller]
    pub(crate) fn teacher(self, student: &Self) -> Self {
        let ([batch, _], [teacher_batch, _]) = (student.images.dims(), self.images.dims());
        assert_eq!(batch, teacher_batch, "`student` has {batch} pairs and `teacher` {teacher_batch}");
        let dtype = student.images.dtype();
        Self {
            images: constant(self.images, dtype),
            texts: constant(self.texts, dtype),
            logit_scale: constant(self.logit_scale, dtype),
        }
        .student()
    }

    /// Fails unless both sides have the same width.
    #[track_caller]
    pub(crate) fn assert_same_width(&self, teacher: &Self) {
        let ([_, width], [_, teacher_width]) = (self.images.dims(), teacher.images.dims());
        assert_eq!(
            width, teacher_width,
            "`student` has embeddings of width {width} and `teacher` of {teacher_width}; a connector makes them equal"
        );
    }

    /// The scaled cosines `[batch, batch]`, images in rows and texts in columns.
    pub(crate) fn logits(&self) -> Tensor<2> {
        self.scaled(&self.images, &self.texts)
    }

    /// The cosines of two sets of unit embeddings, times the logit scale.
    pub(crate) fn scaled(&self, rows: &Tensor<2>, columns: &Tensor<2>) -> Tensor<2> {
        rows.clone().matmul(columns.clone().transpose()) * self.logit_scale.clone().unsqueeze_dim::<2>(0)
    }
}

/// The cross-entropy of each row of logits `[batch, batch]` with its own column, `[batch]`.
pub(crate) fn pair_cross_entropy(logits: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let own = Tensor::<1, Int>::arange(0..batch as i64, &logits.device()).unsqueeze_dim::<2>(1);
    target_cross_entropy(logits, own.without_autodiff())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    #[should_panic(expected = "`images` and `texts` of one side must have the same shape")]
    fn images_and_texts_come_in_pairs() {
        let device = Device::flex();
        ClipEmbeddings::new(Tensor::zeros([3, 4], &device), Tensor::zeros([2, 4], &device), 1.0).student();
    }

    #[test]
    fn the_length_of_an_embedding_does_not_matter() {
        let device = Device::flex();
        let images = Tensor::<2>::from_floats([[3.0, 4.0], [0.0, 0.0]], &device);
        let texts = Tensor::<2>::from_floats([[0.3, 0.4], [-8.0, -6.0]], &device);
        let logits = ClipEmbeddings::new(images, texts, 50.0).student().logits();
        let logits = logits.into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        // cos of (3/5, 4/5) with itself, and with (-4/5, -3/5): -24/25; a zero embedding has the cosine 0.
        for (got, expected) in logits.into_iter().zip([50.0, -48.0, 0.0, 0.0]) {
            assert!((got - expected).abs() < 1e-4, "{got} is not {expected}");
        }
    }
}
