//! The contracts every part of burn-distill shares: who learns ([`Student`]), who teaches ([`Teacher`]), and in
//! which order the data comes ([`SeededLoader`]).
//!
//! | to have | use |
//! |---|---|
//! | any trained model as teacher | [`Frozen`] |
//! | several teachers as one | [`Ensemble`] |
//! | several teachers, each heard on its own | a tuple, an array or a `Vec` of them |
//! | several students that learn together (mutual learning) | a tuple, an array or a `Vec` of them |
//! | the average of the student's own past (Mean Teacher) | [`MeanTeacher`] |
//! | none: the same student on labels alone | [`NoTeacher`] |
//! | the previous generation (born-again) | [`Frozen::new`] on the trained student |
//! | a student feature in the teacher's shape | [`LinearConnector`], [`ConvConnector`], [`MlpConnector`], [`BottleneckConnector`], [`ReviewConnector`] |
//! | the teacher's own classifier at the end of a student (SimKD) | [`ReusedClassifier`] |
//! | the factors of factor transfer | [`Paraphraser`], [`Translator`] |
//! | one network for several tasks | [`MultiTaskStudent`] |
//! | a run that resumes to the same numbers | [`SeededLoader`] |
//! | a batch of your own that a cache of the teacher's answers knows | [`Keyed`] |
//! | a teacher on a device of its own | [`OnDevice`] for batch and output |
//!
//! A model becomes a student by one method, generic over the batch it reads:
//!
//! ```
//! use burn::{module::Module, nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
//! use burn_distill_models::{Frozen, Student, Teacher};
//!
//! #[derive(Module, Debug)]
//! struct Classifier { layer: Linear }
//!
//! impl Student<Tensor<2>> for Classifier {
//!     type Output = Tensor<2>;
//!     fn forward(&self, batch: &Tensor<2>) -> Tensor<2> { self.layer.forward(batch.clone()) }
//! }
//!
//! let device = Device::flex();
//! let teacher = Frozen::new(Classifier { layer: LinearConfig::new(4, 3).init(&device) });
//! let logits = teacher.forward(&Tensor::ones([2, 4], &device));
//! assert_eq!(logits.dims(), [2, 3]);
//! ```

mod connector;
mod ensemble;
mod error;
mod fingerprint;
mod frozen;
mod keyed;
mod loader;
mod mean_teacher;
mod multi_task;
mod no_teacher;
mod on_device;
mod parameters;
mod reused;
mod seed;
mod several;
mod student;

pub use connector::{
    AttentionFusion, AttentionFusionConfig, BottleneckConnector, BottleneckConnectorConfig, ConvConnector,
    ConvConnectorConfig, LinearConnector, LinearConnectorConfig, MlpConnector, MlpConnectorConfig, Paraphraser,
    ParaphraserConfig, ReviewConnector, ReviewConnectorConfig, Translator, TranslatorConfig,
};
pub use ensemble::{Ensemble, EnsembleMean, EnsembleOutput};
pub use error::ModelError;
pub use fingerprint::fingerprint;
pub use frozen::Frozen;
pub use keyed::{Keyed, ViewKey};
pub use loader::{Seeded, SeededLoader, SeededLoaderConfig};
pub use mean_teacher::MeanTeacher;
pub use multi_task::{Branch, HeadOutput, LinearHead, LinearHeadConfig, MultiTaskOutput, MultiTaskStudent};
pub use no_teacher::NoTeacher;
pub use on_device::OnDevice;
pub use parameters::{parameter_count, weight_bytes};
pub use reused::{ReusedClassifier, ReusedOutput};
pub use seed::{mix_seed, rng_from_seed};
pub use student::{Student, Teacher};
