//! The residual block in its three kinds.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use super::{
    ResNetBlock, Stage,
    layers::{batch_norm, convolve, relu},
};

/// What tells one block from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockShape {
    pub(super) kind: ResNetBlock,
    pub(super) channels_in: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

/// A convolution without bias, "same" padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvShape {
    pub(super) channels_in: usize,
    pub(super) channels_out: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
}

impl ConvShape {
    pub(super) fn init(self, initializer: &Initializer, device: &Device) -> Conv2d {
        let padding = self.kernel / 2;
        Conv2dConfig::new([self.channels_in, self.channels_out], [self.kernel; 2])
            .with_stride([self.stride; 2])
            .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
            .with_bias(false)
            .with_initializer(initializer.clone())
            .init(device)
    }

    fn num_parameters(self) -> usize {
        self.channels_in * self.channels_out * self.kernel * self.kernel
    }
}

impl BlockShape {
    pub(super) fn channels_out(self) -> usize {
        self.width * self.kind.expansion()
    }

    /// The convolutions of the residual branch, in order: kernel and stride of each.
    fn branch(self) -> Vec<ConvShape> {
        let conv = |channels_in, channels_out, kernel, stride| ConvShape { channels_in, channels_out, kernel, stride };
        match self.kind {
            ResNetBlock::Basic | ResNetBlock::PreActivation => {
                vec![conv(self.channels_in, self.width, 3, self.stride), conv(self.width, self.width, 3, 1)]
            }
            ResNetBlock::Bottleneck => vec![
                conv(self.channels_in, self.width, 1, 1),
                conv(self.width, self.width, 3, self.stride),
                conv(self.width, self.channels_out(), 1, 1),
            ],
        }
    }

    /// The 1x1 convolution of a shortcut that changes shape.
    fn projection(self) -> Option<ConvShape> {
        let (channels_in, channels_out) = (self.channels_in, self.channels_out());
        let changes = self.stride != 1 || channels_in != channels_out;
        changes.then_some(ConvShape { channels_in, channels_out, kernel: 1, stride: self.stride })
    }

    pub(super) fn init(self, initializer: &Initializer, device: &Device) -> Block {
        let norm = |channels: usize| BatchNormConfig::new(channels).init(device);
        let pre_activation = self.kind == ResNetBlock::PreActivation;
        let branch = self.branch();
        // A norm ahead of its convolution has the convolution's input channels, one after it the output channels.
        let channels = |conv: &ConvShape| if pre_activation { conv.channels_in } else { conv.channels_out };
        Block {
            conv1: branch[0].init(initializer, device),
            bn1: norm(channels(&branch[0])),
            conv2: branch[1].init(initializer, device),
            bn2: norm(channels(&branch[1])),
            conv3: branch.get(2).map(|conv| conv.init(initializer, device)),
            bn3: branch.get(2).map(|conv| norm(channels(conv))),
            downsample: self.projection().map(|conv| Projection {
                conv: conv.init(initializer, device),
                bn: (!pre_activation).then(|| norm(conv.channels_out)),
            }),
            pre_activation,
        }
    }

    pub(super) fn num_parameters(self) -> usize {
        let pre_activation = self.kind == ResNetBlock::PreActivation;
        let norm = |conv: &ConvShape| 2 * if pre_activation { conv.channels_in } else { conv.channels_out };
        let branch: usize = self.branch().iter().map(|conv| conv.num_parameters() + norm(conv)).sum();
        let shortcut = self
            .projection()
            .map_or(0, |conv| conv.num_parameters() + if pre_activation { 0 } else { 2 * conv.channels_out });
        branch + shortcut
    }

    /// Multiply-adds of the block's convolutions on an input of `height` x `width`.
    pub(super) fn multiply_adds(self, height: usize, width: usize) -> u64 {
        let area = |stride: usize| (height.div_ceil(stride) * width.div_ceil(stride)) as u64;
        let mut stride = 1;
        let mut total = self.projection().map_or(0, |conv| conv.num_parameters() as u64 * area(conv.stride));
        for conv in self.branch() {
            stride *= conv.stride;
            total += conv.num_parameters() as u64 * area(stride);
        }
        total
    }
}

/// One residual block of any kind.
#[derive(Module, Debug)]
pub(super) struct Block {
    pub(super) conv1: Conv2d,
    pub(super) bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    downsample: Option<Projection>,
    pre_activation: bool,
}

/// A shortcut that changes shape.
#[derive(Module, Debug)]
struct Projection {
    conv: Conv2d,
    bn: Option<BatchNorm>,
}

impl Projection {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = convolve(&self.conv, x);
        match &self.bn {
            Some(bn) => batch_norm(bn, x),
            None => x,
        }
    }
}

impl Block {
    /// From the features ahead of the block to those after it. `next_norm` is the batch norm that a pre-activation
    /// network applies to the block's sum.
    pub(super) fn forward(&self, input: Stage, next_norm: &BatchNorm) -> Stage {
        if self.pre_activation {
            let x = relu(batch_norm(&self.bn2, convolve(&self.conv1, input.activation.clone())));
            let x = convolve(&self.conv2, x);
            let shortcut = match &self.downsample {
                Some(projection) => projection.forward(input.activation),
                None => input.output,
            };
            Stage::pre_activation(x + shortcut, next_norm)
        } else {
            let mut x = batch_norm(&self.bn1, convolve(&self.conv1, input.output.clone()));
            x = batch_norm(&self.bn2, convolve(&self.conv2, relu(x)));
            if let (Some(conv), Some(bn)) = (&self.conv3, &self.bn3) {
                x = batch_norm(bn, convolve(conv, relu(x)));
            }
            let shortcut = match &self.downsample {
                Some(projection) => projection.forward(input.output),
                None => input.output,
            };
            Stage::post_activation(x + shortcut)
        }
    }
}
