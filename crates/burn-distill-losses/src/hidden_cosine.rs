use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, hidden_mse::tokens, norm::l2_normalize};

/// Configuration of [`HiddenCosineLoss`].
#[derive(Config, Debug)]
pub struct HiddenCosineLossConfig {
    /// How tokens become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl HiddenCosineLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<HiddenCosineLoss, ConfigError> {
        Ok(HiddenCosineLoss { reduction: self.reduction })
    }
}

/// DistilBERT's hidden states: one minus the cosine of a token's hidden state and the teacher's, padding left out.
///
/// ```text
/// loss = mean over unmasked tokens of  1 - student · teacher / (|student| |teacher|)
/// ```
///
/// **Scale**: in [0, 2], mean over the unmasked tokens; lengths do not matter. The same as DistilBERT's and TextBrewer's
/// `cosine_embedding_loss` with target 1 over the selected tokens, and as DistillKit's `hs_cosine` for one layer, but for
/// vectors of length near 0: PyTorch adds 1e-12 to the squared lengths (`cosine_embedding_loss`) or bounds their product
/// from below (`cosine_similarity`); here a vector of length up to 1e-12 has no direction, value 1 and gradient 0. Where
/// widths differ, the student's states pass through a connector before they come here.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[.., width]`, leading dimensions are tokens (`[batch, tokens, width]`);
/// - `mask`: a boolean per token, true = counts (`[batch, tokens]`, or flattened);
/// - value: `[1]`, or `[batch · tokens]` from `forward_no_reduction`, where a masked-out token is 0.
///
/// # Gradients
/// To `student` only, orthogonal to each of its vectors.
///
/// # Panics
/// `forward` if the shapes differ or the mask has not one value per token.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::HiddenCosineLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<3>::from_floats([[[3.0, 4.0], [0.0, 1.0]]], &device);
/// let teacher = Tensor::<3>::from_floats([[[2.0, 0.0], [0.0, -5.0]]], &device);
/// // Cosines 3/5 and -1: (2/5 + 2) / 2.
/// let value = HiddenCosineLossConfig::new().init()?.forward(student, teacher, None).into_scalar::<f64>();
/// assert!((value - 1.2).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Sanh et al., *DistilBERT, a distilled version of BERT*, 2019, arXiv 1910.01108, section 2 (`L_cos`).
/// - Reference code: TextBrewer `src/textbrewer/losses.py` at 2c105fa6 (`cos_loss`); DistillKit
///   `distillkit/lossfuncs/hidden_state.py` at a61c2e7d.
#[derive(Debug, Clone)]
pub struct HiddenCosineLoss {
    reduction: Reduction,
}

impl HiddenCosineLoss {
    /// The loss of each token, `[batch · tokens]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student: Tensor<D>,
        teacher: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let mask = mask.into();
        let (student, teacher) = tokens(student, teacher, &mask);
        let cosine = (l2_normalize(student, 1) * l2_normalize(teacher, 1)).sum_dim(1).squeeze_dim::<1>(1);
        mask.zero(cosine.neg().add_scalar(1.0))
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>, mask: impl Into<Mask>) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student, teacher, mask.clone()), &mask)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn lengths_do_not_matter_and_zero_has_no_direction() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[3.0, 4.0], [1e4, -2e4], [0.0, 0.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[0.3, 0.4], [1.0, -2.0], [1.0, 1.0]], &device);
        let rows = HiddenCosineLossConfig::new().init().unwrap().forward_no_reduction(student.clone(), teacher, None);
        let gradient = student.grad(&rows.clone().sum().backward()).unwrap();
        let rows = rows.into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(rows[0].abs() < 1e-6 && rows[1].abs() < 1e-6, "{rows:?}");
        assert_eq!(rows[2], 1.0);
        let gradient = gradient.into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-6), "{gradient:?}");
    }
}
