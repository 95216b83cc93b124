//! Layers in the memory of this process. Batch norm goes a plane of one sample and channel at a time, which fits into the
//! first-level cache.

use rayon::prelude::*;

/// Below so many elements one thread is quicker than waking others.
const PARALLEL: usize = 1 << 15;
const LANES: usize = 16;

/// `[batch, channels, height, width]` as planes of `height * width` elements.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    batch: usize,
    channels: usize,
    area: usize,
}

impl Planes {
    pub(super) fn new([batch, channels, height, width]: [usize; 4]) -> Self {
        Self { batch, channels, area: height * width }
    }

    fn length(self) -> usize {
        self.batch * self.channels * self.area
    }

    /// The planes of a channel, one of each sample.
    fn channel(self, values: &[f32], channel: usize) -> impl Iterator<Item = &[f32]> {
        (0..self.batch).map(move |sample| &values[(sample * self.channels + channel) * self.area..][..self.area])
    }

    fn by_channel(self, of: impl Fn(usize) -> [f64; 2] + Sync + Send) -> Vec<[f64; 2]> {
        if self.length() < PARALLEL {
            (0..self.channels).map(of).collect()
        } else {
            (0..self.channels).into_par_iter().map(&of).collect()
        }
    }

    /// Mean and biased variance of each channel.
    pub(super) fn moments(self, x: &[f32]) -> Vec<[f64; 2]> {
        self.by_channel(|channel| moments(self.channel(x, channel)))
    }

    /// `x` times a slope plus an intercept, one of each for a channel.
    pub(super) fn scaled(self, x: &[f32], lines: &[[f32; 2]]) -> Vec<f32> {
        let mut output = vec![0.0; x.len()];
        let planes = self.planes(&mut output, x);
        each(self.length(), planes, |(channel, output, x)| {
            let [slope, intercept] = lines[channel];
            output.iter_mut().zip(x).for_each(|(output, x)| *output = x * slope + intercept);
        });
        output
    }

    /// [`Planes::scaled`] in place.
    pub(super) fn scale(self, x: &mut [f32], lines: &[[f32; 2]]) {
        let planes = x.par_chunks_mut(self.area.max(1)).enumerate();
        each(self.length(), planes, |(plane, x)| {
            let [slope, intercept] = lines[plane % self.channels];
            x.iter_mut().for_each(|x| *x = *x * slope + intercept);
        });
    }

    /// The backward pass of batch norm, from its input and the gradient to its output.
    pub(super) fn backward(
        self,
        x: &[f32],
        gradient: &[f32],
        gamma: &[f32],
        [mean, variance]: [&[f32]; 2],
        epsilon: f64,
    ) -> Gradients {
        let count = (self.batch * self.area) as f64;
        // Σ g and Σ g (x - mean) / std of each channel: the gradients of beta and gamma.
        let inverse = |channel: usize| 1.0 / (f64::from(variance[channel]) + epsilon).sqrt();
        let sums = self.by_channel(|channel| {
            let pairs = self.channel(gradient, channel).zip(self.channel(x, channel));
            let [sum, product] =
                pairs.map(|(g, x)| products(g, x, mean[channel])).fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
            [sum, product * inverse(channel)]
        });
        // gamma / std (g - mean g - x̂ mean g x̂), as one combination of g and x
        let factors = (0..self.channels)
            .map(|c| {
                let scale = f64::from(gamma[c]) * inverse(c);
                let of_x = -scale * inverse(c) * sums[c][1] / count;
                [scale as f32, of_x as f32, (-scale * sums[c][0] / count - of_x * f64::from(mean[c])) as f32]
            })
            .collect();
        let column = |i: usize| sums.iter().map(|sums| sums[i] as f32).collect();
        Gradients { planes: self, of_gamma: column(1), of_beta: column(0), factors }
    }

    /// Planes of both, with their channel.
    fn planes<'a>(
        self,
        to: &'a mut [f32],
        from: &'a [f32],
    ) -> impl IndexedParallelIterator<Item = (usize, &'a mut [f32], &'a [f32])> {
        let area = self.area.max(1);
        let planes = to.par_chunks_mut(area).zip(from.par_chunks(area)).enumerate();
        planes.map(move |(plane, (to, from))| (plane % self.channels, to, from))
    }
}

/// Gradients of a batch norm.
pub(super) struct Gradients {
    planes: Planes,
    pub(super) of_gamma: Vec<f32>,
    pub(super) of_beta: Vec<f32>,
    /// What the gradient to the output and the input are multiplied by, and a constant, of each channel.
    factors: Vec<[f32; 3]>,
}

impl Gradients {
    /// Replaces the gradient to the output by that to the input.
    pub(super) fn replace(&self, x: &[f32], gradient: &mut [f32]) {
        each(self.planes.length(), self.planes.planes(gradient, x), |(channel, gradient, x)| {
            let [of_g, of_x, constant] = self.factors[channel];
            gradient.iter_mut().zip(x).for_each(|(g, x)| *g = *g * of_g + (x * of_x + constant));
        });
    }

    /// Writes the gradient to the input.
    pub(super) fn write(&self, x: &[f32], gradient: &[f32], output: &mut [f32]) {
        let planes = self.planes.planes(output, x).zip(gradient.par_chunks(self.planes.area.max(1)));
        each(self.planes.length(), planes, |((channel, output, x), g)| {
            let [of_g, of_x, constant] = self.factors[channel];
            let inputs = g.iter().zip(x);
            output.iter_mut().zip(inputs).for_each(|(output, (g, x))| *output = g * of_g + (x * of_x + constant));
        });
    }
}

/// Elements that one task of an element-wise operation takes.
const TASK: usize = 1 << 14;

pub(super) fn rectify(x: &mut [f32]) {
    let tasks = x.par_chunks_mut(TASK);
    each(tasks.len() * TASK, tasks, |x| x.iter_mut().for_each(|x| *x = rectified_one(*x)));
}

pub(super) fn rectified(x: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let tasks = output.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    each(x.len(), tasks, |(output, x)| output.iter_mut().zip(x).for_each(|(output, x)| *output = rectified_one(*x)));
    output
}

/// NaN stays NaN.
fn rectified_one(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Replaces the gradient to `output` by that to the input.
pub(super) fn rectify_backward(output: &[f32], gradient: &mut [f32]) {
    let tasks = gradient.par_chunks_mut(TASK).zip(output.par_chunks(TASK));
    each(output.len(), tasks, |(gradient, output)| {
        gradient.iter_mut().zip(output).for_each(|(g, output)| *g = if *output <= 0.0 { 0.0 } else { *g });
    });
}

/// Calls `each` for every task: on this thread alone where all of them are small.
fn each<T: Send>(length: usize, planes: impl IndexedParallelIterator<Item = T>, each: impl Fn(T) + Sync + Send) {
    let planes = if length < PARALLEL { planes.with_min_len(usize::MAX) } else { planes.with_min_len(1) };
    planes.for_each(each);
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
