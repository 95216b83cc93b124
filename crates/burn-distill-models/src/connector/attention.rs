use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::{
    Device, Tensor, activation,
    module::interpolate,
    ops::{InterpolateMode, InterpolateOptions},
};

/// Configuration of an [`AttentionFusion`].
#[derive(Config, Debug)]
pub struct AttentionFusionConfig {
    /// Channels of the student's feature map.
    pub student_channels: usize,
    /// Channels shared between fusions, which carry what deeper stages said. The authors take those of the deepest
    /// student stage, at most 512, on CIFAR-100, and 512 or 256 on ImageNet.
    pub mid_channels: usize,
    /// Channels of the teacher's feature map.
    pub teacher_channels: usize,
    /// Whether a deeper stage is fused in; false for the deepest.
    #[config(default = true)]
    pub fuse: bool,
}

impl AttentionFusionConfig {
    /// A fusion with fresh weights on `device`: Kaiming-uniform with gain 1 for the two convolutions of the features,
    /// as the authors initialise them, and Burn's (and PyTorch's) default for that of the attention.
    pub fn init(&self, device: &Device) -> AttentionFusion {
        let initializer = Initializer::KaimingUniform { gain: 1.0, fan_out_only: false };
        let conv = |channels, kernel: usize| {
            Conv2dConfig::new(channels, [kernel, kernel])
                .with_padding(PaddingConfig2d::Explicit(kernel / 2, kernel / 2, kernel / 2, kernel / 2))
                .with_bias(false)
                .with_initializer(initializer.clone())
                .init(device)
        };
        AttentionFusion {
            reduce: conv([self.student_channels, self.mid_channels], 1),
            reduce_norm: BatchNormConfig::new(self.mid_channels).init(device),
            attention: self
                .fuse
                .then(|| Conv2dConfig::new([2 * self.mid_channels, 2], [1, 1]).with_bias(true).init(device)),
            expand: conv([self.mid_channels, self.teacher_channels], 3),
            expand_norm: BatchNormConfig::new(self.teacher_channels).init(device),
        }
    }
}

/// The attention-based fusion (ABF) of ReviewKD: a student stage, fused with what the deeper stages said, in the
/// shape of a teacher stage.
///
/// ```text
/// x = norm(conv1x1(student)),  y = deeper at the size of x
/// a, b = sigmoid(conv1x1([x, y])), one map each;   x = a x + b y        (the deepest stage: x as it is)
/// x at the teacher's size goes on to the next shallower stage;   fused = norm(conv3x3(x))
/// ```
///
/// Sizes are changed by nearest neighbours.
///
/// # References
/// Chen et al., *Distilling Knowledge via Knowledge Review*, 2021, arXiv 2104.09044, section 3.3; reference code
/// dvlab-research/ReviewKD `CIFAR-100/model/reviewkd.py` at cede6ea6 (`ABF`), which knows squares only.
#[derive(Module, Debug)]
pub struct AttentionFusion {
    reduce: Conv2d,
    reduce_norm: BatchNorm,
    attention: Option<Conv2d>,
    expand: Conv2d,
    expand_norm: BatchNorm,
}

impl AttentionFusion {
    /// Gives the fused feature and what goes on to the next shallower stage.
    ///
    /// # Shapes
    /// `student` `[batch, student_channels, h, w]`, `deeper` `[batch, mid_channels, any, any]`, `size` the teacher's
    /// `[height, width]`; results `[batch, teacher_channels, size]` and `[batch, mid_channels, size]`.
    ///
    /// # Panics
    /// If `deeper` is given to a fusion made without [`fuse`](AttentionFusionConfig::fuse), or missing from one made
    /// with it; if channels or batches do not fit.
    pub fn forward(&self, student: Tensor<4>, deeper: Option<Tensor<4>>, size: [usize; 2]) -> (Tensor<4>, Tensor<4>) {
        let reduced = self.reduce_norm.forward(self.reduce.forward(student));
        let [_, _, height, width] = reduced.dims();
        let mixed = match (&self.attention, deeper) {
            (Some(attention), Some(deeper)) => {
                let deeper = nearest(deeper, [height, width]);
                let joined = Tensor::cat(vec![reduced.clone(), deeper.clone()], 1);
                let weights = activation::sigmoid(attention.forward(joined));
                reduced * weights.clone().narrow(1, 0, 1) + deeper * weights.narrow(1, 1, 1)
            }
            (None, None) => reduced,
            (Some(_), None) => panic!("this fusion was made to fuse: it needs `deeper`"),
            (None, Some(_)) => panic!("this fusion is of the deepest stage, without `fuse`: it takes no `deeper`"),
        };
        let mixed = nearest(mixed, size);
        (self.expand_norm.forward(self.expand.forward(mixed.clone())), mixed)
    }
}

fn nearest(map: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = map.dims();
    match [height, width] == size {
        true => map,
        false => interpolate(map, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size)),
    }
}

/// Configuration of a [`ReviewConnector`] over `N` stages, from shallow to deep.
#[derive(Config, Debug)]
pub struct ReviewConnectorConfig {
    /// Channels of the student's stages, from shallow to deep.
    pub student_channels: Vec<usize>,
    /// Channels of the teacher's stages, from shallow to deep; as many.
    pub teacher_channels: Vec<usize>,
    /// Channels that carry deeper stages to shallower ones.
    #[config(default = 256)]
    pub mid_channels: usize,
}

impl ReviewConnectorConfig {
    /// A connector with fresh weights on `device`.
    ///
    /// # Errors
    /// When either list does not hold `N` stages, or `N` is 0.
    pub fn init<const N: usize>(&self, device: &Device) -> Result<ReviewConnector<N>, crate::ModelError> {
        for (field, channels) in
            [("student_channels", &self.student_channels), ("teacher_channels", &self.teacher_channels)]
        {
            if channels.len() != N || N == 0 {
                let given = format!("{channels:?} for {N} stages");
                return Err(crate::ModelError::out_of_range(field, "one number per stage, at least one stage", given));
            }
        }
        let stages = self.student_channels.iter().zip(&self.teacher_channels).enumerate();
        let fusions = stages.map(|(stage, (&student, &teacher))| {
            AttentionFusionConfig::new(student, self.mid_channels, teacher).with_fuse(stage + 1 < N).init(device)
        });
        Ok(ReviewConnector { fusions: fusions.collect() })
    }
}

/// The student's side of ReviewKD: `N` stages, each fused with all deeper ones, in the teacher's shapes.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::{ReviewConnector, ReviewConnectorConfig};
///
/// let device = Device::flex();
/// let connector: ReviewConnector<2> =
///     ReviewConnectorConfig::new(vec![8, 16], vec![16, 32]).with_mid_channels(12).init(&device)?;
/// let stages = [Tensor::zeros([2, 8, 8, 8], &device), Tensor::zeros([2, 16, 4, 4], &device)];
/// let [shallow, deep] = connector.forward(stages, [[8, 8], [4, 4]]);
/// assert_eq!((shallow.dims(), deep.dims()), ([2, 16, 8, 8], [2, 32, 4, 4]));
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
#[derive(Module, Debug)]
pub struct ReviewConnector<const N: usize> {
    fusions: Vec<AttentionFusion>,
}

impl<const N: usize> ReviewConnector<N> {
    /// The fused stages, to compare with the teacher's.
    ///
    /// # Shapes
    /// `student`: stages from shallow to deep, `[batch, student_channels, any, any]`; `sizes`: the teacher's
    /// `[height, width]` of each; results `[batch, teacher_channels, height, width]`, from shallow to deep.
    ///
    /// # Panics
    /// If the channels of a stage are not those of the configuration, or the batches differ.
    pub fn forward(&self, student: [Tensor<4>; N], sizes: [[usize; 2]; N]) -> [Tensor<4>; N] {
        let mut deeper = None;
        let mut fused: [Option<Tensor<4>>; N] = std::array::from_fn(|_| None);
        let stages = student.into_iter().zip(sizes).zip(&self.fusions).zip(fused.iter_mut());
        for (((stage, size), fusion), slot) in stages.rev() {
            let (out, residual) = fusion.forward(stage, deeper, size);
            *slot = Some(out);
            deeper = Some(residual);
        }
        fused.map(|out| out.expect("`init` made one fusion per stage"))
    }
}
