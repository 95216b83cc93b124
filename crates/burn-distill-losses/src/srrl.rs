use burn::{config::Config, tensor::Tensor};

use crate::{
    ConfigError, Mask, Reduction,
    hint::squared_difference,
    precision::{constant, features},
};

/// Configuration of [`SrrlLoss`].
#[derive(Config, Debug)]
pub struct SrrlLossConfig {
    /// Weight of the difference of the logits beside that of the features, in [0, inf).
    #[config(default = 1.0)]
    pub regression_weight: f64,
    /// How samples become one number.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
}

impl SrrlLossConfig {
    /// The loss.
    ///
    /// # Errors
    /// If `regression_weight` is not in [0, inf).
    pub fn init(&self) -> Result<SrrlLoss, ConfigError> {
        Ok(SrrlLoss {
            regression_weight: ConfigError::check_weight("regression_weight", self.regression_weight)?,
            reduction: self.reduction,
        })
    }
}

/// Softmax regression representation learning (SRRL): the student's last features are the teacher's, and say the same to
/// the teacher's classifier.
///
/// ```text
/// s, t = features, averaged over the positions;   W = weights of the teacher's classifier
/// loss = mean over samples of  mean over features of  (s - t)²
///        + regression_weight · mean over classes of  (s W - t W)²
/// ```
///
/// **Scale**: means over features and over classes, as in the authors' code. The classifier's bias is the same on both
/// sides and drops out, so it is not asked for. The paper's softmax regression is the cross-entropy of the teacher's
/// probabilities in general; the squared difference of the logits is what it recommends and its code computes. The
/// student's features pass through a connector first (a 1x1 convolution, batch norm and ReLU in the authors' code,
/// where the teacher's features are not negative either).
///
/// # Shapes
/// - `student`, `teacher`: `[batch, features, ..]`, feature maps of any sizes, or pooled features `[batch, features]`;
/// - `classifier`: `[features, classes]`, as Burn's `Linear` holds it;
/// - value: `[1]`, or `[batch]` from `forward_no_reduction`.
///
/// # Gradients
/// To `student` only, not to the classifier.
///
/// # Errors
/// [`SrrlLossConfig::init`] if the weight is not in [0, inf).
///
/// # Panics
/// `forward` if batches or features differ, or the classifier takes other features.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_losses::SrrlLossConfig;
///
/// let device = Device::flex();
/// let student = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
/// let teacher = Tensor::<2>::from_floats([[0.0, 2.0]], &device);
/// let classifier = Tensor::<2>::from_floats([[3.0, 0.0, 0.0], [5.0, 5.0, 5.0]], &device);
/// // (1 + 0) / 2 from the features, (9 + 0 + 0) / 3 from the logits.
/// let value = SrrlLossConfig::new().init()?.forward(student, teacher, classifier).into_scalar::<f64>();
/// assert!((value - 3.5).abs() < 1e-6);
/// # Ok::<(), burn_distill_losses::ConfigError>(())
/// ```
///
/// # References
/// - Yang et al., *Knowledge Distillation via Softmax Regression Representation Learning*, ICLR 2021, section 3.
/// - Reference code: jingyang2017/KD_SRRL `distiller_zoo/AIN.py` (`statm_loss`) and `train_imagenet_distillation.py` at
///   d2e802f5.
#[derive(Debug, Clone)]
pub struct SrrlLoss {
    regression_weight: f64,
    reduction: Reduction,
}

impl SrrlLoss {
    /// The loss of each sample, `[batch]`.
    pub fn forward_no_reduction<const D: usize>(
        &self,
        student: Tensor<D>,
        teacher: Tensor<D>,
        classifier: Tensor<2>,
    ) -> Tensor<1> {
        let (student, teacher) = features(student, teacher);
        let (student, teacher) = (pooled(student), pooled(teacher));
        let ([_, width], [inputs, _]) = (student.dims(), classifier.dims());
        assert_eq!(width, inputs, "`student` has {width} features and `classifier` takes {inputs}");
        let matching = squared_difference(student.clone(), teacher.clone());
        if self.regression_weight == 0.0 {
            return matching;
        }
        let logits = (student.clone() - teacher).matmul(constant(classifier, student.dtype()));
        let regression = logits.square().mean_dim(1).squeeze_dim::<1>(1);
        matching + regression.mul_scalar(self.regression_weight)
    }

    /// The reduced loss, `[1]`.
    pub fn forward<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>, classifier: Tensor<2>) -> Tensor<1> {
        self.reduction.apply(self.forward_no_reduction(student, teacher, classifier), &Mask::from(None))
    }
}

/// `[batch, features]`, averaged over the positions.
fn pooled<const D: usize>(features: Tensor<D>) -> Tensor<2> {
    let dims = features.dims();
    features.reshape([dims[0], dims[1], dims[2..].iter().product()]).mean_dim(2).squeeze_dim(2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rejects_negative_weights() {
        let error = SrrlLossConfig::new().with_regression_weight(-1.0).init().unwrap_err();
        assert_eq!(error.to_string(), "`regression_weight` must be in [0, inf), got -1");
    }

    #[test]
    fn no_gradient_reaches_the_classifier() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::ones([2, 3], &device).require_grad();
        let teacher = Tensor::<2>::zeros([2, 3], &device).require_grad();
        let classifier = Tensor::<2>::ones([3, 4], &device).require_grad();
        let loss = SrrlLossConfig::new().init().unwrap().forward(student.clone(), teacher.clone(), classifier.clone());
        let gradients = loss.backward();
        assert!(student.grad(&gradients).is_some());
        assert!(teacher.grad(&gradients).is_none() && classifier.grad(&gradients).is_none());
    }

    #[test]
    #[should_panic(expected = "`student` has 3 features and `classifier` takes 4")]
    fn panics_on_a_classifier_of_other_features() {
        let device = Device::flex();
        let features = Tensor::<2>::zeros([2, 3], &device);
        let loss = SrrlLossConfig::new().init().unwrap();
        loss.forward(features.clone(), features, Tensor::zeros([4, 5], &device));
    }
}
