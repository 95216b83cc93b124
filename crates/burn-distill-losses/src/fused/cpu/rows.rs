//! Memory as rows of f32.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::row::grow;

/// Half-precision elements.
pub(super) trait Half: burn::tensor::Element + Copy + Default + Send + Sync + 'static {
    fn narrow(from: &[f32], to: &mut [Self]);
}

macro_rules! half {
    ($name:ident) => {
        impl Half for $name {
            fn narrow(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
        }
    };
}

half!(f16);
half!(bf16);

/// Contiguous rows in f32 or half precision.
pub(super) enum Rows<'a> {
    F32(&'a [f32], usize),
    F16(&'a [f16], usize),
    BF16(&'a [bf16], usize),
}

impl<'a> Rows<'a> {
    /// One row.
    pub(super) fn one(row: &'a [f32]) -> Self {
        Self::F32(row, row.len())
    }

    pub(super) fn width(&self) -> usize {
        match self {
            Self::F32(_, width) | Self::F16(_, width) | Self::BF16(_, width) => *width,
        }
    }

    /// Row `row` in f32, if need be in `buffer`.
    pub(super) fn row<'b>(&'b self, row: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let range = row * self.width()..(row + 1) * self.width();
        grow(buffer, self.width());
        let buffer = &mut buffer[..self.width()];
        match self {
            Self::F32(values, _) => return &values[range],
            Self::F16(values, _) => values[range].convert_to_f32_slice(buffer),
            Self::BF16(values, _) => values[range].convert_to_f32_slice(buffer),
        }
        buffer
    }

    /// The first `classes` logits of a row; those that it lacks are `-inf`.
    pub(super) fn padded_row<'b>(&'b self, row: usize, classes: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let width = self.width();
        if width >= classes {
            return &self.row(row, buffer)[..classes];
        }
        let mut own = Vec::new();
        let values = self.row(row, &mut own);
        buffer.clear();
        buffer.extend_from_slice(values);
        buffer.resize(classes, f32::NEG_INFINITY);
        buffer
    }
}
