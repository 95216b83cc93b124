use burn::tensor::Device;

/// Which view of which sample a row of a batch is. Under one augmentation, equal keys are equal inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewKey {
    /// Tells the data sets of one run apart: training and validation both count their samples from 0.
    pub dataset: u64,
    /// The sample's index in its data set.
    pub sample: u64,
    /// The seed of its augmentation, or 0 where nothing about the view is random.
    pub view: u64,
}

/// A batch that says which view of which sample each of its rows is: what a cache of a teacher's answers looks up.
///
/// The order is that of the rows of the teacher's logits. A batch of your own needs numbers that identify the input of
/// every row; whatever else the input depends on (the augmentation's settings, say) belongs into the identity of the
/// cache.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::{Keyed, ViewKey};
///
/// /// Sentences of one data set, without augmentation.
/// struct Sentences { tokens: Tensor<2, burn::tensor::Int>, indices: Vec<usize> }
///
/// impl Keyed for Sentences {
///     fn keys(&self) -> Vec<ViewKey> {
///         self.indices.iter().map(|&index| ViewKey { dataset: 0, sample: index as u64, view: 0 }).collect()
///     }
///     fn device(&self) -> Device { self.tokens.device() }
/// }
/// ```
pub trait Keyed {
    /// One key per row.
    fn keys(&self) -> Vec<ViewKey>;

    /// The device that the batch's tensors are on, where the cached answers are wanted too.
    fn device(&self) -> Device;
}
