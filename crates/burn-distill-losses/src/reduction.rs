use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::Mask;

/// How the values of the rows (samples or tokens) become one number.
///
/// There is no third variant and neither ever divides by the number of classes: `Sum` is always the number of
/// unmasked rows times `Mean`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// Sum of the unmasked rows divided by their number; 0 when no row is unmasked.
    #[default]
    Mean,
    /// Sum of the unmasked rows.
    Sum,
}

impl Reduction {
    /// Reduces `values` of shape `[rows]`, in which masked-out rows are 0 already, to shape `[1]`.
    pub(crate) fn apply(self, values: Tensor<1>, mask: &Mask) -> Tensor<1> {
        let count = mask.count(&values);
        let sum = values.sum();
        match self {
            Reduction::Mean => sum / count,
            Reduction::Sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn mean_divides_by_unmasked_rows() {
        let device = Device::flex();
        let values = Tensor::<1>::from_floats([1.0, 0.0, 5.0], &device);
        let mask = Mask::from(Tensor::<1, burn::tensor::Bool>::from_bool([true, false, true], &device));
        assert_eq!(Reduction::Mean.apply(values.clone(), &mask).into_scalar::<f32>(), 3.0);
        assert_eq!(Reduction::Sum.apply(values.clone(), &mask).into_scalar::<f32>(), 6.0);
        assert_eq!(Reduction::Mean.apply(values, &Mask::from(None)).into_scalar::<f32>(), 2.0);
    }
}
