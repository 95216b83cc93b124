//! Layers on `flex`.

use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
use burn::tensor::{Shape, TensorData};

use super::{
    backend::LayerKernel,
    cpu::{self, Planes},
};

impl LayerKernel for Flex {
    fn train(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let x = contiguous(x);
        let planes = Planes::new(x.shape().dims());
        let statistics = planes.moments(elements(&x));
        let lines = lines(&values(gamma.clone()), &values(beta), &statistics, epsilon);
        let output = tensor(planes.scaled(elements(&x), &lines), x.shape());
        let [mean, variance] = [0, 1].map(|i| vector(statistics.iter().map(|moments| moments[i] as f32).collect()));
        (output, mean.clone(), variance.clone(), x, gamma, mean, variance)
    }

    fn train_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gradient: FlexTensor,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let ours = gradient.is_unique();
        let (x, mut gradient) = (contiguous(x), if ours { whole(gradient) } else { contiguous(gradient) });
        let [gamma, mean, variance] = [gamma, mean, variance].map(values);
        let planes = Planes::new(x.shape().dims());
        let gradients = planes.backward(elements(&x), elements(&gradient), &gamma, [&mean, &variance], epsilon);
        if ours {
            gradients.replace(elements(&x), gradient.storage_mut());
        } else {
            let mut output = vec![0.0; gradient.shape().num_elements()];
            gradients.write(elements(&x), elements(&gradient), &mut output);
            gradient = tensor(output, gradient.shape());
        }
        (gradient, vector(gradients.of_gamma), vector(gradients.of_beta))
    }

    fn inference(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(values);
        let statistics: Vec<_> = mean.iter().zip(&variance).map(|(m, v)| [f64::from(*m), f64::from(*v)]).collect();
        let lines = lines(&gamma, &beta, &statistics, epsilon);
        let planes = Planes::new(x.shape().dims());
        if x.is_unique() {
            let mut x = whole(x);
            planes.scale(x.storage_mut(), &lines);
            return x;
        }
        let x = contiguous(x);
        tensor(planes.scaled(elements(&x), &lines), x.shape())
    }

    fn rectify(x: FlexTensor) -> FlexTensor {
        if x.is_unique() {
            let mut x = whole(x);
            cpu::rectify(x.storage_mut());
            return x;
        }
        let x = contiguous(x);
        tensor(cpu::rectified(elements(&x)), x.shape())
    }

    fn rectify_backward(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (output, mut gradient) = (contiguous(output), whole(gradient));
        cpu::rectify_backward(elements(&output), gradient.storage_mut());
        gradient
    }
}

/// `[slope, intercept]` of each channel, from its `[mean, variance]`.
fn lines(gamma: &[f32], beta: &[f32], statistics: &[[f64; 2]], epsilon: f64) -> Vec<[f32; 2]> {
    let lines = gamma.iter().zip(beta).zip(statistics).map(|((gamma, beta), [mean, variance])| {
        let slope = f64::from(*gamma) / (variance + epsilon).sqrt();
        [slope as f32, (f64::from(*beta) - mean * slope) as f32]
    });
    lines.collect()
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

/// `tensor` contiguous and without anything else in its memory.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    let bytes = tensor.shape().num_elements() * size_of::<f32>();
    if tensor.layout().start_offset() == 0 && tensor.bytes().len() == bytes {
        return tensor;
    }
    let own = elements(&tensor).to_vec();
    self::tensor(own, tensor.shape())
}

fn elements(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("it was made contiguous, and `has_kernel` lets only f32 in")
}

fn values(of: FlexTensor) -> Vec<f32> {
    contiguous(of).into_data().iter::<f32>().collect()
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, Shape::from([length]))
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
