//! Residual networks for CIFAR and ImageNet as one implementation.

mod block;
mod config;
mod output;
mod weights;

pub use config::{ResNetBlock, ResNetConfig, ResNetStem};
pub use output::{ResNetOutput, Stage};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d, conv::Conv2d};
use burn::tensor::{Device, Tensor, assert_shape};

use block::{Block, ConvShape, batch_norm};

/// A residual network, made by [`ResNetConfig::init`], [`ResNetConfig::load`] or [`ResNet::from_safetensors`].
///
/// Batch norm takes batch statistics and updates the running ones where the images are on an autodiff device and the
/// module is neither frozen nor [`valid`](Module::valid); the running variance is the unbiased one, as in PyTorch.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    max_pool: Option<MaxPool2d>,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    fc: Linear,
    #[module(skip)]
    config: ResNetConfig,
}

impl ResNet {
    /// Logits and features of a batch of images.
    ///
    /// # Shapes
    /// - `images`: `[batch, in_channels, height, width]`, normalised as the weights expect
    /// - features: the CIFAR families keep the resolution in stem and stage 1 and halve it in stages 2 and 3; the
    ///   ImageNet family halves it in the stem, in the max pool after it, and in stages 2, 3 and 4
    ///
    /// # Panics
    /// If the images do not have `in_channels` channels.
    pub fn forward(&self, images: Tensor<4>) -> ResNetOutput {
        let channels = self.config.in_channels;
        assert_shape!(images, [_, channels, _, _]);
        let sum = self.conv1.forward(images);
        let stem = match self.config.block {
            ResNetBlock::PreActivation => Stage::pre_activation(sum, self.norm_ahead_of(&self.layer1)),
            ResNetBlock::Basic | ResNetBlock::Bottleneck => Stage::post_activation(batch_norm(&self.bn1, sum)),
        };
        let stage1 = run(&self.layer1, self.pool(&stem), self.norm_ahead_of(&self.layer2));
        let stage2 = run(&self.layer2, stage1.clone(), self.norm_ahead_of(&self.layer3));
        let stage3 = run(&self.layer3, stage2.clone(), self.norm_ahead_of(&self.layer4));
        let stage4 = (!self.layer4.is_empty()).then(|| run(&self.layer4, stage3.clone(), &self.bn1));

        let last = stage4.as_ref().unwrap_or(&stage3).activation.clone();
        let pooled = last.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2);
        ResNetOutput { logits: self.fc.forward(pooled.clone()), pooled, stem, stage1, stage2, stage3, stage4 }
    }

    /// The architecture.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// In a pre-activation network, the batch norm between what comes ahead of `layer` and `layer` itself; behind the
    /// last layer that is the network's own.
    fn norm_ahead_of<'a>(&'a self, layer: &'a [Block]) -> &'a BatchNorm {
        layer.first().map_or(&self.bn1, |block| &block.bn1)
    }

    /// The stem's features as the first stage reads them.
    fn pool(&self, stem: &Stage) -> Stage {
        let Some(pool) = &self.max_pool else { return stem.clone() };
        let x = pool.forward(stem.output.clone());
        Stage { pre_activation: x.clone(), activation: x.clone(), output: x }
    }

    /// The model with the weights of [`ResNetConfig::init`]; `config` is valid.
    fn random(config: &ResNetConfig, device: &Device) -> Self {
        /// Draws every weight now rather than at its first use, so that they depend on the seed alone.
        struct Draw;
        impl ModuleVisitor for Draw {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                param.val();
            }
        }

        let kaiming = Initializer::KaimingNormal { gain: 2f64.sqrt(), fan_out_only: true };
        let mut model = Self::build(config, &kaiming, device);
        model.fc = LinearConfig::new(config.features(), config.classes).init(device);
        if config.block == ResNetBlock::PreActivation {
            model.fc.bias = Some(Initializer::Zeros.init([config.classes], device));
        }
        model.visit(&mut Draw);
        model
    }

    /// The model with all convolutions from `initializer` and a zero classifier; `config` is valid.
    fn build(config: &ResNetConfig, initializer: &Initializer, device: &Device) -> Self {
        let image_net = config.stem == ResNetStem::ImageNet;
        let stem = ConvShape {
            channels_in: config.in_channels,
            channels_out: config.stem_width,
            kernel: config.stem_kernel(),
            stride: if image_net { 2 } else { 1 },
        };
        let max_pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]);
        let max_pool = max_pool.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        let norm_width = if config.block == ResNetBlock::PreActivation { config.features() } else { config.stem_width };
        let mut stages = config.stages().into_iter();
        let mut layer = || -> Vec<Block> {
            let shapes = stages.next().unwrap_or_default();
            shapes.into_iter().map(|shape| shape.init(initializer, device)).collect()
        };
        Self {
            conv1: stem.init(initializer, device),
            bn1: BatchNormConfig::new(norm_width).init(device),
            max_pool: image_net.then(|| max_pool.init()),
            layer1: layer(),
            layer2: layer(),
            layer3: layer(),
            layer4: layer(),
            fc: LinearConfig::new(config.features(), config.classes).with_initializer(Initializer::Zeros).init(device),
            config: config.clone(),
        }
    }
}

/// The blocks of one stage in turn; `next_norm` follows the last.
fn run(blocks: &[Block], input: Stage, next_norm: &BatchNorm) -> Stage {
    let norms = blocks.iter().skip(1).map(|block| &block.bn1).chain([next_norm]);
    blocks.iter().zip(norms).fold(input, |stage, (block, norm)| block.forward(stage, norm))
}
