//! Batch norm on `flex`: a plane of one sample and channel at a time, which fits into the first-level cache.

use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
use burn::tensor::{Shape, TensorData};
use rayon::prelude::*;

use super::backend::BatchNormKernel;

/// Below so many elements one thread is quicker than waking others.
const PARALLEL: usize = 1 << 15;
const LANES: usize = 16;

impl BatchNormKernel for Flex {
    fn train(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f64) -> (FlexTensor, FlexTensor, FlexTensor) {
        let x = contiguous(x);
        let (gamma, beta) = (values(&gamma), values(&beta));
        let planes = Planes::of(&x);
        let statistics = planes.by_channel(|channel| moments(planes.channel(channel)));
        let lines: Vec<[f32; 2]> = (0..planes.channels)
            .map(|c| line(gamma[c], beta[c], statistics[c][0], statistics[c][1], epsilon))
            .collect();
        let output = planes.map(|channel, _, x| scaled(x, lines[channel]));
        let column = |i: usize| vector(statistics.iter().map(|moments| moments[i] as f32).collect());
        (tensor(output, x.shape()), column(0), column(1))
    }

    fn train_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gradient: FlexTensor,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x, gradient) = (contiguous(x), contiguous(gradient));
        let (gamma, mean, variance) = (values(&gamma), values(&mean), values(&variance));
        let (planes, upstream) = (Planes::of(&x), Planes::of(&gradient));
        let count = (planes.batch * planes.area) as f64;
        // Σ g and Σ g (x - mean) / std of each channel: the gradients of beta and gamma.
        let inverse = |channel: usize| 1.0 / (f64::from(variance[channel]) + epsilon).sqrt();
        let sums = planes.by_channel(|channel| {
            let pairs = upstream.channel(channel).zip(planes.channel(channel));
            let [sum, product] =
                pairs.map(|(g, x)| products(g, x, mean[channel])).fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
            [sum, product * inverse(channel)]
        });
        // gamma / std (g - mean g - x̂ mean g x̂), as one combination of g and x
        let factors: Vec<[f32; 3]> = (0..planes.channels)
            .map(|c| {
                let scale = f64::from(gamma[c]) * inverse(c);
                let of_x = -scale * inverse(c) * sums[c][1] / count;
                [scale as f32, of_x as f32, (-scale * sums[c][0] / count - of_x * f64::from(mean[c])) as f32]
            })
            .collect();
        let of_x = planes.map(|channel, plane, x| {
            let [of_g, of_x, constant] = factors[channel];
            let g = upstream.plane(plane);
            move |i: usize| g[i] * of_g + (x[i] * of_x + constant)
        });
        let column = |i: usize| vector(sums.iter().map(|sums| sums[i] as f32).collect());
        (tensor(of_x, x.shape()), column(1), column(0))
    }

    fn inference(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let x = contiguous(x);
        let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(|of| values(&of));
        let planes = Planes::of(&x);
        let lines: Vec<[f32; 2]> = (0..planes.channels)
            .map(|c| line(gamma[c], beta[c], f64::from(mean[c]), f64::from(variance[c]), epsilon))
            .collect();
        let output = planes.map(|channel, _, x| scaled(x, lines[channel]));
        tensor(output, x.shape())
    }
}

/// `[slope, intercept]` of a channel.
fn line(gamma: f32, beta: f32, mean: f64, variance: f64, epsilon: f64) -> [f32; 2] {
    let slope = f64::from(gamma) / (variance + epsilon).sqrt();
    [slope as f32, (f64::from(beta) - mean * slope) as f32]
}

fn scaled(x: &[f32], [slope, intercept]: [f32; 2]) -> impl Fn(usize) -> f32 + '_ {
    move |i| x[i] * slope + intercept
}

/// `[batch, channels, height, width]` as planes of `height * width` elements.
struct Planes<'a> {
    values: &'a [f32],
    batch: usize,
    channels: usize,
    area: usize,
}

impl<'a> Planes<'a> {
    fn of(x: &'a FlexTensor) -> Self {
        let [batch, channels, height, width] = x.shape().dims();
        let values = x.as_slice::<f32>().expect("`contiguous` made it so, and `has_kernel` lets only f32 in");
        Self { values, batch, channels, area: height * width }
    }

    fn plane(&self, plane: usize) -> &'a [f32] {
        &self.values[plane * self.area..][..self.area]
    }

    /// The planes of a channel, one of each sample.
    fn channel(&self, channel: usize) -> impl Iterator<Item = &'a [f32]> + '_ {
        (0..self.batch).map(move |sample| self.plane(sample * self.channels + channel))
    }

    fn by_channel(&self, of: impl Fn(usize) -> [f64; 2] + Sync + Send) -> Vec<[f64; 2]> {
        if self.values.len() < PARALLEL {
            (0..self.channels).map(of).collect()
        } else {
            (0..self.channels).into_par_iter().map(&of).collect()
        }
    }

    /// A tensor of this shape of which `of` gives, for the channel, the number and the elements of a plane, the element
    /// at a position.
    fn map<'b, F: Fn(usize) -> f32>(&self, of: impl Fn(usize, usize, &'a [f32]) -> F + Sync) -> Vec<f32>
    where
        'a: 'b,
    {
        let write = |(plane, output): (usize, &mut [f32])| {
            let at = of(plane % self.channels, plane, self.plane(plane));
            output.iter_mut().enumerate().for_each(|(i, output)| *output = at(i));
        };
        let mut output = vec![0.0; self.values.len()];
        if self.area == 0 {
            return output;
        }
        if self.values.len() < PARALLEL {
            output.chunks_mut(self.area).enumerate().for_each(write);
        } else {
            output.par_chunks_mut(self.area).enumerate().for_each(write);
        }
        output
    }
}

/// Mean and biased variance over planes of one size: each plane's own, which cancel nothing, put together in f64.
fn moments<'a>(planes: impl Iterator<Item = &'a [f32]>) -> [f64; 2] {
    let (mut count, mut mean, mut spread) = (0.0, 0.0, 0.0);
    for plane in planes {
        let size = plane.len() as f64;
        let own = sum(plane, |x| x) / size;
        let around = own as f32;
        let deviation = sum(plane, |x| (x - around) * (x - around)) - size * (own - f64::from(around)).powi(2);
        let difference = own - mean;
        let total = count + size;
        mean += difference * size / total;
        spread += deviation + difference * difference * count * size / total;
        count = total;
    }
    [mean, if count > 0.0 { spread / count } else { 0.0 }]
}

fn sum(plane: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let (pieces, rest) = plane.as_chunks::<LANES>();
    // In f32 for a row of pieces, in f64 for all of them.
    let blocks = pieces.chunks(64).map(|pieces| {
        let mut lanes = [0f32; LANES];
        for piece in pieces {
            for lane in 0..LANES {
                lanes[lane] += of(piece[lane]);
            }
        }
        lanes.iter().copied().map(f64::from).sum::<f64>()
    });
    blocks.sum::<f64>() + rest.iter().map(|x| f64::from(of(*x))).sum::<f64>()
}

/// `Σ g` and `Σ g (x - mean)` of a plane.
fn products(g: &[f32], x: &[f32], mean: f32) -> [f64; 2] {
    let ((g_pieces, g_rest), (x_pieces, x_rest)) = (g.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    let mut sums = [0f64; 2];
    for (g, x) in g_pieces.chunks(64).zip(x_pieces.chunks(64)) {
        let mut lanes = [[0f32; LANES]; 2];
        for (g, x) in g.iter().zip(x) {
            for lane in 0..LANES {
                lanes[0][lane] += g[lane];
                lanes[1][lane] += g[lane] * (x[lane] - mean);
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum += lanes.iter().copied().map(f64::from).sum::<f64>();
        }
    }
    for (g, x) in g_rest.iter().zip(x_rest) {
        sums[0] += f64::from(*g);
        sums[1] += f64::from(*g) * f64::from(x - mean);
    }
    sums
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

fn values(of: &FlexTensor) -> Vec<f32> {
    contiguous(of.clone()).into_data().iter::<f32>().collect()
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, Shape::from([length]))
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
