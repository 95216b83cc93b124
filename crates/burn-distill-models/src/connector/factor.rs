use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation::leaky_relu};

/// Slope of the leaky ReLU below 0, as in the authors' code.
const SLOPE: f64 = 0.1;

/// Configuration of a [`Paraphraser`].
#[derive(Config, Debug)]
pub struct ParaphraserConfig {
    /// Channels of the teacher's feature map.
    pub teacher_channels: usize,
    /// Channels of the factor. The paper's rate k is their ratio to the teacher's, 0.5 by
    /// default in the authors' code.
    pub factor_channels: usize,
    /// Whether a batch normalisation stands behind each convolution. The authors published theirs without.
    #[config(default = false)]
    pub norm: bool,
}

impl ParaphraserConfig {
    /// A paraphraser with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> Paraphraser {
        let (teacher, factor) = (self.teacher_channels, self.factor_channels);
        let decode = |channels: [usize; 2]| Decode {
            conv: ConvTranspose2dConfig::new(channels, [3, 3]).with_padding([1, 1]).init(device),
            norm: self.norm.then(|| BatchNormConfig::new(channels[1]).init(device)),
        };
        Paraphraser {
            encoder: encoder(teacher, factor, self.norm, device),
            decoder: [decode([factor, factor]), decode([factor, teacher]), decode([teacher, teacher])],
        }
    }
}

/// Configuration of a [`Translator`].
#[derive(Config, Debug)]
pub struct TranslatorConfig {
    /// Channels of the student's feature map.
    pub student_channels: usize,
    /// Channels of the paraphraser's factor.
    pub factor_channels: usize,
    /// Whether a batch normalisation stands behind each convolution. The authors published theirs without; RepDistiller
    /// and torchdistill have it.
    #[config(default = false)]
    pub norm: bool,
}

impl TranslatorConfig {
    /// A translator with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> Translator {
        Translator { encoder: encoder(self.student_channels, self.factor_channels, self.norm, device) }
    }
}

/// The paraphraser of factor transfer: an autoencoder of the teacher's features, whose code is the *factor* that the
/// student's should match.
///
/// It learns to give the features back, by a hint loss between [`reconstruct`](Self::reconstruct) and the features. Factor
/// transfer itself sends it no gradient, so both can be terms of one run: the reconstruction alone in the first steps, by
/// the weights' schedules, and then the transfer, as the authors do in two runs.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::{ParaphraserConfig, TranslatorConfig};
///
/// let device = Device::flex();
/// let paraphraser = ParaphraserConfig::new(64, 32).init(&device);
/// let translator = TranslatorConfig::new(16, 32).init(&device);
/// let (student, teacher) = (Tensor::zeros([2, 16, 8, 8], &device), Tensor::zeros([2, 64, 8, 8], &device));
/// assert_eq!(paraphraser.reconstruct(teacher.clone()).dims(), teacher.dims());
/// assert_eq!(paraphraser.forward(teacher).dims(), translator.forward(student).dims());
/// ```
///
/// # References
/// Kim, Park, Kwak, *Paraphrasing Complex Network: Network Compression via Factor Transfer*, 2018, arXiv 1802.04977,
/// section 3; reference code Jangho-Kim/Factor-Transfer-pytorch `Models/FeatureProjection.py` at 19cce265 and
/// RepDistiller `models/util.py` at b84f547c.
#[derive(Module, Debug)]
pub struct Paraphraser {
    encoder: [Encode; 3],
    decoder: [Decode; 3],
}

impl Paraphraser {
    /// The factor.
    ///
    /// # Shapes
    /// `[batch, teacher_channels, h, w]` to `[batch, factor_channels, h, w]`.
    pub fn forward(&self, teacher: Tensor<4>) -> Tensor<4> {
        encode(&self.encoder, teacher)
    }

    /// The features that the factor of these gives back, in their shape.
    pub fn reconstruct(&self, teacher: Tensor<4>) -> Tensor<4> {
        self.decoder
            .iter()
            .fold(self.forward(teacher), |features, layer| activate(layer.conv.forward(features), layer.norm.as_ref()))
    }
}

/// The translator of factor transfer: the student's features as a factor beside that of a [`Paraphraser`].
#[derive(Module, Debug)]
pub struct Translator {
    encoder: [Encode; 3],
}

impl Translator {
    /// The factor.
    ///
    /// # Shapes
    /// `[batch, student_channels, h, w]` to `[batch, factor_channels, h, w]`.
    pub fn forward(&self, student: Tensor<4>) -> Tensor<4> {
        encode(&self.encoder, student)
    }
}

#[derive(Module, Debug)]
struct Encode {
    conv: Conv2d,
    norm: Option<BatchNorm>,
}

#[derive(Module, Debug)]
struct Decode {
    conv: ConvTranspose2d,
    norm: Option<BatchNorm>,
}

fn encoder(channels: usize, factor: usize, norm: bool, device: &Device) -> [Encode; 3] {
    [[channels, channels], [channels, factor], [factor, factor]].map(|channels| Encode {
        conv: Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device),
        norm: norm.then(|| BatchNormConfig::new(channels[1]).init(device)),
    })
}

fn encode(layers: &[Encode; 3], features: Tensor<4>) -> Tensor<4> {
    layers.iter().fold(features, |features, layer| activate(layer.conv.forward(features), layer.norm.as_ref()))
}

fn activate(features: Tensor<4>, norm: Option<&BatchNorm>) -> Tensor<4> {
    let features = match norm {
        Some(norm) => norm.forward(features),
        None => features,
    };
    leaky_relu(features, SLOPE)
}
