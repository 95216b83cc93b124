use burn::tensor::{Bool, ElementConversion, Tensor, kind::Basic};

/// Which rows (samples or tokens) count: an optional boolean per row, true = counts.
///
/// Every logit loss takes `impl Into<Mask>`: `None`, a `Tensor<1, Bool>` of rows, or a `Tensor<2, Bool>` of
/// `[batch, tokens]`, which is flattened like the logits are. A row that does not count contributes neither value
/// nor gradient, whatever it holds (NaN and infinities included).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::Mask;
///
/// let everything: Mask = None.into();
/// let tokens = Tensor::<2>::from_floats([[1.0, 0.0], [1.0, 1.0]], &Device::flex());
/// let unpadded: Mask = tokens.bool().into();
/// assert!(everything.rows().is_none());
/// assert_eq!(unpadded.rows().unwrap().dims(), [4]);
/// ```
#[derive(Debug, Clone)]
pub struct Mask(Option<Tensor<1, Bool>>);

impl From<Option<Tensor<1, Bool>>> for Mask {
    fn from(rows: Option<Tensor<1, Bool>>) -> Self {
        Self(rows.map(Tensor::without_autodiff))
    }
}

impl From<Tensor<1, Bool>> for Mask {
    fn from(rows: Tensor<1, Bool>) -> Self {
        Some(rows).into()
    }
}

impl From<Tensor<2, Bool>> for Mask {
    fn from(tokens: Tensor<2, Bool>) -> Self {
        tokens.flatten::<1>(0, 1).into()
    }
}

impl Mask {
    /// The mask as one boolean per row; `None` when every row counts.
    pub fn rows(&self) -> Option<&Tensor<1, Bool>> {
        self.0.as_ref()
    }

    /// The mask of `count` rows from `start`.
    pub(crate) fn narrow(&self, start: usize, count: usize) -> Self {
        Self(self.0.clone().map(|rows| rows.narrow(0, start, count)))
    }

    /// `values` with every masked-out row set to 0.
    pub(crate) fn zero(&self, values: Tensor<1>) -> Tensor<1> {
        match &self.0 {
            Some(rows) => values.mask_fill(rows.clone().bool_not(), 0.0),
            None => values,
        }
    }

    /// `tensor` of shape `[rows, width]` with every masked-out row filled with `value`, so that whatever it held
    /// takes no part in the computation or in its gradient.
    pub(crate) fn fill_rows<K: Basic, E: ElementConversion>(&self, tensor: Tensor<2, K>, value: E) -> Tensor<2, K> {
        match &self.0 {
            Some(rows) => {
                let [height, width] = tensor.dims();
                self.check_height(height);
                let masked: Tensor<2, Bool> = rows.clone().bool_not().unsqueeze_dim(1);
                tensor.mask_fill(masked.expand([height, width]), value)
            }
            None => tensor,
        }
    }

    /// # Panics
    /// If the mask is not one of so many rows.
    #[track_caller]
    pub(crate) fn check_height(&self, height: usize) {
        if let Some(rows) = &self.0 {
            assert_eq!(rows.dims(), [height], "`mask` must have one value per row: [{height}]");
        }
    }

    /// Number of rows that count, at least 1, as a tensor of shape `[1]` beside `values` of shape `[rows]`.
    pub(crate) fn count(&self, values: &Tensor<1>) -> Tensor<1> {
        let values = values.clone().without_autodiff();
        match &self.0 {
            Some(rows) => rows.clone().float().cast(values.dtype()).sum().clamp_min(1.0),
            None => Tensor::full([1], values.dims()[0].max(1) as f64, (&values.device(), values.dtype())),
        }
    }

    /// 1 for each row that counts and 0 for the others, shape `[rows, 1]`, in the type of `like`.
    pub(crate) fn weights(&self, like: &Tensor<2>) -> Tensor<2> {
        let height = like.dims()[0];
        match &self.0 {
            Some(rows) => rows.clone().float().cast(like.dtype()).reshape([height, 1]),
            None => Tensor::ones([height, 1], (&like.device(), like.dtype())).without_autodiff(),
        }
    }
}
