use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::{BottleneckConnector, ModelError};

/// The end of a SimKD student: a projector to the teacher's last feature map and the teacher's own classifier, frozen.
///
/// A student trained by SimKD has no classifier of its own. It is a backbone and this, both in training, where the
/// projected map is drawn to the teacher's by `SimKdLoss` alone, and afterwards, where the teacher's classifier reads it.
/// So the projector and the classifier belong to the student, not to the parts of the objective: they are in its
/// checkpoints and in what it exports, and count among its parameters. The classifier gets no gradient, but gradients
/// pass through it.
///
/// ```
/// use burn::{module::Module, nn::{LinearConfig, conv::{Conv2d, Conv2dConfig}}, tensor::{Device, Tensor}};
/// use burn_distill_models::{BottleneckConnectorConfig, ReusedClassifier, ReusedOutput, Student};
///
/// #[derive(Module, Debug)]
/// struct SimKdStudent { backbone: Conv2d, head: ReusedClassifier }
///
/// impl Student<Tensor<4>> for SimKdStudent {
///     type Output = ReusedOutput;
///     fn forward(&self, images: &Tensor<4>) -> ReusedOutput {
///         // The teacher's last map is of 4 x 4 positions.
///         self.head.forward(self.backbone.forward(images.clone()), [4, 4])
///     }
/// }
///
/// let device = Device::flex();
/// let teacher_classifier = LinearConfig::new(32, 10).init(&device); // that of the trained teacher
/// let projector = BottleneckConnectorConfig::new(8, 32).init(&device)?;
/// let student = SimKdStudent {
///     backbone: Conv2dConfig::new([3, 8], [3, 3]).init(&device),
///     head: ReusedClassifier::new(projector, teacher_classifier)?,
/// };
/// let output = student.forward(&Tensor::zeros([2, 3, 8, 8], &device));
/// // `feature` goes to `SimKdLoss` beside the teacher's map; `logits` are the predictions.
/// assert_eq!((output.feature.dims(), output.logits.dims()), ([2, 32, 4, 4], [2, 10]));
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
///
/// # References
/// Chen et al., *Knowledge Distillation with the Reused Teacher Classifier*, 2022, arXiv 2203.14001; reference code
/// DefangChen/SimKD `models/util.py` at 2b389c31 (`SimKD`).
#[derive(Module, Debug)]
pub struct ReusedClassifier {
    projector: BottleneckConnector,
    classifier: Linear,
}

/// What a [`ReusedClassifier`] gives.
#[derive(Debug, Clone)]
pub struct ReusedOutput {
    /// The projected map `[batch, teacher_channels, height, width]`, to compare with the teacher's.
    pub feature: Tensor<4>,
    /// What the teacher's classifier says to its average, `[batch, classes]`.
    pub logits: Tensor<2>,
}

impl ReusedClassifier {
    /// `classifier` is the teacher's last layer, which is frozen here; a clone of it leaves the teacher as it is.
    ///
    /// # Errors
    /// When it does not read as many features as `projector` has channels.
    pub fn new(projector: BottleneckConnector, classifier: Linear) -> Result<Self, ModelError> {
        let ([inputs, _], channels) = (classifier.weight.dims(), projector.teacher_channels());
        if inputs != channels {
            let given = format!("{inputs} for {channels} channels");
            return Err(ModelError::out_of_range("classifier", "as wide as the projector's channels", given));
        }
        Ok(Self { projector, classifier: classifier.freeze() })
    }

    /// The projected map and the teacher's classifier on its average over the positions.
    ///
    /// # Shapes
    /// `student` `[batch, student_channels, height, width]`; `size` the teacher's `[height, width]`, to which a larger
    /// map is averaged.
    pub fn forward(&self, student: Tensor<4>, size: [usize; 2]) -> ReusedOutput {
        let feature = self.projector.forward(student, size);
        let [batch, channels, height, width] = feature.dims();
        let pooled = feature.clone().reshape([batch, channels, height * width]).mean_dim(2).squeeze_dim(2);
        ReusedOutput { feature, logits: self.classifier.forward(pooled) }
    }
}
