//! Feature maps of different sizes, brought to one.

use burn::tensor::{Tensor, module::adaptive_avg_pool2d};

/// The smaller height and the smaller width of two maps.
pub(crate) fn smaller_size(one: &Tensor<4>, other: &Tensor<4>) -> [usize; 2] {
    let ([_, _, height, width], [_, _, other_height, other_width]) = (one.dims(), other.dims());
    [height.min(other_height), width.min(other_width)]
}

/// `features` at `size`, each position the average of its window.
pub(crate) fn average_pool(features: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = features.dims();
    if [height, width] == size { features } else { adaptive_avg_pool2d(features, size) }
}

/// `features` at `size`, each position the maximum of its window; windows are those of [`average_pool`].
pub(crate) fn max_pool(features: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
    max_along(max_along(features, 2, height), 3, width)
}

fn max_along(features: Tensor<4>, dim: usize, size: usize) -> Tensor<4> {
    let length = features.dims()[dim];
    if length == size {
        return features;
    }
    let window = |index: usize| {
        let (start, end) = (index * length / size, ((index + 1) * length).div_ceil(size));
        features.clone().narrow(dim, start, end - start).max_dim(dim)
    };
    Tensor::cat((0..size).map(window).collect(), dim)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn windows_overlap_where_sizes_do_not_divide() {
        let device = Device::flex();
        let row = Tensor::<4>::from_floats([[[[1.0, 5.0, 9.0, 2.0, 3.0]]]], &device);
        let pooled = |pool: fn(Tensor<4>, [usize; 2]) -> Tensor<4>, width| {
            pool(row.clone(), [1, width]).into_data_as::<f32>().try_to_vec::<f32>().unwrap()
        };
        // Of five positions the windows of two are 0 to 2 and 2 to 4, those of three 0 to 1, 1 to 3 and 3 to 4.
        assert_eq!(pooled(max_pool, 2), [9.0, 9.0]);
        assert_eq!(pooled(average_pool, 2), [5.0, 14.0 / 3.0]);
        assert_eq!(pooled(max_pool, 3), [5.0, 9.0, 3.0]);
    }
}
