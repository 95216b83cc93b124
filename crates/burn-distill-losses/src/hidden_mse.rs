use burn::{config::Config, tensor::Tensor};

use crate::{ConfigError, Mask, Reduction, align::flatten_rows, precision::constant};

/// Configuration of [`HiddenMseLoss`].
#[derive(Config, Debug)]
pub struct HiddenMseLossConfig {
    /// How tokens become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl HiddenMseLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// None today: the configuration has no range to leave.
    pub fn init(&self) -> Result<HiddenMseLoss, ConfigError> {
        Ok(HiddenMseLoss { reduction: self.reduction })
    }
}

/// TinyBERT's hidden states: the mean squared difference of a token's hidden state and the teacher's, padding left out.
///
/// ```text
/// loss = mean over unmasked tokens of  |student - teacher|² / width
/// ```
///
/// **Scale**: mean over the width and over the unmasked tokens. DistillKit's `hs_mse` and TextBrewer's `hidden_mse` are
/// the same for one layer (DistillKit then averages over the matched layers; here each layer is a term with its own
/// weight). TinyBERT's own code has no mask: it takes the mean over all tokens, padding included, and sums the layers.
/// Without a mask this is [`HintLoss`](crate::HintLoss) with a row for each token instead of each sample. Where widths
/// differ, the student's states pass through a connector (TinyBERT's `W_h`, a learned projection) before they come here.
///
/// # Shapes
/// - `student`, `teacher`: the same shape `[.., width]`, leading dimensions are tokens (`[batch, tokens, width]`);
/// - `mask`: a boolean per token, true = counts (`[batch, tokens]`, or flattened);
/// - value: `[1]`, or `[batch · tokens]` from `forward_no_reduction`, where a masked-out token is 0.
///
/// # Gradients
/// To `student` only.
///
/// # Panics
/// `forward` if the shapes differ or the mask has not one value per token.
///
/// # Example
/// ```
/// use burn::tensor::{Bool, Device, Tensor};
/// use burn_distill_losses::HiddenMseLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<3>::from_floats([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]], &device);
/// let teacher = Tensor::<3>::from_floats([[[0.0, 2.0], [3.0, 1.0], [0.0, 0.0]]], &device);
/// let mask = Tensor::<2, Bool>::from_bool([[true, true, false]], &device);
/// // The last token is padding: ((1 + 0) / 2 + (0 + 9) / 2) / 2.
/// let value = HiddenMseLossConfig::new().init()?.forward(student, teacher, mask).into_scalar::<f64>();
/// assert!((value - 2.5).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Jiao et al., *TinyBERT: Distilling BERT for Natural Language Understanding*, 2020, arXiv 1909.10351, equation 8 (and
///   9 for the embeddings).
/// - Reference code: TextBrewer `src/textbrewer/losses.py` at 2c105fa6 (`hid_mse_loss`); DistillKit
///   `distillkit/lossfuncs/hidden_state.py` at a61c2e7d; huawei-noah/Pretrained-Language-Model
///   `TinyBERT/general_distill.py` at 1bb9b3e4.
#[derive(Debug, Clone)]
pub struct HiddenMseLoss {
    reduction: Reduction,
}

impl HiddenMseLoss {
    /// The loss of each token, `[batch · tokens]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student: Tensor<D>,
        teacher: Tensor<D>,
        mask: impl Into<Mask>,
    ) -> Tensor<1> {
        let (student, teacher) = tokens(student, teacher, &mask.into());
        (student - teacher).square().mean_dim(1).squeeze_dim(1)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>, mask: impl Into<Mask>) -> Tensor<1> {
        let mask = mask.into();
        self.reduction.apply(self.forward_no_reduction(student, teacher, mask.clone()), &mask)
    }
}

/// Both sides as `[tokens, width]` without gradient to the teacher; masked-out tokens are 0 on both.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub(crate) fn tokens<const D: usize>(student: Tensor<D>, teacher: Tensor<D>, mask: &Mask) -> (Tensor<2>, Tensor<2>) {
    assert_eq!(student.dims(), teacher.dims(), "`student` and `teacher` must have the same shape");
    let student = mask.fill_rows(flatten_rows(student), 0.0);
    let teacher = mask.fill_rows(constant(flatten_rows(teacher), student.dtype()), 0.0);
    (student, teacher)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device};

    use super::*;
    use crate::HintLossConfig;

    #[test]
    fn without_padding_it_is_the_hint_loss() {
        let device = Device::flex();
        let student = Tensor::<3>::from_floats([[[1.0, 2.0], [3.0, 5.0]], [[0.5, 0.0], [-1.0, 7.0]]], &device);
        let teacher = student.clone().flip([1]);
        let tokens = HiddenMseLossConfig::new().init().unwrap().forward(student.clone(), teacher.clone(), None);
        let hint = HintLossConfig::new().init().unwrap().forward(student, teacher);
        assert!((tokens.into_scalar::<f64>() - hint.into_scalar::<f64>()).abs() < 1e-6);
    }

    #[test]
    fn padding_may_hold_anything() {
        let device = Device::flex().autodiff();
        let student = Tensor::<3>::from_floats([[[1.0, 2.0], [f32::NAN, 5.0]]], &device).require_grad();
        let teacher = Tensor::<3>::from_floats([[[0.0, 2.0], [f32::INFINITY, 1.0]]], &device);
        let mask = Tensor::<2, Bool>::from_bool([[true, false]], &device);
        let loss = HiddenMseLossConfig::new().init().unwrap().forward(student.clone(), teacher, mask);
        let gradient = student.grad(&loss.backward()).unwrap().into_data_as::<f32>().try_to_vec::<f32>().unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 0.5);
        assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "must have the same shape")]
    fn panics_on_widths_that_differ() {
        let device = Device::flex();
        let loss = HiddenMseLossConfig::new().init().unwrap();
        loss.forward(Tensor::<3>::zeros([1, 2, 3], &device), Tensor::<3>::zeros([1, 2, 1], &device), None);
    }
}
