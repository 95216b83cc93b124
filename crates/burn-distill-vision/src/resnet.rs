//! Residual networks for CIFAR and ImageNet as one implementation.

mod block;
mod config;
mod layers;
mod output;
mod weights;

pub use config::{ResNetBlock, ResNetConfig, ResNetStem};
pub use output::{ResNetOutput, Stage};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d, conv::Conv2d};
use burn::tensor::{Device, Tensor, assert_shape};
use burn_distill_models::Student;

use crate::ImageBatch;
use block::{Block, ConvShape};
use layers::{batch_norm, convolve};

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
        let sum = convolve(&self.conv1, images);
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

impl Student<ImageBatch> for ResNet {
    type Output = ResNetOutput;

    /// The forward pass; that of a model without gradients (`Frozen`, `valid()`) stays outside the gradient graph,
    /// whatever device the batch is on.
    fn forward(&self, batch: &ImageBatch) -> ResNetOutput {
        let images = batch.images.clone();
        match self.conv1.weight.val().device().is_autodiff() {
            true => Self::forward(self, images),
            false => Self::forward(self, images.without_autodiff()),
        }
    }
}

/// The blocks of one stage in turn; `next_norm` follows the last.
fn run(blocks: &[Block], input: Stage, next_norm: &BatchNorm) -> Stage {
    let norms = blocks.iter().skip(1).map(|block| &block.bn1).chain([next_norm]);
    blocks.iter().zip(norms).fold(input, |stage, (block, norm)| block.forward(stage, norm))
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Device, Distribution, Tensor};
    use burn_distill_models::{Frozen, Student, Teacher};

    use super::{ResNet, ResNetConfig, ResNetOutput, Stage};
    use crate::ImageBatch;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("32-bit floats")
    }

    fn model(name: &str, device: &Device) -> ResNet {
        ResNetConfig::from_name(name, 5).and_then(|config| config.init(device)).expect("valid")
    }

    fn images(batch: usize, size: usize, device: &Device) -> Tensor<4> {
        Tensor::random([batch, 3, size, size], Distribution::Normal(0.3, 1.5), device)
    }

    fn stages(out: &ResNetOutput) -> Vec<&Stage> {
        [&out.stem, &out.stage1, &out.stage2, &out.stage3].into_iter().chain(&out.stage4).collect()
    }

    #[test]
    fn features_have_the_documented_shapes() {
        let device = Device::flex();
        let cases = [
            ("resnet8", 32, vec![[16, 32], [16, 32], [32, 16], [64, 8]]),
            ("resnet8x4", 32, vec![[32, 32], [64, 32], [128, 16], [256, 8]]),
            ("wrn_16_2", 32, vec![[16, 32], [32, 32], [64, 16], [128, 8]]),
            ("resnet18", 64, vec![[64, 32], [64, 16], [128, 8], [256, 4], [512, 2]]),
            ("resnet50", 64, vec![[64, 32], [256, 16], [512, 8], [1024, 4], [2048, 2]]),
        ];
        for (name, size, expected) in cases {
            let model = model(name, &device);
            let out = model.forward(images(2, size, &device));
            let expected: Vec<_> = expected.into_iter().map(|[width, size]| [2, width, size, size]).collect();
            let found: Vec<_> = stages(&out).into_iter().map(|stage| stage.activation.dims()).collect();
            assert_eq!(found, expected, "{name}");
            assert_eq!(out.logits.dims(), [2, 5]);
            assert_eq!(out.pooled.dims(), [2, model.config().features()]);
            assert_eq!(out.last_stage().activation.dims(), expected[expected.len() - 1], "{name}");
        }
    }

    #[test]
    fn activation_is_the_relu_of_what_is_ahead_of_it() {
        let device = Device::flex();
        for name in ["resnet8", "wrn_16_2", "resnet18"] {
            let out = model(name, &device).forward(images(2, 32, &device));
            for stage in stages(&out) {
                let before = values(stage.pre_activation.clone());
                assert!(before.iter().any(|&value| value < 0.0), "{name}");
                let after: Vec<_> = before.iter().map(|value| value.max(0.0)).collect();
                assert_eq!(values(stage.activation.clone()), after, "{name}");
                let output = values(stage.output.clone());
                assert_eq!(output == after, name != "wrn_16_2", "{name}");
            }
        }
    }

    #[test]
    fn evaluation_sees_each_image_alone() {
        let device = Device::flex();
        let model = model("wrn_16_2", &device);
        let batch = images(3, 32, &device);
        let together = values(model.forward(batch.clone()).logits);
        for row in 0..3 {
            let alone = values(model.forward(batch.clone().narrow(0, row, 1)).logits);
            for (a, b) in alone.iter().zip(&together[5 * row..]) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_frozen_model_keeps_its_running_statistics() {
        let device = Device::flex().autodiff();
        for name in ["resnet8", "wrn_16_1"] {
            let model = model(name, &device);
            let batch = images(4, 32, &device);
            let expected = values(model.valid().forward(batch.clone().without_autodiff()).logits);
            let frozen = model.clone().freeze();
            for _ in 0..3 {
                assert_eq!(values(frozen.forward(batch.clone()).logits), expected, "{name}");
            }
            // The live model does not: it normalises by the batch and moves its averages.
            assert_ne!(values(model.forward(batch.clone()).logits), expected, "{name}");
            let moved = values(model.valid().forward(batch.without_autodiff()).logits);
            assert_ne!(moved, expected, "{name}");
        }
    }

    #[test]
    fn a_batch_goes_to_student_and_teacher() {
        let device = Device::flex().autodiff();
        let student = model("resnet8", &device);
        let teacher = Frozen::new(student.clone());
        let mut batch = ImageBatch::new(images(4, 32, &device), &[Some(1), Some(0), None, Some(4)]);
        let expected = student.valid().forward(batch.images.clone().without_autodiff());
        for _ in 0..2 {
            let out = Teacher::forward(&teacher, &batch);
            assert!(!out.logits.device().is_autodiff());
            assert_eq!(values(out.logits), values(expected.logits.clone()));
            // The student that the teacher came from trains on.
            let out = Student::forward(&student, &batch);
            let gradients = out.stage2.pre_activation.mean().backward();
            assert!(student.conv1.weight.val().grad(&gradients).is_some());
        }
        // A batch without gradients trains as well.
        batch.images = batch.images.without_autodiff();
        let gradients = Student::forward(&student, &batch).logits.sum().backward();
        assert!(student.fc.weight.val().grad(&gradients).is_some());
        assert!(student.layer1[0].bn1.gamma.val().grad(&gradients).is_some());
    }

    #[test]
    fn initial_weights_have_the_documented_spread() {
        let device = Device::flex();
        let first = model("resnet8x4", &device);
        let weights = values(first.layer3[0].conv1.weight.val());
        // 256 * 128 * 9 draws of variance 2 / (256 * 9): the standard error of the variance is 0.3%.
        let variance = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / weights.len() as f64;
        assert!((variance * 256.0 * 9.0 / 2.0 - 1.0).abs() < 0.02, "{variance}");
        let bound = 1.0 / 256f32.sqrt();
        let classifier = values(first.fc.weight.val());
        assert!(classifier.iter().all(|w| w.abs() <= bound) && classifier.iter().any(|w| w.abs() > 0.9 * bound));
        let wrn = model("wrn_16_1", &device);
        assert!(wrn.fc.bias.is_some_and(|bias| values(bias.val()).iter().all(|&value| value == 0.0)));
    }

    #[test]
    #[should_panic(expected = "expected 3, got 1")]
    fn images_must_have_the_models_channels() {
        let device = Device::flex();
        model("resnet8", &device).forward(Tensor::zeros([1, 1, 32, 32], &device));
    }

    #[test]
    fn is_send_and_sync() {
        fn check<T: Send + Sync>() {}
        check::<ResNet>();
        check::<ResNetOutput>();
    }
}
