use burn::config::Config;
use burn::module::{Module, ModuleDisplay};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::Student;

/// One trunk and several heads: the batch goes through the trunk once, and every head reads what the trunk says.
///
/// A head is a student of features, `Student<Trunk::Output>`, and so are heads together: a tuple of heads, whose output
/// is a tuple, or a module of your own, whose output has a field for each task. A task that is not there is then a
/// compile error.
///
/// ```
/// use burn::{module::Module, nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// use burn_distill_models::{HeadOutput, LinearHead, LinearHeadConfig, MultiTaskStudent, Student};
///
/// #[derive(Module, Debug)]
/// struct Trunk { layer: Linear }
///
/// impl Student<Tensor<2>> for Trunk {
///     type Output = Tensor<2>;
///     fn forward(&self, pixels: &Tensor<2>) -> Tensor<2> { self.layer.forward(pixels.clone()).tanh() }
/// }
///
/// #[derive(Module, Debug)]
/// struct Heads { garment: LinearHead, orientation: LinearHead }
///
/// struct Tasks { garment: HeadOutput, orientation: HeadOutput }
///
/// impl Student<Tensor<2>> for Heads {
///     type Output = Tasks;
///     fn forward(&self, features: &Tensor<2>) -> Tasks {
///         Tasks { garment: self.garment.forward(features), orientation: self.orientation.forward(features) }
///     }
/// }
///
/// let device = Device::flex();
/// let head = |classes| LinearHeadConfig::new(16, classes).init(&device);
/// let trunk = Trunk { layer: LinearConfig::new(64, 16).init(&device) };
/// let student = MultiTaskStudent::new(trunk, Heads { garment: head(10), orientation: head(4) });
/// let output = student.forward(&Tensor::<2>::ones([2, 64], &device));
/// assert_eq!(output.heads.garment.logits.dims(), [2, 10]);
/// assert_eq!(output.heads.orientation.logits.dims(), [2, 4]);
/// assert_eq!(output.features.dims(), [2, 16]);
/// ```
#[derive(Module, Debug)]
pub struct MultiTaskStudent<Trunk, Heads> {
    /// What the tasks share.
    pub trunk: Trunk,
    /// What they do not.
    pub heads: Heads,
}

impl<Trunk, Heads> MultiTaskStudent<Trunk, Heads> {
    /// The heads on the trunk.
    pub fn new(trunk: Trunk, heads: Heads) -> Self {
        Self { trunk, heads }
    }
}

/// What a [`MultiTaskStudent`] says.
#[derive(Clone, Debug)]
pub struct MultiTaskOutput<Features, Heads> {
    /// The trunk's output.
    pub features: Features,
    /// The heads'.
    pub heads: Heads,
}

impl<Batch, Trunk, Heads> Student<Batch> for MultiTaskStudent<Trunk, Heads>
where
    Trunk: Student<Batch> + ModuleDisplay,
    Heads: Student<Trunk::Output> + ModuleDisplay,
{
    type Output = MultiTaskOutput<Trunk::Output, Heads::Output>;

    fn forward(&self, batch: &Batch) -> Self::Output {
        let features = self.trunk.forward(batch);
        let heads = self.heads.forward(&features);
        MultiTaskOutput { features, heads }
    }
}

/// Shared features on their way into one head: the same values, and a place at which the gradient of this head alone
/// can be read.
///
/// Balancing tasks by gradient norm asks how strongly each task pulls at what they share. A backward pass gives the
/// sum over the tasks. So every branch adds zeros of its own to the features: their gradient is that of the features
/// through this branch. It costs one addition per task, and no second backward pass. Without autodiff, as in
/// validation and in a frozen teacher, there is nothing to add.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::Branch;
///
/// let device = Device::flex().autodiff();
/// let features = Tensor::<1>::from_floats([1.0, 2.0], &device).require_grad();
/// let (a, b) = (Branch::new(&features), Branch::new(&features));
/// let total = a.features().sum().mul_scalar(3.0) + b.features().square().sum();
/// let gradients = total.backward();
/// let gradient = |branch: &Branch<1>| branch.probe().unwrap().grad(&gradients).unwrap().to_data();
/// assert_eq!(gradient(&a).to_vec::<f32>().unwrap(), [3.0, 3.0]);
/// assert_eq!(gradient(&b).to_vec::<f32>().unwrap(), [2.0, 4.0]);
/// assert_eq!(features.grad(&gradients).unwrap().to_data().to_vec::<f32>().unwrap(), [5.0, 7.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Branch<const D: usize> {
    features: Tensor<D>,
    probe: Option<Tensor<D>>,
}

impl<const D: usize> Branch<D> {
    /// A branch of the features for one head.
    pub fn new(features: &Tensor<D>) -> Self {
        if !features.is_autodiff() {
            return Self { features: features.clone(), probe: None };
        }
        let probe = features.clone().detach().zeros_like().require_grad();
        Self { features: features.clone() + probe.clone(), probe: Some(probe) }
    }

    /// The features, for the head.
    pub fn features(&self) -> Tensor<D> {
        self.features.clone()
    }

    /// The zeros whose gradient is that of the features through this branch; `None` without autodiff.
    pub fn probe(&self) -> Option<&Tensor<D>> {
        self.probe.as_ref()
    }
}

/// Configuration of a [`LinearHead`].
#[derive(Config, Debug)]
pub struct LinearHeadConfig {
    /// Width of the features.
    pub features: usize,
    /// Classes of the task.
    pub classes: usize,
}

impl LinearHeadConfig {
    /// A head with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> LinearHead {
        LinearHead { linear: LinearConfig::new(self.features, self.classes).init(device) }
    }
}

/// The usual head of a classification task: one linear layer on a [`Branch`] of the features.
///
/// # Shapes
/// `[rows, features]` to `[rows, classes]`.
#[derive(Module, Debug)]
pub struct LinearHead {
    linear: Linear,
}

/// What a [`LinearHead`] says.
#[derive(Clone, Debug)]
pub struct HeadOutput {
    /// `[rows, classes]`.
    pub logits: Tensor<2>,
    /// What the head read, for balancing by gradient norm.
    pub branch: Branch<2>,
}

impl Student<Tensor<2>> for LinearHead {
    type Output = HeadOutput;

    fn forward(&self, features: &Tensor<2>) -> HeadOutput {
        let branch = Branch::new(features);
        HeadOutput { logits: self.linear.forward(branch.features()), branch }
    }
}
