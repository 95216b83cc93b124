//! Trainable projections of student features into the teacher's shape (FitNets calls them regressors). They are
//! learned parts of an objective: optimised, saved and resumed with it, and dropped from the exported student.

mod attention;
mod bottleneck;
mod conv;
mod factor;
mod linear;
mod mlp;

pub use attention::{AttentionFusion, AttentionFusionConfig, ReviewConnector, ReviewConnectorConfig};
pub use bottleneck::{BottleneckConnector, BottleneckConnectorConfig};
pub use conv::{ConvConnector, ConvConnectorConfig};
pub use factor::{Paraphraser, ParaphraserConfig, Translator, TranslatorConfig};
pub use linear::{LinearConnector, LinearConnectorConfig};
pub use mlp::{MlpConnector, MlpConnectorConfig};
