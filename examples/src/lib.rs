//! What the examples on Fashion-MNIST share, so that each shows its method alone: the command line ([`Options`]), the
//! images ([`Images`]), a small network ([`ConvNet`]), how it is trained ([`Recipe`]), and a table over seeds with a
//! verdict ([`Table`]).

mod conv_net;
mod images;
mod options;
mod recipe;
mod table;

pub use conv_net::{ConvNet, ConvNetOutput, ConvTrunk};
pub use images::{Images, Loader};
pub use options::Options;
pub use recipe::{Recipe, accuracy, classified};
pub use table::Table;
