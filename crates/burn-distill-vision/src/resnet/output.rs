//! What a forward pass shows.

use burn::nn::BatchNorm;
use burn::tensor::{Device, Tensor};
use burn_distill_models::OnDevice;

use super::layers::{batch_norm, relu};

/// The logits of a [`ResNet`](super::ResNet) and its features at every depth.
#[derive(Clone, Debug)]
pub struct ResNetOutput {
    /// Unnormalised class scores, `[batch, classes]`.
    pub logits: Tensor<2>,
    /// The last stage's activation averaged over space, the classifier's input: `[batch, features]`.
    pub pooled: Tensor<2>,
    /// After the stem's convolution, ahead of the max pool where there is one.
    pub stem: Stage,
    /// After the first stage.
    pub stage1: Stage,
    /// After the second stage.
    pub stage2: Stage,
    /// After the third stage.
    pub stage3: Stage,
    /// After the fourth stage, which only the ImageNet family has.
    pub stage4: Option<Stage>,
}

impl ResNetOutput {
    /// The last stage: the fourth in the ImageNet family, the third in the CIFAR families.
    pub fn last_stage(&self) -> &Stage {
        self.stage4.as_ref().unwrap_or(&self.stage3)
    }
}

/// Features at the end of a stage, each `[batch, channels, height, width]`.
///
/// In every family `activation` is `relu(pre_activation)`. In wide ResNets, whose blocks begin with batch norm and
/// ReLU, those two belong to the block that follows (or to the final batch norm) and `output` is the sum ahead of them.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The value the ReLU is applied to.
    pub pre_activation: Tensor<4>,
    /// The value after the ReLU.
    pub activation: Tensor<4>,
    /// What the stage's last block returns: `activation`, or in wide ResNets the residual sum ahead of batch norm.
    pub output: Tensor<4>,
}

impl OnDevice for ResNetOutput {
    fn on_device(&self, device: &Device) -> Self {
        Self {
            logits: self.logits.on_device(device),
            pooled: self.pooled.on_device(device),
            stem: self.stem.on_device(device),
            stage1: self.stage1.on_device(device),
            stage2: self.stage2.on_device(device),
            stage3: self.stage3.on_device(device),
            stage4: self.stage4.on_device(device),
        }
    }
}

impl OnDevice for Stage {
    fn on_device(&self, device: &Device) -> Self {
        Self {
            pre_activation: self.pre_activation.on_device(device),
            activation: self.activation.on_device(device),
            output: self.output.on_device(device),
        }
    }
}

impl Stage {
    /// The end of a block that applies its ReLU last.
    pub(super) fn post_activation(sum: Tensor<4>) -> Self {
        let activation = relu(sum.clone());
        Self { pre_activation: sum, output: activation.clone(), activation }
    }

    /// The end of a block whose sum meets `next_norm` and a ReLU in what follows.
    pub(super) fn pre_activation(sum: Tensor<4>, next_norm: &BatchNorm) -> Self {
        let pre_activation = batch_norm(next_norm, sum.clone());
        Self { activation: relu(pre_activation.clone()), pre_activation, output: sum }
    }
}
