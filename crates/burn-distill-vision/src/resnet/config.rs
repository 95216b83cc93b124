//! Which ResNet: families, depths and widths as data.

use burn::config::Config;
use burn::tensor::Device;

use super::ResNet;
use super::block::BlockShape;
use crate::error::{Result, VisionError};

/// The residual block a [`ResNet`] is made of.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ResNetBlock {
    /// Two 3x3 convolutions, activation after the sum (ResNet-18, ResNet-34, CIFAR ResNet).
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions with 4 times the width at the end, activation after the sum; the 3x3
    /// convolution carries the stride, as in torchvision (ResNet-50, 101, 152).
    Bottleneck,
    /// Batch norm and activation ahead of each of two 3x3 convolutions (wide ResNet).
    PreActivation,
}

/// What stands ahead of the first stage.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ResNetStem {
    /// A 3x3 convolution that keeps the resolution.
    Cifar,
    /// A 7x7 convolution and a 3x3 max pool that divide the resolution by 4.
    ImageNet,
}

/// A residual network: stem, three or four stages, global average pool, linear classifier.
///
/// Every stage but the first halves the resolution in its first block.
///
/// | constructor | family | names of weights and numbers after |
/// |---|---|---|
/// | [`resnet18`](Self::resnet18) to [`resnet152`](Self::resnet152) | ImageNet | torchvision `models.resnet` |
/// | [`cifar`](Self::cifar), [`cifar_x4`](Self::cifar_x4) | CIFAR ResNet | RepDistiller `models/resnet.py` |
/// | [`wrn`](Self::wrn) | wide ResNet | RepDistiller `models/wrn.py`, dropout rate 0 |
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_vision::ResNetConfig;
///
/// # fn main() -> Result<(), burn_distill_vision::VisionError> {
/// let device = Device::flex();
/// let model = ResNetConfig::from_name("resnet8", 10)?.with_in_channels(1).init(&device)?;
/// let out = model.forward(Tensor::zeros([2, 1, 28, 28], &device));
/// assert_eq!(out.logits.dims(), [2, 10]);
/// assert_eq!(out.stage3.activation.dims(), [2, 64, 7, 7]);
/// # Ok(())
/// # }
/// ```
#[derive(Config, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// The residual block of all stages.
    pub block: ResNetBlock,
    /// What stands ahead of the first stage.
    pub stem: ResNetStem,
    /// Channels the stem gives to the first stage.
    pub stem_width: usize,
    /// Width of each stage's 3x3 convolutions: 3 or 4 entries.
    pub widths: Vec<usize>,
    /// Blocks of each stage: as many entries as `widths`.
    pub depths: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Channels of an image: 3 for colour, 1 for grey. Default: 3
    #[config(default = 3)]
    pub in_channels: usize,
}

/// The names [`ResNetConfig::from_name`] knows.
const NAMES: [&str; 18] = [
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet8x4",
    "resnet32x4",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
];

/// The largest width, depth and number of image channels: more than any use, and no product of them overflows.
const LARGEST: usize = 1 << 16;

/// The largest number of classes.
const MOST_CLASSES: usize = 1 << 24;

/// The largest number of parameters, so that a damaged file's architecture cannot ask for all memory.
const MOST_PARAMETERS: usize = 1 << 30;

impl ResNetConfig {
    /// torchvision's `resnet18`: 11,689,512 parameters with 1000 classes.
    pub fn resnet18(classes: usize) -> Self {
        Self::image_net(ResNetBlock::Basic, [2, 2, 2, 2], classes)
    }

    /// torchvision's `resnet34`: 21,797,672 parameters with 1000 classes.
    pub fn resnet34(classes: usize) -> Self {
        Self::image_net(ResNetBlock::Basic, [3, 4, 6, 3], classes)
    }

    /// torchvision's `resnet50`: 25,557,032 parameters with 1000 classes.
    pub fn resnet50(classes: usize) -> Self {
        Self::image_net(ResNetBlock::Bottleneck, [3, 4, 6, 3], classes)
    }

    /// torchvision's `resnet101`: 44,549,160 parameters with 1000 classes.
    pub fn resnet101(classes: usize) -> Self {
        Self::image_net(ResNetBlock::Bottleneck, [3, 4, 23, 3], classes)
    }

    /// torchvision's `resnet152`: 60,192,808 parameters with 1000 classes.
    pub fn resnet152(classes: usize) -> Self {
        Self::image_net(ResNetBlock::Bottleneck, [3, 8, 36, 3], classes)
    }

    fn image_net(block: ResNetBlock, depths: [usize; 4], classes: usize) -> Self {
        Self::new(block, ResNetStem::ImageNet, 64, vec![64, 128, 256, 512], depths.to_vec(), classes)
    }

    /// CIFAR ResNet of `depth` = 6n+2 layers (8, 14, 20, 32, 44, 56, 110) and widths 16, 16, 32, 64.
    ///
    /// Where a shortcut changes shape it is a 1x1 convolution with batch norm, as in RepDistiller; the ResNet paper
    /// pads with zeros instead.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `depth` is not 6n+2 with n of at least 1.
    pub fn cifar(depth: usize, classes: usize) -> Result<Self, VisionError> {
        Self::cifar_of(depth, 16, [16, 32, 64], classes)
    }

    /// CIFAR ResNet with the wide channels of "resnet8x4" and "resnet32x4": widths 32, 64, 128, 256.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `depth` is not 6n+2 with n of at least 1.
    pub fn cifar_x4(depth: usize, classes: usize) -> Result<Self, VisionError> {
        Self::cifar_of(depth, 32, [64, 128, 256], classes)
    }

    fn cifar_of(depth: usize, stem_width: usize, widths: [usize; 3], classes: usize) -> Result<Self, VisionError> {
        let blocks = blocks_per_stage(depth, 2)?;
        let (block, stem) = (ResNetBlock::Basic, ResNetStem::Cifar);
        Ok(Self::new(block, stem, stem_width, widths.to_vec(), vec![blocks; 3], classes))
    }

    /// Wide ResNet WRN-`depth`-`widen` for CIFAR: `depth` = 6n+4, widths 16, 16k, 32k, 64k for `widen` = k.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `depth` is not 6n+4 with n of at least 1.
    ///
    /// # References
    /// Zagoruyko and Komodakis, Wide Residual Networks, <https://arxiv.org/abs/1605.07146>.
    pub fn wrn(depth: usize, widen: usize, classes: usize) -> Result<Self, VisionError> {
        let blocks = blocks_per_stage(depth, 4)?;
        check("widen", widen, LARGEST / 64)?;
        let widths = vec![16 * widen, 32 * widen, 64 * widen];
        Ok(Self::new(ResNetBlock::PreActivation, ResNetStem::Cifar, 16, widths, vec![blocks; 3], classes))
    }

    /// The architecture of a name as the distillation literature writes it.
    ///
    /// CIFAR: `resnet8`, `resnet14`, `resnet20`, `resnet32`, `resnet44`, `resnet56`, `resnet110`, `resnet8x4`,
    /// `resnet32x4`, `wrn_16_1`, `wrn_16_2`, `wrn_40_1`, `wrn_40_2`. ImageNet: `resnet18`, `resnet34`, `resnet50`,
    /// `resnet101`, `resnet152`.
    ///
    /// # Errors
    /// [`VisionError::UnknownArchitecture`], which lists these names.
    pub fn from_name(name: &str, classes: usize) -> Result<Self, VisionError> {
        match name {
            "resnet8" => Self::cifar(8, classes),
            "resnet14" => Self::cifar(14, classes),
            "resnet20" => Self::cifar(20, classes),
            "resnet32" => Self::cifar(32, classes),
            "resnet44" => Self::cifar(44, classes),
            "resnet56" => Self::cifar(56, classes),
            "resnet110" => Self::cifar(110, classes),
            "resnet8x4" => Self::cifar_x4(8, classes),
            "resnet32x4" => Self::cifar_x4(32, classes),
            "wrn_16_1" => Self::wrn(16, 1, classes),
            "wrn_16_2" => Self::wrn(16, 2, classes),
            "wrn_40_1" => Self::wrn(40, 1, classes),
            "wrn_40_2" => Self::wrn(40, 2, classes),
            "resnet18" => Ok(Self::resnet18(classes)),
            "resnet34" => Ok(Self::resnet34(classes)),
            "resnet50" => Ok(Self::resnet50(classes)),
            "resnet101" => Ok(Self::resnet101(classes)),
            "resnet152" => Ok(Self::resnet152(classes)),
            _ => Err(VisionError::UnknownArchitecture { name: name.into(), known: NAMES.join(", ") }),
        }
    }

    /// Creates the model with fresh weights, drawn now from `device`'s random generator (see
    /// [`Device::seed`]).
    ///
    /// As in the reference implementations: convolutions are normal with variance 2 / fan_out (He et al., fan_out
    /// mode), batch norms are 1 and 0, the classifier is uniform in +-1/sqrt(fan_in), and its bias likewise, or 0 in
    /// wide ResNets.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if a field is out of range.
    pub fn init(&self, device: &Device) -> Result<ResNet, VisionError> {
        self.validate()?;
        Ok(ResNet::random(self, device))
    }

    /// Number of trainable parameters, as PyTorch counts them.
    ///
    /// Burn's [`Module::num_params`](burn::module::Module::num_params) counts batch norm's running statistics too.
    pub fn num_parameters(&self) -> usize {
        let kernel = self.stem_kernel();
        let blocks = self.stages().into_iter().flatten();
        let stem = self.in_channels * self.stem_width * kernel * kernel;
        let norm = 2 * if self.block == ResNetBlock::PreActivation { self.features() } else { self.stem_width };
        stem + norm + blocks.map(|block| block.num_parameters()).sum::<usize>() + (self.features() + 1) * self.classes
    }

    /// Multiply-adds of one forward pass of one `height` x `width` image: convolutions and the classifier, without
    /// batch norm, activations and pooling.
    ///
    /// ResNet-50 at 224 x 224 has 4,089,184,256, which others print as 4.09 GFLOPs or GMACs.
    pub fn multiply_adds(&self, height: usize, width: usize) -> u64 {
        let kernel = self.stem_kernel();
        let stride = if self.stem == ResNetStem::ImageNet { 2 } else { 1 };
        let (mut height, mut width) = (height.div_ceil(stride), width.div_ceil(stride));
        let mut total = (self.in_channels * self.stem_width * kernel * kernel) as u64 * (height * width) as u64;
        if self.stem == ResNetStem::ImageNet {
            (height, width) = (height.div_ceil(2), width.div_ceil(2));
        }
        for block in self.stages().into_iter().flatten() {
            total += block.multiply_adds(height, width);
            (height, width) = (height.div_ceil(block.stride), width.div_ceil(block.stride));
        }
        total + (self.features() * self.classes) as u64
    }

    /// Channels of the last stage: the length of [`ResNetOutput::pooled`](super::ResNetOutput::pooled).
    pub fn features(&self) -> usize {
        self.widths.last().map_or(0, |width| width * self.block.expansion())
    }

    pub(super) fn stem_kernel(&self) -> usize {
        match self.stem {
            ResNetStem::Cifar => 3,
            ResNetStem::ImageNet => 7,
        }
    }

    /// The shape of every block, stage by stage.
    pub(super) fn stages(&self) -> Vec<Vec<BlockShape>> {
        let mut channels_in = self.stem_width;
        let stage = |(index, (&width, &depth)): (usize, (&usize, &usize))| {
            let block = |position: usize| {
                let stride = if index > 0 && position == 0 { 2 } else { 1 };
                let shape = BlockShape { kind: self.block, channels_in, width, stride };
                channels_in = shape.channels_out();
                shape
            };
            (0..depth).map(block).collect()
        };
        self.widths.iter().zip(&self.depths).enumerate().map(stage).collect()
    }

    pub(super) fn validate(&self) -> Result<(), VisionError> {
        if !matches!(self.widths.len(), 3 | 4) {
            return Err(VisionError::out_of_range("widths.len()", "{3, 4}", self.widths.len()));
        }
        if self.depths.len() != self.widths.len() {
            let range = format!("{{{}}}, the length of `widths`", self.widths.len());
            return Err(VisionError::out_of_range("depths.len()", range, self.depths.len()));
        }
        if self.block == ResNetBlock::PreActivation && self.stem != ResNetStem::Cifar {
            return Err(VisionError::out_of_range("stem", "{Cifar} with pre-activation blocks", "ImageNet"));
        }
        for &width in &self.widths {
            check("widths", width, LARGEST)?;
        }
        for &depth in &self.depths {
            check("depths", depth, LARGEST)?;
        }
        check("stem_width", self.stem_width, LARGEST)?;
        check("classes", self.classes, MOST_CLASSES)?;
        check("in_channels", self.in_channels, LARGEST)?;
        check("num_parameters()", self.num_parameters(), MOST_PARAMETERS)
    }
}

impl ResNetBlock {
    /// Channels out of a block per width of its 3x3 convolutions.
    pub(super) fn expansion(self) -> usize {
        match self {
            Self::Basic | Self::PreActivation => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// n of `depth` = 6n + `extra`.
fn blocks_per_stage(depth: usize, extra: usize) -> Result<usize> {
    if depth > extra && depth <= LARGEST && (depth - extra).is_multiple_of(6) {
        Ok((depth - extra) / 6)
    } else {
        Err(VisionError::out_of_range("depth", format!("{{{}, {}, {}, ..}}", extra + 6, extra + 12, extra + 18), depth))
    }
}

fn check(field: &'static str, given: usize, largest: usize) -> Result<()> {
    if (1..=largest).contains(&given) {
        Ok(())
    } else {
        Err(VisionError::out_of_range(field, format!("[1, {largest}]"), given))
    }
}

#[cfg(test)]
mod tests {
    use burn::config::config_to_json;
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Tensor;

    use super::*;

    /// Counts what an optimiser would train.
    struct Count(usize);

    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }

    fn of(name: &str, classes: usize) -> ResNetConfig {
        ResNetConfig::from_name(name, classes).expect("known")
    }

    #[test]
    fn parameters_are_as_published() {
        // torchvision's documentation of its weights, 1000 classes.
        let published = [
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
        ];
        for (name, parameters) in published {
            assert_eq!(of(name, 1000).num_parameters(), parameters, "{name}");
        }
        // Millions in CRD (Tian et al.), table 7, 100 classes.
        let published = [
            ("wrn_40_2", 2.26),
            ("wrn_16_2", 0.70),
            ("wrn_40_1", 0.57),
            ("resnet56", 0.86),
            ("resnet110", 1.74),
            ("resnet20", 0.28),
            ("resnet32", 0.47),
            ("resnet8x4", 1.23),
            ("resnet32x4", 7.43),
        ];
        for (name, millions) in published {
            let found = of(name, 100).num_parameters() as f64 / 1e6;
            assert!((found - millions).abs() <= 0.00501, "{name}: {found}");
        }
    }

    #[test]
    fn parameters_are_those_of_the_model() {
        let device = Device::flex().autodiff();
        for name in NAMES {
            let config = of(name, 10).with_in_channels(1);
            let model = ResNet::build(&config, &burn::nn::Initializer::Zeros, &device);
            let mut count = Count(0);
            model.visit(&mut count);
            assert_eq!(config.num_parameters(), count.0, "{name}");
        }
    }

    #[test]
    fn multiply_adds_are_as_published() {
        assert_eq!(of("resnet18", 1000).multiply_adds(224, 224), 1_814_073_344);
        assert_eq!(of("resnet50", 1000).multiply_adds(224, 224), 4_089_184_256);
        // ResNet-8 by hand: stem; stage 1; stages 2 and 3 with a projection each; classifier.
        let stem = 3 * 16 * 9 * 1024;
        let stage1 = 2 * 16 * 16 * 9 * 1024;
        let stage2 = (16 * 32 + 32 * 32) * 9 * 256 + 16 * 32 * 256;
        let stage3 = (32 * 64 + 64 * 64) * 9 * 64 + 32 * 64 * 64;
        assert_eq!(of("resnet8", 10).multiply_adds(32, 32), stem + stage1 + stage2 + stage3 + 640);
        // An odd size rounds up at every stride: 7 x 5, 4 x 3, 2 x 2.
        let odd = 3 * 16 * 9 * 35 + 2 * 16 * 16 * 9 * 35 + (16 * 32 + 32 * 32) * 9 * 12 + 16 * 32 * 12;
        assert_eq!(of("resnet8", 10).multiply_adds(7, 5), odd + (32 * 64 + 64 * 64) * 9 * 4 + 32 * 64 * 4 + 640);
        // Grey images save two thirds of the stem.
        let grey = of("resnet8", 10).with_in_channels(1).multiply_adds(32, 32);
        assert_eq!(of("resnet8", 10).multiply_adds(32, 32) - grey, 2 * 16 * 9 * 1024);
    }

    #[test]
    fn names_are_the_constructors() {
        let equal = [
            ("resnet110", ResNetConfig::cifar(110, 9)),
            ("resnet32x4", ResNetConfig::cifar_x4(32, 9)),
            ("wrn_40_1", ResNetConfig::wrn(40, 1, 9)),
            ("resnet34", Ok(ResNetConfig::resnet34(9))),
        ];
        for (name, config) in equal {
            assert_eq!(of(name, 9), config.expect("valid"), "{name}");
        }
        let mut all: Vec<_> = NAMES.iter().map(|name| config_to_json(&of(name, 9))).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), NAMES.len(), "no two names mean the same");
        let error = ResNetConfig::from_name("resnet-18", 9).expect_err("it has no dash").to_string();
        assert!(NAMES.iter().all(|name| error.contains(name)) && error.contains("`resnet-18`"), "{error}");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = |result: Result<ResNetConfig>| result.map(|_| ()).expect_err("out of range").to_string();
        let depth = "`depth` must be in {8, 14, 20, ..}, got ";
        for wrong in [0, 2, 7, 18, usize::MAX] {
            assert_eq!(error(ResNetConfig::cifar(wrong, 10)), format!("{depth}{wrong}"));
            assert_eq!(error(ResNetConfig::cifar_x4(wrong, 10)), format!("{depth}{wrong}"));
        }
        assert_eq!(error(ResNetConfig::wrn(4, 2, 10)), "`depth` must be in {10, 16, 22, ..}, got 4");
        assert_eq!(error(ResNetConfig::wrn(16, 0, 10)), "`widen` must be in [1, 1024], got 0");

        let error =
            |config: ResNetConfig| config.init(&Device::flex()).map(|_| ()).expect_err("out of range").to_string();
        assert_eq!(error(of("resnet8", 0)), "`classes` must be in [1, 16777216], got 0");
        assert_eq!(error(of("resnet8", 2).with_in_channels(0)), "`in_channels` must be in [1, 65536], got 0");
        assert_eq!(
            error(ResNetConfig { widths: vec![16, 32], ..of("resnet8", 2) }),
            "`widths.len()` must be in {3, 4}, got 2"
        );
        assert_eq!(
            error(ResNetConfig { depths: vec![1; 4], ..of("resnet8", 2) }),
            "`depths.len()` must be in {3}, the length of `widths`, got 4"
        );
        assert_eq!(
            error(ResNetConfig { depths: vec![1, 0, 1], ..of("resnet8", 2) }),
            "`depths` must be in [1, 65536], got 0"
        );
        let huge = error(ResNetConfig { widths: vec![65536; 4], depths: vec![65536; 4], ..ResNetConfig::resnet50(1) });
        assert!(huge.starts_with("`num_parameters()` must be in [1, 1073741824], got 1"), "{huge}");
        assert_eq!(
            error(ResNetConfig { stem: ResNetStem::ImageNet, ..of("wrn_16_1", 2) }),
            "`stem` must be in {Cifar} with pre-activation blocks, got ImageNet"
        );
    }

    #[test]
    fn json_round_trip() {
        for name in NAMES {
            let config = of(name, 12).with_in_channels(1);
            let json = config_to_json(&config);
            assert_eq!(ResNetConfig::load_binary(json.as_bytes()).expect("its own JSON"), config, "{name}");
        }
    }
}
