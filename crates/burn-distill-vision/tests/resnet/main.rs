//! ResNets against PyTorch: numbers and files.

mod parity;
mod reference;
mod weights;
