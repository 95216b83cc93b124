use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation::relu};
use burn_distill::models::Student;
use burn_distill::vision::ImageBatch;

const SIDE: usize = 28;
const CLASSES: usize = 10;

/// Convolutions of 3 x 3 with stride 2, each with batch norm and ReLU: small enough for some thousand images per second
/// on a CPU. Its output is the last map, a row per image.
#[derive(Module, Debug)]
pub struct ConvTrunk {
    convolutions: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
}

impl ConvTrunk {
    /// A trunk with a convolution for each number of channels, and fresh weights.
    pub fn new(channels: &[usize], device: &Device) -> Self {
        let inputs = std::iter::once(&1).chain(channels);
        let convolutions = inputs.zip(channels).map(|(&inputs, &outputs)| {
            Conv2dConfig::new([inputs, outputs], [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device)
        });
        Self {
            convolutions: convolutions.collect(),
            norms: channels.iter().map(|&channels| BatchNormConfig::new(channels).init(device)).collect(),
        }
    }

    /// The numbers per image that come out.
    pub fn features(channels: &[usize]) -> usize {
        let side = channels.iter().fold(SIDE, |side, _| side.div_ceil(2));
        channels.last().copied().unwrap_or(1) * side * side
    }
}

impl Student<ImageBatch> for ConvTrunk {
    type Output = Tensor<2>;

    fn forward(&self, batch: &ImageBatch) -> Tensor<2> {
        let layers = self.convolutions.iter().zip(&self.norms);
        let map =
            layers.fold(batch.images.clone(), |map, (convolution, norm)| relu(norm.forward(convolution.forward(map))));
        map.flatten(1, 3)
    }
}

/// A [`ConvTrunk`] and a linear layer on its last map.
#[derive(Module, Debug)]
pub struct ConvNet {
    trunk: ConvTrunk,
    dropout: Dropout,
    head: Linear,
}

/// What a [`ConvNet`] says.
#[derive(Clone, Debug)]
pub struct ConvNetOutput {
    /// `[batch, 10]`.
    pub logits: Tensor<2>,
    /// What the last convolution gives, one row per image: the input of the last layer.
    pub hidden: Tensor<2>,
}

impl ConvNet {
    /// A network with a convolution for each number of channels, and fresh weights: the same seed gives the same ones.
    pub fn new(channels: &[usize], seed: u64, device: &Device) -> Self {
        device.seed(seed);
        Self {
            trunk: ConvTrunk::new(channels, device),
            dropout: DropoutConfig::new(0.0).init(),
            head: LinearConfig::new(ConvTrunk::features(channels), CLASSES).init(device),
        }
    }

    /// The same network with dropout ahead of its last layer.
    pub fn with_dropout(self, probability: f64) -> Self {
        Self { dropout: DropoutConfig::new(probability).init(), ..self }
    }
}

impl Student<ImageBatch> for ConvNet {
    type Output = ConvNetOutput;

    fn forward(&self, batch: &ImageBatch) -> ConvNetOutput {
        let hidden = self.trunk.forward(batch);
        ConvNetOutput { logits: self.head.forward(self.dropout.forward(hidden.clone())), hidden }
    }
}
